package tasks

import (
	"fmt"
	"time"
)

// Config is what an app server and every stoker process need to know: which app, which
// Redises, which keys. Read it with envconfig under the prefix STOKER.
type Config struct {
	App         string        `default:"site" desc:"name of the site whose cache is tended: 1 to 32 of a-z, 0-9 and -"`
	RedisURL    string        `split_words:"true" default:"redis://127.0.0.1:6379/0" desc:"queue Redis: asynq's queues, the ledger, the log; must not evict and should persist"`
	CacheURL    string        `split_words:"true" desc:"cache Redis: the site's cache; default: the queue Redis"`
	KeyTemplate string        `split_words:"true" default:"<app>:<release>:<key>" desc:"how a release and a logical key make a key of the cache Redis"`
	FillLimit   time.Duration `split_words:"true" default:"30s" desc:"how long an app server may take to fill an entry; longer fills are not stored"`
	OriginLag   time.Duration `split_words:"true" default:"0s" desc:"how far the database that values are read from may lag behind its primary"`
	LogReplicas int           `split_words:"true" default:"0" desc:"replicas of the queue Redis that must hold an invalidation before its call returns: 0 to 10; a failover to one of them loses none that was acknowledged"`
	Release     string        `desc:"release that this process's client is pinned to; default: follow the active one"`
}

// Validate reports the first setting that cannot work, by name and value.
func (c Config) Validate() error {
	if err := ValidateApp(c.App); err != nil {
		return err
	}
	if _, err := c.Template(); err != nil {
		return err
	}
	if c.FillLimit < time.Second || c.FillLimit > 10*time.Minute {
		return fmt.Errorf("%w: STOKER_FILL_LIMIT %v: use 1s to 10m", ErrInvalid, c.FillLimit)
	}
	if c.OriginLag < 0 || c.OriginLag > 30*time.Minute {
		return fmt.Errorf("%w: STOKER_ORIGIN_LAG %v: use 0s to 30m", ErrInvalid, c.OriginLag)
	}
	if c.LogReplicas < 0 || c.LogReplicas > 10 {
		return fmt.Errorf("%w: STOKER_LOG_REPLICAS %d: use 0 to 10", ErrInvalid, c.LogReplicas)
	}
	if c.Release != "" {
		return ValidateRelease(c.Release)
	}
	return nil
}

// Template returns the parsed key template.
func (c Config) Template() (Template, error) {
	text := c.KeyTemplate
	if text == "" {
		text = DefaultTemplate
	}
	return ParseTemplate(text, c.App)
}

// Keys returns the names of stoker's own keys.
func (c Config) Keys() Keys { return KeysOf(c.App) }
