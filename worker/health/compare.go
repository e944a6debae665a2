package health

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

// Outcome is the word of a verdict.
type Outcome string

// The outcomes.
const (
	Better       Outcome = "better"
	Same         Outcome = "same"
	Worse        Outcome = "worse"
	Inconclusive Outcome = "inconclusive" // too little evidence; never to be read as same
)

// Verdict is two baselines compared.
type Verdict struct {
	Verdict Outcome  `json:"verdict"`
	Reasons []string `json:"reasons"` // what was found, one line a measure
	Before  Baseline `json:"before"`  // without samples
	After   Baseline `json:"after"`   // without samples
}

// A difference counts when it is both unlikely to be chance and large enough to matter.
const (
	minRequests = 100   // on each side; below this nothing counts as the same
	minErrors   = 5     // on the worse side
	maxP        = 0.001 // the probability of such a difference by chance; small, because there are five measures

	latencyRatio  = 1.1  // of the medians
	latencyFloor  = 0.5  // ms between the medians that matter at all
	tailRatio     = 2.0  // of the shares of requests slower than before's 95th percentile
	dbRatio       = 1.5  // of the calls per request
	dbFloor       = 0.1  // calls per request that matter at all
	hitRateChange = 0.05 // of the hit rates' difference
)

// finding is what one measure says, with its line of the verdict.
type finding struct {
	outcome Outcome
	reason  string
}

// Compare judges after against before: median latency (Mann-Whitney U test), the slow tail, errors and
// hit rate (Fisher's exact test), database calls per request (Welch's t test). One measure that is worse makes
// the verdict worse. Fewer than 100 answers on either side are inconclusive, unless even those
// show that it is worse. Of pairs that do not differ, fewer than one in 200 are called worse. It
// is pure.
func Compare(before, after Baseline) Verdict {
	v := Verdict{Before: before.Summary(), After: after.Summary()}
	findings := []finding{
		compareErrors(before, after),
		compareLatency(before, after),
		compareTail(before, after),
		compareDBCalls(before, after),
		compareHitRate(before, after),
	}
	found := make(map[Outcome]bool)
	for _, f := range findings {
		found[f.outcome] = true
		v.Reasons = append(v.Reasons, f.reason)
	}
	// Database calls and hit rate are inconclusive where a site does not report them, which
	// must not spoil the verdict; errors and latency are always there to be measured.
	enough := findings[0].outcome != Inconclusive && findings[1].outcome != Inconclusive
	switch {
	case found[Worse]:
		v.Verdict = Worse
	case !enough:
		v.Verdict = Inconclusive
	case found[Better]:
		v.Verdict = Better
	default:
		v.Verdict = Same
	}
	return v
}

func compareErrors(a, b Baseline) finding {
	text := fmt.Sprintf("errors: %d of %d before, %d of %d after", a.Errors, a.Requests, b.Errors, b.Requests)
	f := compareShares(a.Errors, a.Requests, b.Errors, b.Requests)
	if f == Worse && b.Errors < minErrors || f == Better && a.Errors < minErrors {
		f = Same
	}
	if f != Worse && (a.Requests < minRequests || b.Requests < minRequests) {
		return finding{Inconclusive, fmt.Sprintf("%s: fewer than %d requests", text, minRequests)}
	}
	return finding{f, text}
}

// compareLatency: the U test says whether the difference is chance, the medians how large it is.
func compareLatency(a, b Baseline) finding {
	if len(a.Samples) < minRequests || len(b.Samples) < minRequests {
		return finding{Inconclusive, fmt.Sprintf("latency: %d answers before, %d after: fewer than %d", len(a.Samples), len(b.Samples), minRequests)}
	}
	x, y := median(a.Samples), median(b.Samples)
	p, err := mannWhitney(a.Samples, b.Samples)
	if err != nil {
		return finding{Inconclusive, fmt.Sprintf("latency: %v", err)}
	}
	text := fmt.Sprintf("latency: median %.2f ms before, %.2f ms after (p = %.2g)", x, y, p)
	switch {
	case p >= maxP || math.Abs(x-y) < latencyFloor:
		return finding{Same, text}
	case y >= x*latencyRatio:
		return finding{Worse, text}
	case x >= y*latencyRatio:
		return finding{Better, text}
	}
	return finding{Same, text}
}

func mannWhitney(a, b []float64) (p float64, err error) {
	r, err := stats.MannWhitneyUTest(a, b, stats.LocationDiffers)
	if errors.Is(err, stats.ErrSamplesEqual) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	return r.P, nil
}

// compareTail: the median does not see one page in ten becoming slow. A share of the
// requests before was slower than their 95th percentile, a twentieth; is that of after's much larger?
func compareTail(a, b Baseline) finding {
	if len(a.Samples) < minRequests || len(b.Samples) < minRequests {
		return finding{Inconclusive, "slow tail: too few answers"}
	}
	limit := stats.Sample{Xs: slices.Sorted(slices.Values(a.Samples)), Sorted: true}.Quantile(0.95) + latencyFloor
	slowA, slowB := countAbove(a.Samples, limit), countAbove(b.Samples, limit)
	shareA, shareB := share(slowA, len(a.Samples)), share(slowB, len(b.Samples))
	text := fmt.Sprintf("slow tail: %.1f%% of the answers took over %.2f ms before, %.1f%% after", shareA*100, limit, shareB*100)
	if compareShares(slowA, len(a.Samples), slowB, len(b.Samples)) == Worse && shareB >= 0.05*tailRatio {
		return finding{Worse, text}
	}
	return finding{Same, text}
}

func compareDBCalls(a, b Baseline) finding {
	if a.DBReported < minRequests || b.DBReported < minRequests {
		return finding{Inconclusive, fmt.Sprintf("database calls: told by %d answers before, %d after: not compared", a.DBReported, b.DBReported)}
	}
	x, y := a.DBCallsPerRequest, b.DBCallsPerRequest
	text := fmt.Sprintf("database calls: %.2f a request before, %.2f after", x, y)
	switch {
	case math.Abs(x-y) < dbFloor || !differ(a, b):
		return finding{Same, text}
	case y > x*dbRatio:
		return finding{Worse, text}
	case x > y*dbRatio:
		return finding{Better, text}
	}
	return finding{Same, text}
}

// differ reports whether the mean numbers of database calls differ by more than chance (Welch's t
// test): with a cache most requests make none and a few make many, so the means scatter.
func differ(a, b Baseline) bool {
	r, err := stats.TwoSampleWelchTTest(dbSample(a), dbSample(b), stats.LocationDiffers)
	if err != nil { // neither side varies at all
		return a.DBCallsPerRequest != b.DBCallsPerRequest
	}
	return r.P < maxP
}

// dbSample is a baseline's database calls as a sample of a t test.
type dbSample Baseline

var _ stats.TTestSample = dbSample{}

func (s dbSample) Weight() float64   { return float64(s.DBReported) }
func (s dbSample) Mean() float64     { return s.DBCallsPerRequest }
func (s dbSample) Variance() float64 { return s.DBVariance }

func compareHitRate(a, b Baseline) finding {
	if a.CacheReported < minRequests || b.CacheReported < minRequests {
		return finding{Inconclusive, fmt.Sprintf("hit rate: told by %d answers before, %d after: not compared", a.CacheReported, b.CacheReported)}
	}
	text := fmt.Sprintf("hit rate: %.1f%% before, %.1f%% after", a.HitRate*100, b.HitRate*100)
	if math.Abs(a.HitRate-b.HitRate) < hitRateChange {
		return finding{Same, text}
	}
	return finding{compareShares(misses(a), a.CacheReported, misses(b), b.CacheReported), text}
}

func misses(b Baseline) int {
	return int(math.Round((1 - b.HitRate) * float64(b.CacheReported)))
}

// compareShares judges k of n bad cases before against after, by Fisher's exact test.
func compareShares(kA, nA, kB, nB int) Outcome {
	switch {
	case share(kB, nB) > share(kA, nA) && fisher(kA, nA, kB, nB) < maxP:
		return Worse
	case share(kA, nA) > share(kB, nB) && fisher(kB, nB, kA, nA) < maxP:
		return Better
	}
	return Same
}

// fisher returns the probability that of kA+kB cases at least kB fall on the second side by
// chance (R. A. Fisher's exact test, one-sided).
func fisher(kA, nA, kB, nB int) float64 {
	d := stats.HypergeometicDist{N: nA + nB, K: kA + kB, Draws: nB}
	p := 0.0
	for k := kB; k <= min(kA+kB, nB); k++ {
		p += d.PMF(float64(k))
	}
	return p
}

func share(k, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(k) / float64(n)
}

func median(xs []float64) float64 {
	return stats.Sample{Xs: slices.Sorted(slices.Values(xs)), Sorted: true}.Quantile(0.5)
}

func countAbove(xs []float64, limit float64) int {
	n := 0
	for _, x := range xs {
		if x > limit {
			n++
		}
	}
	return n
}
