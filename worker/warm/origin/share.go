package origin

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// A Sharer divides an origin's ceilings among the workers of an app.
type Sharer interface {
	// Renew renews the worker's lease on the origin of that name, for the length that the need
	// names, and returns what it is granted. It may be repeated any number of times.
	Renew(ctx context.Context, origin string, n Need) (Grant, error)
}

// Need is what a worker asks for.
type Need struct {
	Lease   time.Duration
	Most    int           // the ceiling of all workers' requests
	Rate    float64       // likewise, a second; 0 for any
	Want    int           // requests that the worker has use for
	Busy    int           // requests that it has under way
	Hold    time.Duration // for which nobody may ask the origin; 0 for none
	Leaving bool          // the worker has no more use for it
}

// Grant is what a worker may do until its lease ends.
type Grant struct {
	Permits int
	Rate    float64       // a second; 0 where the need's is 0, or nothing is left
	Hold    time.Duration // for which nobody may ask the origin
	Now     time.Time     // the time that all workers share
}

//go:embed origin.lua
var shareLua string

var shareScript = redis.NewScript(shareLua)

// Shared is the [Sharer] of an app's queue Redis.
type Shared struct {
	Queue  redis.Scripter
	Keys   tasks.Keys
	Worker string // names this process among all
}

var _ Sharer = Shared{}

// Renew implements [Sharer].
func (s Shared) Renew(ctx context.Context, origin string, n Need) (Grant, error) {
	leaving := 0
	if n.Leaving {
		leaving = 1
	}
	reply, err := shareScript.Run(ctx, s.Queue, []string{s.Keys.Origin(origin)}, s.Worker, n.Lease.Microseconds(), n.Most, n.Rate,
		n.Want, n.Busy, n.Hold.Microseconds(), leaving).Slice()
	if err != nil {
		return Grant{}, fmt.Errorf("share origin %q: %w", origin, err)
	}
	if len(reply) != 4 {
		return Grant{}, fmt.Errorf("share origin %q: unknown reply %v", origin, reply)
	}
	permits, _ := reply[0].(int64)
	share, _ := reply[1].(string)
	hold, _ := reply[2].(int64)
	now, _ := reply[3].(int64)
	perSecond, err := strconv.ParseFloat(share, 64)
	if err != nil || now == 0 {
		return Grant{}, fmt.Errorf("share origin %q: unknown reply %v", origin, reply)
	}
	return Grant{int(permits), perSecond, time.Duration(hold) * time.Microsecond, time.UnixMicro(now)}, nil
}
