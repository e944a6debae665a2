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

// judgeLoss: what was recorded and lost was perhaps never applied, and nobody is told again.
func judgeLoss(i Invalidations, now time.Time) Check {
	c := Check{Name: "invalidations.log", Status: OK, Detail: "no invalidation was lost"}
	if i.Err != nil {
		return unknown(c, "the state of the invalidation log", i.Err)
	}
	if i.Loss == nil {
		return c
	}
	const clock = "2006-01-02 15:04:05.000"
	age := now.Sub(i.Loss.At)
	c.Value = age.Seconds()
	c.Detail = fmt.Sprintf("at %s UTC the queue Redis was found to lack what was recorded before %s", i.Loss.At.Format(clock), i.Loss.To.Format(clock))
	if !i.Loss.From.IsZero() {
		c.Detail = fmt.Sprintf("at %s UTC the queue Redis was found to lack what was recorded from %s to %s", i.Loss.At.Format(clock), i.Loss.From.Format(clock), i.Loss.To.Format(clock))
	}
	switch {
	case age < lossFails:
		c.Status = Fail
	case age < lossWarns:
		c.Status = Warn
	default:
		return c
	}
	c.Remedy = "invalidate what was edited then (stoker invalidate --prefix …, or warm a new release), and take new snapshots: a rollback to an archive from before is refused; STOKER_LOG_REPLICAS keeps a failover from losing any"
	return c
}
