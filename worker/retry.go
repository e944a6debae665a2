package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
)

// verdict is what becomes of a task whose handler failed.
type verdict string

const (
	retryLater verdict = "retry"   // after a growing delay, at the cost of a retry
	retryNow   verdict = "again"   // at once, at no cost
	leave      verdict = "leave"   // soon, at no cost: for a newer worker to find
	giveUp     verdict = "give up" // archived: trying again cannot help
)

// verdicts is the one table from an error's cause to what becomes of its task. What it does not
// hold is retried later.
var verdicts = []struct {
	cause error
	verdict
}{
	{asynq.SkipRetry, giveUp},
	{asynq.ErrLeaseExpired, retryNow}, // the worker died; errPoison bounds how often
	{tasks.ErrDraining, retryNow},
	{tasks.ErrNewer, leave}, // before the others: whatever else an error says, a newer worker may see it otherwise
	{errPoison, giveUp},
	{tasks.ErrInvalid, giveUp},
	{tasks.ErrRefused, giveUp},
	{tasks.ErrNotFound, giveUp},
	{tasks.ErrNotFresh, giveUp},
	{tasks.ErrNoRelease, giveUp},
}

func verdictOf(err error) verdict {
	for _, row := range verdicts {
		if errors.Is(err, row.cause) {
			return row.verdict
		}
	}
	return retryLater
}

// Final reports whether the running task will not be tried again after its handler returned err.
func Final(ctx context.Context, err error) bool {
	switch verdictOf(err) {
	case retryNow, leave:
		return false
	case giveUp:
		return true
	}
	return err != nil && lastTry(ctx)
}

// The delays between retries: the first, and the longest.
const (
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute

	// What is left for a newer worker rests so long the first few times, for a rollback may be among it, and old workers
	// take as many of them as new ones; then ever longer, for there may be no newer worker for a while.
	leaveFor   = 500 * time.Millisecond
	leaveSoon  = 8 // times
	leaveAtMax = time.Minute
)

// retryDelay is asynq's RetryDelayFunc: nothing for what is retried at once, else twice the
// delay before with up to a quarter on top, so that tasks that failed together do not return
// together. n counts the retries so far.
func retryDelay(n int, err error, _ *asynq.Task) time.Duration {
	d := lastRetry
	switch v := verdictOf(err); {
	case v == retryNow:
		return 0
	case v == leave:
		d = leaveFor
		if l := (left{}); errors.As(err, &l) {
			d = l.rest()
		}
	case n < 10:
		d = min(firstRetry<<n, lastRetry)
	}
	return d + rand.N(d/4)
}

// isFailure is asynq's IsFailure: whether err costs a retry.
func isFailure(err error) bool {
	v := verdictOf(err)
	return v != retryNow && v != leave
}

// left is the error of a task that this worker has left so often for a newer one.
type left struct {
	error
	times int
}

func (l left) Unwrap() error { return l.error }

// rest is how long such a task stays away.
func (l left) rest() time.Duration {
	grown := max(0, l.times-leaveSoon)
	return min(leaveFor<<min(grown, 16), leaveAtMax)
}

// final makes asynq archive the task, without adding words to its error.
type final struct{ error }

func (f final) Unwrap() []error { return []error{f.error, asynq.SkipRetry} }
