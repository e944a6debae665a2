package health

import (
	"fmt"
	"math"
)

// Measure names one of the things that are compared.
type Measure string

// The measures. First visits are told apart from later ones: right after a switch they show
// whether the cache was warm.
const (
	MeasureErrors       Measure = "errors"
	MeasureLatency      Measure = "latency"       // of later visits
	MeasureTail         Measure = "slow tail"     // the slowest twentieth of later visits
	MeasureCalls        Measure = "db calls"      // of all visits
	MeasureHits         Measure = "hit rate"      // of later visits
	MeasureFirstLatency Measure = "first latency" // of first visits
	MeasureFirstHits    Measure = "first hits"    // of first visits
)

var measures = []struct {
	name    Measure
	compare func(pair) Finding
}{
	{MeasureErrors, compareErrors},
	{MeasureLatency, compareLatency},
	{MeasureTail, compareTail},
	{MeasureCalls, compareCalls},
	{MeasureHits, compareHits},
	{MeasureFirstLatency, compareFirstLatency},
	{MeasureFirstHits, compareFirstHits},
}

// pair is what a measure looks at.
type pair struct {
	before, after Baseline
	a, b          []observation // their samples
	p             float64       // the probability of a false alarm that it may take
}

// How much of a difference matters.
const (
	minRequests = 100 // on each side; below this nothing counts as the same
	minFirst    = 30  // first visits on each side
	minCalling  = 10  // answers that made database calls, on each side
	minErrors   = 5   // on the worse side

	errorRise     = 0.0025 // of the shares of errors
	latencyRatio  = 1.1    // of the medians
	latencyFloor  = 0.5    // ms between the medians that matter at all
	tailRatio     = 2.0    // of the shares of requests slower than before's 95th percentile
	dbRatio       = 1.5    // of the calls per request
	dbFloor       = 0.02   // calls per request that matter at all
	hitRateChange = 0.05   // of the hit rates' difference

	// What must be ruled out before anything is called the same.
	worstErrorRise    = 0.01
	worstLatencyRatio = 1.25
	ruledOut          = 0.05
)

func compareErrors(p pair) Finding {
	a, b := p.before, p.after
	text := fmt.Sprintf("errors: %d of %d before, %d of %d after", a.Errors, a.Requests, b.Errors, b.Requests)
	rise := share(b.Errors, b.Requests) - share(a.Errors, a.Requests)
	outcome := compareShares(a.Errors, a.Requests, b.Errors, b.Requests, p.p)
	if math.Abs(rise) < errorRise || outcome == Worse && b.Errors < minErrors || outcome == Better && a.Errors < minErrors {
		outcome = Same
	}
	switch {
	case outcome == Worse:
	case a.Requests < minRequests || b.Requests < minRequests:
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("%s: fewer than %d requests", text, minRequests)}
	case outcome == Same && riseLimit(a.Errors, a.Requests, b.Errors, b.Requests) > worstErrorRise:
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("%s: too few to rule out a rise by %.0f%%: probe more often", text, 100*worstErrorRise)}
	}
	return Finding{Outcome: outcome, Detail: text}
}

func compareLatency(p pair) Finding {
	a, b := where(p.a, isLater), where(p.b, isLater)
	if len(a) < minRequests || len(b) < minRequests {
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("latency: %d answers before, %d after: fewer than %d", len(a), len(b), minRequests)}
	}
	f, strata := slower("latency", a, b, p.p)
	if f.Outcome == Same && 1-greater(scaled(strata, worstLatencyRatio, latencyFloor)) > ruledOut {
		f.Outcome = Inconclusive
		f.Detail += fmt.Sprintf(": too scattered to rule out a slowdown by %.0f%%: probe more often", 100*(worstLatencyRatio-1))
	}
	return f
}

// slower compares latencies page by page: the test says whether the difference is chance, the
// medians how large it is.
func slower(name string, a, b []observation, alarm float64) (Finding, []stratum) {
	strata := stratify(a, b, latencyOf)
	x, y, r := median(values(a, latencyOf)), median(values(b, latencyOf)), ratio(strata)
	p := greater(strata)
	f := Finding{Outcome: Same, Detail: fmt.Sprintf("%s: median %.2f ms before, %.2f ms after, %+.0f%% on the same page (p = %.2g)", name, x, y, 100*(r-1), min(p, 1-p))}
	switch matters := math.Abs(r-1)*x >= latencyFloor; {
	case !matters:
	case p < alarm && r >= latencyRatio:
		f.Outcome = Worse
	case 1-p < alarm && r <= 1/latencyRatio:
		f.Outcome = Better
	}
	return f, strata
}

// compareTail: the median does not see one page in ten becoming slow. A share of the
// requests before was slower than their 95th percentile, a twentieth; is that of after's much larger?
func compareTail(p pair) Finding {
	a, b := values(where(p.a, isLater), latencyOf), values(where(p.b, isLater), latencyOf)
	if len(a) < minRequests || len(b) < minRequests {
		return Finding{Outcome: Inconclusive, Detail: "slow tail: too few answers"}
	}
	limit := quantile(a, 0.95) + latencyFloor
	slowA, slowB := countAbove(a, limit), countAbove(b, limit)
	shareA, shareB := share(slowA, len(a)), share(slowB, len(b))
	f := Finding{Outcome: Same, Detail: fmt.Sprintf("slow tail: %.1f%% of the answers took over %.2f ms before, %.1f%% after", shareA*100, limit, shareB*100)}
	if shareB >= 0.05*tailRatio && compareShares(slowA, len(a), slowB, len(b), p.p) == Worse {
		f.Outcome = Worse
	}
	return f
}

// compareCalls: with a cache most requests make no database call and a few make many, so their mean
// scatters widely. Two questions see far more: do more requests make any (Fisher's exact test),
// and do those that make some make more, page by page (the stratified rank test)?
func compareCalls(p pair) Finding {
	told := func(o observation) bool { return o.calls != untoldCalls }
	a, b := where(p.a, told), where(p.b, told)
	if len(a) < minRequests || len(b) < minRequests {
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("database calls: told by %d answers before, %d after: not compared", len(a), len(b))}
	}
	calling := func(o observation) bool { return o.calls > 0 }
	someA, someB := where(a, calling), where(b, calling)
	x, y := mean(values(a, countOf)), mean(values(b, countOf))
	f := Finding{Outcome: Same, Detail: fmt.Sprintf("database calls: %.2f a request before, %.2f after; made by %.1f%% and %.1f%%, who made %.1f and %.1f",
		x, y, 100*share(len(someA), len(a)), 100*share(len(someB), len(b)), mean(values(someA, countOf)), mean(values(someB, countOf)))}
	more, fewer := chances(len(someA), len(a), len(someB), len(b))
	if len(someA) >= minCalling && len(someB) >= minCalling {
		up := greater(stratify(someA, someB, countOf))
		more, fewer = min(more, up), min(fewer, 1-up)
	}
	switch matters := math.Abs(x-y) >= dbFloor; {
	case !matters:
	case more < p.p/2 && y >= x*dbRatio:
		f.Outcome = Worse
	case fewer < p.p/2 && x >= y*dbRatio:
		f.Outcome = Better
	}
	return f
}

func compareHits(p pair) Finding {
	return hits("hit rate", where(p.a, isLater), where(p.b, isLater), minRequests, p.p)
}

func compareFirstLatency(p pair) Finding {
	a, b := where(p.a, isFirst), where(p.b, isFirst)
	if len(a) < minFirst || len(b) < minFirst {
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("first visits: %d pages before, %d after: fewer than %d, not compared", len(a), len(b), minFirst)}
	}
	f, _ := slower("first visits", a, b, p.p)
	return f
}

func compareFirstHits(p pair) Finding {
	return hits("hit rate of first visits", where(p.a, isFirst), where(p.b, isFirst), minFirst, p.p)
}

func hits(name string, a, b []observation, least int, alarm float64) Finding {
	told := func(o observation) bool { return o.cache != untold }
	a, b = where(a, told), where(b, told)
	if len(a) < least || len(b) < least {
		return Finding{Outcome: Inconclusive, Detail: fmt.Sprintf("%s: told by %d answers before, %d after: not compared", name, len(a), len(b))}
	}
	missed := func(o observation) bool { return o.cache == miss }
	kA, kB := len(where(a, missed)), len(where(b, missed))
	hitA, hitB := 1-share(kA, len(a)), 1-share(kB, len(b))
	f := Finding{Outcome: Same, Detail: fmt.Sprintf("%s: %.1f%% before, %.1f%% after", name, 100*hitA, 100*hitB)}
	if math.Abs(hitA-hitB) >= hitRateChange {
		f.Outcome = compareShares(kA, len(a), kB, len(b), alarm)
	}
	return f
}

// compareShares judges k of n bad cases before against after.
func compareShares(kA, nA, kB, nB int, alarm float64) Outcome {
	switch up, down := chances(kA, nA, kB, nB); {
	case up < alarm:
		return Worse
	case down < alarm:
		return Better
	}
	return Same
}

// chances returns how likely a share that is at least as much larger after than before would be by
// chance, and one that is as much smaller.
func chances(kA, nA, kB, nB int) (up, down float64) {
	up, down = 1, 1
	switch a, b := share(kA, nA), share(kB, nB); {
	case b > a:
		up = fisher(kA, nA, kB, nB)
	case a > b:
		down = fisher(kB, nB, kA, nA)
	}
	return up, down
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
