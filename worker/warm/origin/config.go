package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Config is how hard warms may press an origin, and which they may reach: the same for all workers.
type Config struct {
	OriginConcurrency int           `split_words:"true" default:"32" desc:"requests of all workers together that a site's origin may have under way, 1 to 1000; warms find how many it bears, up to that"`
	OriginRate        float64       `split_words:"true" default:"0" desc:"requests a second of all workers together to a site's origin, up to 100000; 0: as many as it bears"`
	OriginPatience    time.Duration `split_words:"true" default:"2m" desc:"how long a warm waits for an origin that answers nothing but errors, or asks to be left alone, before the rest of its entries fail, 1s to 1h"`

	CrawlNetworks []netip.Prefix `split_words:"true" desc:"private networks that crawls may reach beside public addresses, such as 10.0.0.0/8,127.0.0.0/8; whoever writes a plan can have everything in them asked"`
}

// Limits of a configuration.
const (
	maxConcurrency = 1_000
	maxRate        = 100_000
	minPatience    = time.Second
	maxPatience    = time.Hour
)

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	var errs []error
	if c.OriginConcurrency < 1 || c.OriginConcurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("%w: STOKER_ORIGIN_CONCURRENCY %d: use 1 to %d", tasks.ErrInvalid, c.OriginConcurrency, maxConcurrency))
	}
	if !(c.OriginRate >= 0 && c.OriginRate <= maxRate) {
		errs = append(errs, fmt.Errorf("%w: STOKER_ORIGIN_RATE %v: use 0 to %d", tasks.ErrInvalid, c.OriginRate, maxRate))
	}
	if c.OriginPatience < minPatience || c.OriginPatience > maxPatience {
		errs = append(errs, fmt.Errorf("%w: STOKER_ORIGIN_PATIENCE %v: use %v to %v", tasks.ErrInvalid, c.OriginPatience, minPatience, maxPatience))
	}
	return errors.Join(errs...)
}

// Loopback returns the networks of this machine, for a [Config]'s CrawlNetworks.
func Loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// Default is the configuration of an environment that sets nothing.
func Default() Config { return Config{OriginConcurrency: 32, OriginPatience: 2 * time.Minute} }
