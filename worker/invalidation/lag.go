package invalidation

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
)

const (
	// LagWindow is how far back the lag looks: on a quiet site, one slow invalidation of
	// yesterday says nothing about now.
	LagWindow = 10 * time.Minute
	// lagCalls bounds how many outcomes are read for it: enough for a 99th percentile, and few
	// milliseconds of work a scrape.
	lagCalls = 1000
)

// Lag says how long recent invalidations took: from the call's record until its targets had left
// every live namespace. The ends of that time are read from two clocks, the queue Redis's and the
// worker's, and so it is as exact as they agree.
type Lag struct {
	Calls      int            `json:"calls"` // applied within the window; the figures are 0 without any
	P50        time.Duration  `json:"p50_ns"`
	P99        time.Duration  `json:"p99_ns"`
	Max        time.Duration  `json:"max_ns"`
	Namespaces []NamespaceLag `json:"namespaces"` // slowest first
}

// NamespaceLag says how long the removal itself took in one namespace, of all that was applied
// together: the part of the lag that is the namespace's own.
type NamespaceLag struct {
	Release string        `json:"release"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
}

// Lag reads the lag of the last calls.
func (l *Log) Lag(ctx context.Context) (Lag, error) {
	calls, err := tasks.ListApplied(ctx, l.queue, l.keys, lagCalls)
	if err != nil {
		return Lag{}, err
	}
	now, err := l.queue.Time(ctx).Result()
	if err != nil {
		return Lag{}, err
	}
	return LagOf(calls, now.Add(-LagWindow)), nil
}

// LagOf computes the lag of those calls that were recorded after since.
func LagOf(calls []tasks.Applied, since time.Time) Lag {
	var took []time.Duration
	removal := map[string][]time.Duration{}
	for _, c := range calls {
		if !c.Recorded.After(since) {
			continue
		}
		took = append(took, max(0, c.At.Sub(c.Recorded)))
		for id, d := range c.Took {
			removal[id] = append(removal[id], d)
		}
	}
	if len(took) == 0 {
		return Lag{}
	}
	slices.SortFunc(took, cmp.Compare)
	return Lag{Calls: len(took), P50: quantile(took, 50), P99: quantile(took, 99), Max: took[len(took)-1], Namespaces: slowest(removal)}
}

// slowest puts the namespaces in order, the slowest first: by the 99th percentile, then by the maximum.
func slowest(removal map[string][]time.Duration) []NamespaceLag {
	var all []NamespaceLag
	for id, took := range removal {
		slices.SortFunc(took, cmp.Compare)
		all = append(all, NamespaceLag{id, quantile(took, 99), took[len(took)-1]})
	}
	slices.SortFunc(all, func(a, b NamespaceLag) int {
		return cmp.Or(cmp.Compare(b.P99, a.P99), cmp.Compare(b.Max, a.Max), cmp.Compare(a.Release, b.Release))
	})
	return all
}

// quantile returns the least value that percent of all do not exceed; sorted is not empty.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}
