package health

import (
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
)

// Sample is all that a health report is judged by. Each part has an Err of its own: what could
// not be learnt is unknown and leaves the other parts alone.
type Sample struct {
	At            time.Time
	Queue, Cache  Redis
	Lanes         []Lane
	Workers       Workers
	Invalidations Invalidations
	Freshness     Freshness
	Active        Active
	Snapshots     Snapshots
	Drills        Drills
	Rollback      Rollback
	Previous      *Facts // of the report before; nil when there is none
}

// Lane is the state of one lane's queue. One that never had a task is all zero.
type Lane struct {
	Name     tasks.Lane
	Waiting  int           // tasks ready to be taken
	Oldest   time.Duration // how long the oldest of them has waited
	Retry    int           // tasks that failed and will be tried again
	Archived int           // tasks given up
	Paused   bool
	Err      error
}

// Workers tells which lanes have a server.
type Workers struct {
	Servers map[tasks.Lane]int
	Err     error
}

// Invalidations is the state of the log.
type Invalidations struct {
	Pending int
	Oldest  time.Duration
	Loss    *invalidation.Loss // nil when no record was ever lost
	Err     error
	// Failover is the last one of the cache Redis that was made good; nil when there was none.
	Failover    *invalidation.Failover
	FailoverErr error
	Lag         invalidation.Lag // of those applied in the last minutes
	LagErr      error
}

// Active is the active release beside its certificate.
type Active struct {
	Release   string // "" when none is active yet
	Certified bool   // it has a certificate that promises a number of entries
	Expected  int64  // that number
	Entries   int64
	CountedAt time.Time // when Entries were counted; zero when they were not
	Err       error     // of reading the ledger
	CountErr  error     // of counting
}

// Snapshots tells what could be restored.
type Snapshots struct {
	Release    string    // whose snapshot is the newest verified one; "" when there is none
	VerifiedAt time.Time // when it was verified
	Missing    []string  // archived releases without a verified snapshot: they cannot come back
	Err        error
}

// Rollback tells what a rollback would do now.
type Rollback struct {
	Known  bool   // somebody was there to be asked
	First  bool   // there is no second release yet
	Detail string // how it would be done
	Err    error  // why it would be refused
}
