package namespace

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// firstSlice is the size of a work's first slice, before its pacer has seen a sample.
	firstSlice = 100
	// fullSlice is the size of every slice of a Cache without a pacer.
	fullSlice = 500
	// bigValue is the size in bytes above which a value does not fit a slice.
	bigValue = 1 << 20
	// sliceBytes is the size of the values, in bytes, that one slice reads or checks.
	sliceBytes = 1 << 20
	// chunkItems is how many items a collection may have to be written in one step.
	chunkItems = 500
)

// Pacer decides how hard one work may go on the server. After a slice it is given the server
// time the slice took and the items it went through (0: it failed), and answers with the items
// of the next slice and the pause before it.
type Pacer interface {
	Next(took time.Duration, items int) (count int, pause time.Duration)
}

// Cache gives access to the namespaces of one app. It is safe for concurrent use.
type Cache struct {
	client  redis.UniversalClient
	tmpl    tasks.Template
	keys    tasks.Keys
	pace    func() Pacer
	sharded bool // no single SCAN sees all keys
}

// New returns access to the namespaces that tmpl makes in the cache Redis. pace returns the
// pacer of one work, each call a new one; nil means full speed.
func New(cache redis.UniversalClient, tmpl tasks.Template, keys tasks.Keys, pace func() Pacer) *Cache {
	c := &Cache{client: cache, tmpl: tmpl, keys: keys, pace: pace, sharded: tasks.Sharded(cache)}
	if pace == nil {
		c.pace = func() Pacer { return fullSpeed{} }
	}
	return c
}

// fullSpeed is the pacer of a Cache without one.
type fullSpeed struct{}

func (fullSpeed) Next(time.Duration, int) (int, time.Duration) { return fullSlice, 0 }

// named reports why work on named keys of the releases is impossible.
func (c *Cache) named(releases ...string) error {
	if c.tmpl.String() == "" {
		return fmt.Errorf("%w: no key template: make one with tasks.ParseTemplate", tasks.ErrInvalid)
	}
	for _, id := range releases {
		if err := tasks.ValidateRelease(id); err != nil {
			return err
		}
	}
	return nil
}

// whole reports why work on the releases' whole namespaces is impossible.
func (c *Cache) whole(releases ...string) error {
	if c.sharded {
		return fmt.Errorf("%w: the cache Redis is a cluster: work on whole namespaces needs a single server or a Sentinel group (STOKER_CACHE_URL)", tasks.ErrInvalid)
	}
	return c.named(releases...)
}

// wrap says in an error what was being done, and to which release.
func wrap(err *error, verb, release string) {
	if *err != nil {
		*err = fmt.Errorf("%s namespace %q: %w", verb, release, *err)
	}
}

//go:embed fields.lua
var fieldsSource string

//go:embed expiries.lua
var expiriesSource string

//go:embed knows.lua
var knowsSource string

//go:embed hash.lua
var hashSource string

//go:embed read.lua
var readSource string

//go:embed write.lua
var writeSource string

//go:embed copy.lua
var copySource string

//go:embed delete.lua
var deleteSource string

//go:embed usage.lua
var usageSource string

//go:embed list.lua
var listSource string

//go:embed carry.lua
var carrySource string

//go:embed prune.lua
var pruneSource string

var (
	readScript     = redis.NewScript(fieldsSource + readSource)
	expiriesScript = redis.NewScript(fieldsSource + expiriesSource)
	knowsScript    = redis.NewScript(fieldsSource + knowsSource)
	writeScript    = redis.NewScript(writeSource)
	hashScript     = redis.NewScript(hashSource)
	copyScript     = redis.NewScript(copySource)
	deleteScript   = redis.NewScript(deleteSource)
	usageScript    = redis.NewScript(usageSource)
	listScript     = redis.NewScript(listSource)
	carryScript    = redis.NewScript(carrySource)
	pruneScript    = redis.NewScript(tasks.CompanionLua + pruneSource)
)

// load makes the scripts known to the server.
func (c *Cache) load(ctx context.Context) error {
	for _, s := range []*redis.Script{readScript, expiriesScript, writeScript, hashScript, copyScript, deleteScript, usageScript, listScript, carryScript, pruneScript} {
		if err := s.Load(ctx, c.client).Err(); err != nil {
			return fmt.Errorf("load scripts: %w", err)
		}
	}
	return nil
}
