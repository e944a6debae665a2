package invalidation

import (
	"context"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// batch is what one round removes: some records' targets, each once.
type batch struct {
	a       *Applier
	live    []string
	records []*record
	targets []tasks.Target
	owners  []*tasks.CallOutcome // of targets: the first call that named it
	callOf  []int                // of targets: the same for those of one call
	calls   int
	places  map[tasks.Target]int // index in targets
	refresh bool                 // something is to be reloaded
}

// record is one record in a batch.
type record struct {
	number  int64
	calls   []tasks.Invalidation
	outcome tasks.Outcome
	bulk    bool // something of it is left for the bulk lane
}

func (b *batch) add(number int64, r tasks.Record) {
	rec := &record{number: number, calls: r.Calls, outcome: tasks.NewOutcome(number, r, b.live)}
	b.records = append(b.records, rec)
	for i, call := range r.Calls {
		b.calls++
		for _, t := range call.Targets {
			if _, known := b.places[t]; !known {
				b.places[t] = len(b.targets)
				b.targets = append(b.targets, t)
				b.owners = append(b.owners, &rec.outcome.Calls[i])
				b.callOf = append(b.callOf, b.calls)
			}
		}
	}
}

// remove takes the targets out of every live namespace, and notes how many entries that were for
// which call. Records with a target that needs more than so many slices are marked as bulk.
func (b *batch) remove(ctx context.Context, slices int) error {
	took := make([]time.Duration, len(b.live))
	long := map[int]bool{}
	for j, release := range b.live {
		began := time.Now()
		counts, left, err := b.a.remove(ctx, release, b.targets, b.callOf, slices)
		if err != nil {
			return err
		}
		for i, n := range counts {
			b.owners[i].Removed[j] += n
		}
		for _, i := range left {
			long[i] = true
		}
		took[j] = time.Since(began)
	}
	for _, r := range b.records {
		copy(r.outcome.Took, took)
		r.bulk = len(long) > 0 && b.names(r, long)
	}
	return nil
}

// names reports whether one of the targets at these places is the record's.
func (b *batch) names(r *record, places map[int]bool) bool {
	for _, call := range r.calls {
		for _, t := range call.Targets {
			if places[b.places[t]] {
				return true
			}
		}
	}
	return false
}
