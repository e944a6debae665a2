package health

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aclements/go-moremath/stats"
)

// model is a site whose answers are drawn at random.
type model struct {
	median float64 // ms, of a log-normal distribution
	spread float64
	errors float64 // share
	hits   float64 // share
	calls  int     // database calls of a miss, on a page of the lighter half; twice as many on the others
	tail   float64 // share of answers that take 20 times as long
	cold   float64 // hits of first visits, as a share of the others'; 0 means 1
}

var usual = model{median: 20, spread: 0.5, hits: 0.9, calls: 4}

// modelPages is how many pages a model has, each up to three times as slow as the first.
const modelPages = 40

func (s model) baseline(rng *rand.Rand, n int) Baseline { return s.measured(rng, n, true) }

func (s model) measured(rng *rand.Rand, n int, first bool) Baseline {
	sum := newTally("r", testNow)
	for i := range n {
		page := i % modelPages
		first := first && i < modelPages
		a := answer{status: 200, cache: "HIT", counted: true}
		ms := s.median * (1 + 2*float64(page)/modelPages) * math.Exp(rng.NormFloat64()*s.spread)
		if rng.Float64() < s.tail {
			ms *= 20
		}
		hits := s.hits
		if first && s.cold > 0 {
			hits *= s.cold
		}
		if rng.Float64() >= hits {
			a.cache, a.calls = "MISS", s.calls*(1+page*2/modelPages)
			if first && s.cold > 0 {
				ms *= 3
			}
		}
		a.latency = time.Duration(ms * float64(time.Millisecond))
		if rng.Float64() < s.errors {
			a.status = 500
		}
		sum.add(fmt.Sprintf("/%d", page), first, a)
	}
	return sum.baseline(maxWatched)
}

// seeded returns a generator whose seed the test's log shows.
func seeded(t *testing.T) *rand.Rand {
	const seed = 20260301
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// repeated is how many random pairs a test draws: STOKER_TEST_RUNS makes it as many as wanted.
func repeated(t *testing.T, few int) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("STOKER_TEST_RUNS")); err == nil {
		return n
	}
	return few
}

// TestComparePower: differences that matter are found in every one of many random pairs, and
// equal sites never raise an alarm.
func TestComparePower(t *testing.T) {
	for _, tt := range []struct {
		name   string
		n      int
		change func(*model)
		want   Outcome
	}{
		{"equal", 1000, func(*model) {}, Same},
		{"equal, many", 5000, func(*model) {}, Same},
		{"30% slower", 400, func(s *model) { s.median *= 1.3 }, Worse},
		{"30% faster", 1000, func(s *model) { s.median /= 1.3 }, Better},
		{"3% slower does not matter", 2000, func(s *model) { s.median *= 1.03 }, Same},
		{"1% errors", 2000, func(s *model) { s.errors = 0.01 }, Worse},
		{"three times the database calls", 200, func(s *model) { s.calls *= 3 }, Worse},
		{"a third of the database calls", 1000, func(s *model) { s.calls /= 3 }, Better},
		{"hit rate 90% to 70%, same calls", 400, func(s *model) { s.hits, s.calls = 0.7, 1 }, Worse},
		{"one answer in eight very slow", 1000, func(s *model) { s.tail = 0.125 }, Worse},
		{"a cold cache", 400, func(s *model) { s.cold = 0.1 }, Worse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rng := seeded(t)
			n, wrong := repeated(t, 10), 0
			for i := range n {
				after := usual
				tt.change(&after)
				v := Compare(usual.baseline(rng, tt.n), after.baseline(rng, tt.n))
				if v.Verdict != tt.want {
					wrong++
					t.Logf("pair %d: got %s, want %s: %q", i, v.Verdict, tt.want, v.Reasons)
				}
			}
			if wrong*20 > n {
				t.Errorf("%d of %d verdicts are wrong", wrong, n)
			}
		})
	}
}

// TestNoFalseAlarm: of pairs that do not differ, whatever else is true of them, next to none is
// called worse or better.
func TestNoFalseAlarm(t *testing.T) {
	for name, site := range map[string]model{
		"usual":              usual,
		"errors on both":     {median: 20, spread: 0.5, hits: 0.9, calls: 4, errors: 0.02},
		"few misses":         {median: 20, spread: 0.5, hits: 0.99, calls: 4},
		"no cache":           {median: 50, spread: 1, hits: 0, calls: 3},
		"a slow tail":        {median: 20, spread: 0.3, hits: 0.9, calls: 4, tail: 0.05},
		"cold on both sides": {median: 20, spread: 0.5, hits: 0.9, calls: 4, cold: 0.3},
	} {
		t.Run(name, func(t *testing.T) {
			rng := seeded(t)
			n, alarms := repeated(t, 15), 0
			for range n {
				if v := Compare(site.baseline(rng, 1000), site.baseline(rng, 1000)); v.Verdict == Worse || v.Verdict == Better {
					alarms++
					t.Logf("%s: %q", v.Verdict, v.Reasons)
				}
			}
			if alarms > 1+n/200 { // promised are two in 500, one for each direction
				t.Errorf("%d of %d equal pairs differ", alarms, n)
			}
		})
	}
}

func TestCompareTooLittle(t *testing.T) {
	rng := seeded(t)
	fast := usual
	fast.median = 1
	full := usual.baseline(rng, 400)
	for _, tt := range []struct {
		name          string
		before, after Baseline
		want          Outcome
	}{
		{"few after", full, usual.baseline(rng, 99), Inconclusive},
		{"few before", usual.baseline(rng, 99), full, Inconclusive},
		{"few and fast", full, fast.baseline(rng, 99), Inconclusive},
		{"none", full, Baseline{}, Inconclusive},
		{"few, and half of them errors", full, model{median: 20, errors: 0.5, hits: 1}.baseline(rng, 50), Worse},
		{"all before failed", model{errors: 1}.baseline(rng, 400), full, Inconclusive},
		{"all after failed", full, model{errors: 1}.baseline(rng, 400), Worse},
	} {
		if v := Compare(tt.before, tt.after); v.Verdict != tt.want {
			t.Errorf("%s: got %s, want %s: %q", tt.name, v.Verdict, tt.want, v.Reasons)
		}
	}
}

// TestCompareUnreported: a site that tells neither hits nor database calls can still be judged.
func TestCompareUnreported(t *testing.T) {
	rng := seeded(t)
	bare := func() Baseline {
		b := usual.baseline(rng, 1000)
		b.Samples.Kind = strings.Repeat("u", len(b.Samples.Kind))
		for i := range b.Samples.Calls {
			b.Samples.Calls[i] = untoldCalls
		}
		return b
	}
	a, b := bare(), bare()
	if v := Compare(a, b); v.Verdict != Same {
		t.Errorf("got %s: %q", v.Verdict, v.Reasons)
	}
}

func TestCompareEqualSamples(t *testing.T) {
	sum := newTally("r", testNow)
	for range 400 {
		sum.add("/", false, answer{status: 200, latency: time.Millisecond})
	}
	b := sum.baseline(MaxSamples)
	if v := Compare(b, b); v.Verdict != Same {
		t.Errorf("got %s: %q", v.Verdict, v.Reasons)
	}
}

// TestFisher: R. A. Fisher's tea tasting (The Design of Experiments, 1935): three of four cups right
// has probability 17/70, four of four 1/70.
func TestFisher(t *testing.T) {
	for _, tt := range []struct {
		kA, nA, kB, nB int
		want           float64
	}{
		{1, 4, 3, 4, 17.0 / 70},
		{0, 4, 4, 4, 1.0 / 70},
		{0, 10, 0, 10, 1},
	} {
		if got := fisher(tt.kA, tt.nA, tt.kB, tt.nB); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("fisher(%d/%d, %d/%d) = %v, want %v", tt.kA, tt.nA, tt.kB, tt.nB, got, tt.want)
		}
	}
}

// TestGreaterIsMannWhitney: in a single stratum the test is the library's, but for the latter's correction for
// continuity.
func TestGreaterIsMannWhitney(t *testing.T) {
	rng := seeded(t)
	for range 20 {
		a, b := make([]float64, 60+rng.IntN(100)), make([]float64, 60+rng.IntN(100))
		for i := range a {
			a[i] = math.Round(10 * rng.ExpFloat64()) // with ties
		}
		for i := range b {
			b[i] = math.Round(11 * rng.ExpFloat64())
		}
		want, err := stats.MannWhitneyUTest(a, b, stats.LocationLess)
		if err != nil {
			t.Fatal(err)
		}
		if got := greater([]stratum{{a, b}}); math.Abs(got-want.P) > 0.01*max(want.P, 0.1) {
			t.Errorf("p = %v, the library says %v", got, want.P)
		}
	}
	if p := greater([]stratum{{[]float64{1, 1}, []float64{1, 1}}}); p != 1 {
		t.Errorf("of equal values p = %v", p)
	}
}

// TestStrata: a slow page that is asked for more often afterwards is not a slower site.
func TestStrata(t *testing.T) {
	rng := seeded(t)
	draw := func(slow, n int) []observation {
		var all []observation
		for i := range n {
			o := observation{path: "/fast", ms: 10 + rng.Float64()}
			if i < slow {
				o = observation{path: "/slow", ms: 100 + 10*rng.Float64()}
			}
			all = append(all, o)
		}
		return all
	}
	strata := stratify(draw(20, 200), draw(150, 200), latencyOf)
	if p, r := greater(strata), ratio(strata); p < 0.001 || r > 1.02 {
		t.Errorf("p = %v, ratio %v, of sites that do not differ", p, r)
	}
	lone := stratify([]observation{{path: "/a", ms: 1}, {path: "/b", ms: 2}}, []observation{{path: "/b", ms: 3}, {path: "/c", ms: 4}}, latencyOf)
	if len(lone) != 2 || len(lone[1].before) != 1 || len(lone[1].after) != 1 {
		t.Errorf("pages without a counterpart: %+v", lone)
	}
}

// TestRiseLimit holds the limit against R. G. Newcombe's published interval for 56 of 70 against 48
// of 80 (0.0524 to 0.3339 at 95 %, two-sided), recomputed one-sided.
func TestRiseLimit(t *testing.T) {
	for _, tt := range []struct {
		kA, nA, kB, nB int
		low, high      float64
	}{
		{48, 80, 56, 70, 0.30, 0.334},
		{0, 400, 0, 400, 0.006, 0.008},
		{0, 100, 0, 100, 0.02, 0.03},
		{0, 0, 0, 0, 1, 2},
	} {
		if got := riseLimit(tt.kA, tt.nA, tt.kB, tt.nB); got < tt.low || got > tt.high {
			t.Errorf("rise from %d/%d to %d/%d by up to %v, want %v to %v", tt.kA, tt.nA, tt.kB, tt.nB, got, tt.low, tt.high)
		}
	}
}

// TestWatchAlarms: the false alarms of a whole watch, all its looks and measures together, stay as rare as
// promised, and a release that is worse is found at the third look at the latest.
func TestWatchAlarms(t *testing.T) {
	slow := usual
	slow.median *= 1.3
	for _, tt := range []struct {
		name  string
		after model
		worse bool
	}{{"equal", usual, false}, {"30% slower", slow, true}} {
		t.Run(tt.name, func(t *testing.T) {
			rng := seeded(t)
			n, found := repeated(t, 6), 0
			for range n {
				before := usual.baseline(rng, 400)
				w := &watch{Monitor: &Monitor{now: time.Now, cfg: Config{WatchFor: 30 * time.Minute}}, state: Watching{Planned: looksIn(30 * time.Minute)}}
				var all Baseline
				for look := 0; look < w.state.Planned && w.state.Ended == ""; look++ {
					alone := tt.after.measured(rng, 400, look == 0)
					all = merge(all, alone, maxWatched)
					w.judge(before, all, alone)
				}
				if w.verdict.Verdict == Worse {
					found++
				}
				if tt.worse && (!w.state.Clear || len(w.state.Looks) > 3) {
					t.Errorf("ended after %d looks: %s", len(w.state.Looks), w.state.Ended)
				}
			}
			if !tt.worse && found > 1+n/500 || tt.worse && found < n {
				t.Errorf("%d of %d watches end worse", found, n)
			}
		})
	}
}
