package health

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a site whose answers are drawn at random.
type model struct {
	median float64 // ms, of a log-normal distribution
	spread float64
	errors float64 // share
	hits   float64 // share
	calls  int     // database calls of a miss
	tail   float64 // share of answers that take 20 times as long
}

var usual = model{median: 20, spread: 0.5, hits: 0.9, calls: 4}

func (s model) baseline(rng *rand.Rand, n int) Baseline {
	sum := newTally("r", testNow)
	for range n {
		a := answer{status: 200, cache: "HIT", counted: true}
		ms := s.median * math.Exp(rng.NormFloat64()*s.spread)
		if rng.Float64() < s.tail {
			ms *= 20
		}
		a.latency = time.Duration(ms * float64(time.Millisecond))
		if rng.Float64() >= s.hits {
			a.cache, a.calls = "MISS", s.calls
		}
		if rng.Float64() < s.errors {
			a.status = 500
		}
		sum.add(a)
	}
	return sum.baseline()
}

// seeded returns a generator whose seed the test's log shows.
func seeded(t *testing.T) *rand.Rand {
	const seed = 20260301
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
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
		{"equal", 400, func(*model) {}, Same},
		{"equal, many", 5000, func(*model) {}, Same},
		{"30% slower", 400, func(s *model) { s.median *= 1.3 }, Worse},
		{"30% faster", 400, func(s *model) { s.median /= 1.3 }, Better},
		{"5% slower does not matter", 2000, func(s *model) { s.median *= 1.03 }, Same},
		{"1% errors", 2000, func(s *model) { s.errors = 0.01 }, Worse},
		{"three times the database calls", 1000, func(s *model) { s.calls *= 3 }, Worse},
		{"hit rate 90% to 70%, same calls", 400, func(s *model) { s.hits, s.calls = 0.7, 1 }, Worse},
		{"one answer in eight very slow", 1000, func(s *model) { s.tail = 0.125 }, Worse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rng := seeded(t)
			for i := range 20 {
				after := usual
				tt.change(&after)
				v := Compare(usual.baseline(rng, tt.n), after.baseline(rng, tt.n))
				if v.Verdict != tt.want {
					t.Errorf("pair %d: got %s, want %s: %q", i, v.Verdict, tt.want, v.Reasons)
				}
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
	a, b := usual.baseline(rng, 400), usual.baseline(rng, 400)
	a.CacheReported, a.DBReported = 0, 0
	if v := Compare(a, b); v.Verdict != Same {
		t.Errorf("got %s: %q", v.Verdict, v.Reasons)
	}
}

func TestCompareEqualSamples(t *testing.T) {
	b := Baseline{Requests: 200, Samples: make([]float64, 200)}
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
