package health

import (
	"fmt"
	"time"
)

// How long a loss of the log is reported: nothing tells when it has been made good.
const (
	lossFails = time.Hour
	lossWarns = 24 * time.Hour
)

// clock is how times are shown.
const clock = "2006-01-02 15:04:05.000"

// judgeLoss: what was recorded and lost was perhaps never applied, and nobody is told again.
func judgeLoss(i Invalidations, now time.Time) Check {
	c := Check{Name: "invalidations.log", Status: OK, Detail: "no invalidation was lost"}
	if i.Err != nil {
		return unknown(c, "the state of the invalidation log", i.Err)
	}
	if i.Loss == nil {
		return c
	}
	age := now.Sub(i.Loss.At)
	c.Value = age.Seconds()
	c.Detail = fmt.Sprintf("at %s UTC the queue Redis was found to lack what was recorded before %s", i.Loss.At.Format(clock), i.Loss.To.Format(clock))
	if !i.Loss.From.IsZero() {
		c.Detail = fmt.Sprintf("at %s UTC the queue Redis was found to lack what was recorded from %s to %s", i.Loss.At.Format(clock), i.Loss.From.Format(clock), i.Loss.To.Format(clock))
	}
	return worse(c, age, "invalidate what was edited then (stoker invalidate --prefix …, or warm a new release), and take new snapshots: a rollback to an archive from before is refused; STOKER_LOG_REPLICAS keeps a failover from losing any")
}

// judgeFailover: what a cache Redis lacked when it came back was removed again, as far as the log
// reaches.
func judgeFailover(i Invalidations, now time.Time) Check {
	c := Check{Name: "invalidations.cache", Status: OK, Detail: "the cache Redis never came back without removals"}
	if i.FailoverErr != nil {
		return unknown(c, "the cache Redis's last failover", i.FailoverErr)
	}
	f := i.Failover
	if f == nil {
		return c
	}
	age := now.Sub(f.At)
	c.Value = age.Seconds()
	since := "the log's beginning"
	if !f.From.IsZero() {
		since = f.From.Format(clock)
	}
	c.Detail = fmt.Sprintf("at %s UTC the cache Redis was another server than before: %d targets invalidated since %s were removed again, %d entries had come back", f.At.Format(clock), f.Targets, since, f.Removed)
	if !f.Short {
		return c
	}
	c.Detail += "; what was invalidated before the log begins may have come back for good"
	return worse(c, age, "it came back from a dump or a replica older than the log, which is kept for an hour at least: invalidate what was edited before (stoker invalidate --prefix … for each family), or warm a new release; save \"\" on it makes it come back empty (see deploy/redis-cache.conf)")
}

// worse makes a loss of that age a failure, later a warning, and in the end a memory.
func worse(c Check, age time.Duration, remedy string) Check {
	switch {
	case age < lossFails:
		c.Status = Fail
	case age < lossWarns:
		c.Status = Warn
	default:
		return c
	}
	c.Remedy = remedy
	return c
}
