package freshness

import (
	"math"
	"time"

	"github.com/aclements/go-moremath/mathx"
)

// Tally is what can be said of a place's freshness after all comparisons of a day. An entry that was
// sampled twice counts twice, and looks of one hour are not as independent as the figure takes them to be.
type Tally struct {
	Compared int     `json:"compared"`
	Stale    int     `json:"stale"`   // of them, confirmed
	AtMost   float64 `json:"at_most"` // share of stale entries that is not exceeded, with 95 % confidence; 1 when nothing was compared
	Nines    float64 `json:"nines"`   // of freshness, at least: −log10 of AtMost
}

// tally adds the day's earlier looks at the same place to the one at hand.
func tally(row Result, at time.Time, history []Report) Tally {
	compared, stale := row.Compared, row.Confirmed
	for _, r := range history {
		if at.Sub(r.At) >= Window {
			continue
		}
		for _, n := range r.Places {
			if n.Release == row.Release && n.Archive == row.Archive {
				compared += n.Compared
				stale += n.Confirmed
			}
		}
	}
	return tallyOf(compared, min(stale, compared))
}

func tallyOf(compared, stale int) Tally {
	most := upperBound(stale, compared)
	return Tally{compared, stale, most, math.Abs(-math.Log10(most))} // not −0
}

const (
	confidence = 0.95
	// mostCounted is how many comparisons the bound takes into account: the library's incomplete
	// beta function does not converge for much larger ones. Fewer make it a little higher, never too low.
	mostCounted = 20_000
)

// upperBound returns the share that k of n stand for at most: the one-sided bound of Clopper and
// Pearson (Biometrika 26, 1934), exact for any n.
func upperBound(k, n int) float64 {
	if n > mostCounted {
		k, n = (k*mostCounted+n-1)/n, mostCounted
	}
	if k >= n {
		return 1
	}
	// The bound is where the beta distribution of k+1 and n−k reaches the confidence.
	low, high := 0.0, 1.0
	for range 60 {
		if mid := (low + high) / 2; mathx.BetaInc(mid, float64(k+1), float64(n-k)) < confidence {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
