package health

import (
	"math"
	"slices"
	"strings"

	"github.com/aclements/go-moremath/stats"
)

// Samples are single answers of a measurement, those without an error, column by column: the
// i-th answer is the i-th of each list. Their pages and how they came about are kept, so that like
// is compared with like.
type Samples struct {
	Paths []string  `json:"paths,omitempty"` // of the pages
	Page  []int     `json:"page,omitempty"`  // index into Paths
	MS    []float64 `json:"ms,omitempty"`    // latency in milliseconds
	Kind  string    `json:"kind,omitempty"`  // one letter an answer: h, m or u; H, M or U on a first visit
	Calls []int     `json:"calls,omitempty"` // of the database; -1 where the answer did not tell
}

// What the letters of [Samples.Kind] say of the cache.
const (
	hit    = 'h'
	miss   = 'm'
	untold = 'u'
)

// untoldCalls stands for an answer that does not say how many database calls it made.
const untoldCalls = -1

// observation is one of the [Samples].
type observation struct {
	path  string
	first bool // the page's first visit of a measurement that tells first visits apart
	ms    float64
	cache byte // hit, miss or untold
	calls int
}

// all returns the samples as observations, of malformed ones as many as are whole.
func (s Samples) all() []observation {
	n := min(len(s.Page), len(s.MS), len(s.Kind), len(s.Calls))
	out := make([]observation, 0, n)
	for i := range n {
		if s.Page[i] < 0 || s.Page[i] >= len(s.Paths) {
			continue
		}
		kind := s.Kind[i] | 0x20 // lower case
		out = append(out, observation{s.Paths[s.Page[i]], kind != s.Kind[i], s.MS[i], kind, s.Calls[i]})
	}
	return out
}

// columns puts observations into the form in which they are kept.
func columns(all []observation) Samples {
	var s Samples
	var kinds strings.Builder
	index := map[string]int{}
	for _, o := range all {
		at, ok := index[o.path]
		if !ok {
			at = len(s.Paths)
			index[o.path] = at
			s.Paths = append(s.Paths, o.path)
		}
		kind := o.cache
		if o.first {
			kind &^= 0x20 // upper case
		}
		kinds.WriteByte(kind)
		s.Page = append(s.Page, at)
		s.MS = append(s.MS, math.Round(o.ms*1000)/1000)
		s.Calls = append(s.Calls, o.calls)
	}
	s.Kind = kinds.String()
	return s
}

// thin keeps at most limit of the list, evenly over its order.
func thin[T any](all []T, limit int) []T {
	if len(all) <= limit {
		return all
	}
	kept := make([]T, limit)
	step := float64(len(all)) / float64(limit)
	for i := range kept {
		kept[i] = all[int(float64(i)*step)]
	}
	return kept
}

// where returns those that hold.
func where(all []observation, holds func(observation) bool) []observation {
	var out []observation
	for _, o := range all {
		if holds(o) {
			out = append(out, o)
		}
	}
	return out
}

func isFirst(o observation) bool { return o.first }
func isLater(o observation) bool { return !o.first }

func latencyOf(o observation) float64 { return o.ms }
func countOf(o observation) float64   { return float64(o.calls) }

func values(all []observation, of func(observation) float64) []float64 {
	out := make([]float64, len(all))
	for i, o := range all {
		out[i] = of(o)
	}
	return out
}

// quantile returns the q-quantile of the values, 0 of none.
func quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	return stats.Sample{Xs: slices.Sorted(slices.Values(xs)), Sorted: true}.Quantile(q)
}

func median(xs []float64) float64 { return quantile(xs, 0.5) }

func mean(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	return stats.Sample{Xs: xs}.Sum() / float64(len(xs))
}
