package health

import (
	"fmt"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Config holds the thresholds of the checks and the manner of the measurements.
type Config struct {
	AllowTagIndexEviction                  bool `split_words:"true" default:"false" desc:"accept a cache Redis whose policy may evict tag indexes; the risk: an invalidation by tag misses entries and stale pages stay"`
	AllowQueueEvictionAndLoseInvalidations bool `split_words:"true" default:"false" desc:"start although the queue Redis may evict, which can lose invalidations and tasks without a trace"` // the worker's setting; here it turns a failure into a warning

	HealthTimeout      time.Duration `split_words:"true" default:"3s" desc:"how long one health check may wait for its answer"`
	HealthRoundTrip    time.Duration `split_words:"true" default:"100ms" desc:"a Redis that answers slower than this is a warning"`
	HealthMemory       float64       `split_words:"true" default:"0.85" desc:"share of a Redis's memory in use that is a warning; the middle between it and 1 is a failure where nothing is evicted"`
	HealthLatency      time.Duration `split_words:"true" default:"30s" desc:"wait of the oldest task in the invalidate and release lanes that is a warning (health lane: 10 times as long, warm and upkeep: 60 times); 10 times that is a failure"`
	HealthBacklog      int           `split_words:"true" default:"10000" desc:"waiting tasks in one lane that are a warning"`
	HealthPendingWarn  time.Duration `split_words:"true" default:"5s" desc:"age of the oldest pending invalidation that is a warning"`
	HealthPendingFail  time.Duration `split_words:"true" default:"60s" desc:"age of the oldest pending invalidation that is a failure"`
	HealthEntries      float64       `split_words:"true" default:"0.5" desc:"share of its certificate's entries below which the active release is a warning"`
	HealthCountEvery   time.Duration `split_words:"true" default:"10m" desc:"how often the active release's entries are counted, which scans the cache Redis"`
	HealthCountTimeout time.Duration `split_words:"true" default:"2m" desc:"how long that count may take"`
	HealthSnapshotAge  time.Duration `split_words:"true" default:"168h" desc:"age of the newest verified snapshot that is a warning"`
	DrillMaxAge        time.Duration `split_words:"true" default:"192h" desc:"age of the last good drill, where there is a snapshot, that is a failure"`
	HealthKeep         int           `split_words:"true" default:"1500" desc:"health reports kept: a day of them at one a minute"`

	ProbeConcurrency int           `split_words:"true" default:"4" desc:"probe requests in flight at a time"`
	ProbeTimeout     time.Duration `split_words:"true" default:"10s" desc:"how long one probe request may take"`
	ProbeCacheHeader string        `split_words:"true" default:"X-Cache" desc:"response header that says whether the site's cache had the page: a value that begins with hit counts as one"`
	ProbeDBMetric    string        `split_words:"true" default:"db" desc:"Server-Timing metric that counts the request's database calls"`
	ProbeDBHeader    string        `split_words:"true" desc:"response header that holds the number of the request's database calls, for sites that send no Server-Timing"`

	WatchFor      time.Duration `split_words:"true" default:"30m" desc:"how long a release is watched after its switch, in looks at growing intervals, 0s to 48h; 0s means one look"`
	WatchRollback bool          `split_words:"true" default:"false" desc:"let the watch roll back by itself, once per release, when the site is clearly worse after a switch; stoker release activate --auto-rollback asks for it one release at a time"`
}

// Validate reports a threshold that could not work, naming its variable.
func (c Config) Validate() error {
	durations := []struct {
		name string
		d    time.Duration
	}{
		{"HEALTH_TIMEOUT", c.HealthTimeout},
		{"HEALTH_ROUND_TRIP", c.HealthRoundTrip},
		{"HEALTH_LATENCY", c.HealthLatency},
		{"HEALTH_PENDING_WARN", c.HealthPendingWarn},
		{"HEALTH_COUNT_EVERY", c.HealthCountEvery},
		{"HEALTH_COUNT_TIMEOUT", c.HealthCountTimeout},
		{"HEALTH_SNAPSHOT_AGE", c.HealthSnapshotAge},
		{"PROBE_TIMEOUT", c.ProbeTimeout},
		{"DRILL_MAX_AGE", c.DrillMaxAge},
	}
	for _, v := range durations {
		if v.d <= 0 {
			return fmt.Errorf("%w: STOKER_%s %v: use a duration above 0, such as 30s", tasks.ErrInvalid, v.name, v.d)
		}
	}
	switch {
	case c.HealthPendingFail < c.HealthPendingWarn:
		return fmt.Errorf("%w: STOKER_HEALTH_PENDING_FAIL %v is below STOKER_HEALTH_PENDING_WARN %v", tasks.ErrInvalid, c.HealthPendingFail, c.HealthPendingWarn)
	case c.HealthMemory <= 0 || c.HealthMemory >= 1:
		return fmt.Errorf("%w: STOKER_HEALTH_MEMORY %v: use a share between 0 and 1", tasks.ErrInvalid, c.HealthMemory)
	case c.HealthEntries < 0 || c.HealthEntries > 1:
		return fmt.Errorf("%w: STOKER_HEALTH_ENTRIES %v: use a share from 0 to 1", tasks.ErrInvalid, c.HealthEntries)
	case c.HealthBacklog < 1:
		return fmt.Errorf("%w: STOKER_HEALTH_BACKLOG %d: use 1 or more", tasks.ErrInvalid, c.HealthBacklog)
	case c.HealthKeep < 1 || c.HealthKeep > 100_000:
		return fmt.Errorf("%w: STOKER_HEALTH_KEEP %d: use 1 to 100000", tasks.ErrInvalid, c.HealthKeep)
	case c.ProbeConcurrency < 1 || c.ProbeConcurrency > 256:
		return fmt.Errorf("%w: STOKER_PROBE_CONCURRENCY %d: use 1 to 256", tasks.ErrInvalid, c.ProbeConcurrency)
	case c.WatchFor < 0 || c.WatchFor > maxWatchFor:
		return fmt.Errorf("%w: STOKER_WATCH_FOR %v: use 0s to %v", tasks.ErrInvalid, c.WatchFor, maxWatchFor)
	case c.ProbeCacheHeader == "" || c.ProbeDBMetric == "":
		return fmt.Errorf("%w: STOKER_PROBE_CACHE_HEADER and STOKER_PROBE_DB_METRIC must name something", tasks.ErrInvalid)
	}
	return nil
}
