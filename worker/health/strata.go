package health

import (
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

// stratum holds the values of one kind of answer (a page, as a rule) before and after.
type stratum struct{ before, after []float64 }

// stratify puts values of the same page together, so that a slow page is compared with itself.
// What has no counterpart on the other side is compared with its like.
func stratify(before, after []observation, of func(observation) float64) []stratum {
	pages := map[string]*stratum{}
	var order []*stratum
	at := func(path string) *stratum {
		s, ok := pages[path]
		if !ok {
			s = new(stratum)
			pages[path] = s
			order = append(order, s)
		}
		return s
	}
	for _, o := range before {
		s := at(o.path)
		s.before = append(s.before, of(o))
	}
	for _, o := range after {
		s := at(o.path)
		s.after = append(s.after, of(o))
	}
	var strata []stratum
	var rest stratum
	for _, s := range order {
		if len(s.before) > 0 && len(s.after) > 0 {
			strata = append(strata, *s)
			continue
		}
		rest.before, rest.after = append(rest.before, s.before...), append(rest.after, s.after...)
	}
	if len(rest.before) > 0 && len(rest.after) > 0 {
		strata = append(strata, rest)
	}
	return strata
}

// greater returns the probability that the values after would exceed those before as much as
// they do if both came from the same distribution in each stratum; 1 minus it (nearly) is that of
// the opposite. It is the Mann-Whitney-Wilcoxon test of each stratum, combined as P. van Elteren
// proposed (On the combination of independent two sample tests of Wilcoxon, Bulletin of the
// International Statistical Institute 37, 1960), with the correction for ties and the normal
// approximation.
func greater(strata []stratum) float64 {
	var sum, variance float64
	for _, s := range strata {
		u, v := rankSum(s.before, s.after)
		weight := 1 / float64(len(s.before)+len(s.after)+1)
		sum += weight * u
		variance += weight * weight * v
	}
	if variance == 0 {
		return 1
	}
	return stats.StdNormal.CDF(-sum / math.Sqrt(variance))
}

// rankSum returns how far the rank sum of the values after is above its expectation, and that
// sum's variance, when both sides come from the same distribution.
func rankSum(before, after []float64) (excess, variance float64) {
	type value struct {
		x     float64
		after bool
	}
	all := make([]value, 0, len(before)+len(after))
	for _, x := range before {
		all = append(all, value{x, false})
	}
	for _, x := range after {
		all = append(all, value{x, true})
	}
	slices.SortFunc(all, func(a, b value) int {
		switch {
		case a.x < b.x:
			return -1
		case a.x > b.x:
			return 1
		}
		return 0
	})
	n, n1, n2 := float64(len(all)), float64(len(before)), float64(len(after))
	var ranks, ties float64
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].x == all[i].x {
			j++
		}
		for _, v := range all[i:j] {
			if v.after {
				ranks += float64(i+j+1) / 2 // the tied ranks i+1 … j share their mean
			}
		}
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	if n < 2 {
		return 0, 0
	}
	return ranks - n2*(n+1)/2, n1 * n2 / 12 * (n + 1 - ties/(n*(n-1)))
}

// scaled returns strata whose values before are multiplied and raised: what the values after would
// have to stay below not to be that much worse.
func scaled(strata []stratum, factor, add float64) []stratum {
	out := make([]stratum, len(strata))
	for i, s := range strata {
		out[i].after = s.after
		out[i].before = make([]float64, len(s.before))
		for j, x := range s.before {
			out[i].before[j] = x*factor + add
		}
	}
	return out
}

// ratio returns by how much the values after exceed those before on the same page: the medians'
// ratio of values that are divided by their page's median. 1 when it cannot be told.
func ratio(strata []stratum) float64 {
	var before, after []float64
	for _, s := range strata {
		typical := median(append(slices.Clone(s.before), s.after...))
		if typical <= 0 {
			continue
		}
		for _, x := range s.before {
			before = append(before, x/typical)
		}
		for _, x := range s.after {
			after = append(after, x/typical)
		}
	}
	a, b := median(before), median(after)
	if a <= 0 {
		return 1
	}
	return b / a
}

// fisher returns the probability that of kA+kB cases at least kB fall on the second side by
// chance (R. A. Fisher's exact test, one-sided).
func fisher(kA, nA, kB, nB int) float64 {
	d := stats.HypergeometicDist{N: nA + nB, K: kA + kB, Draws: nB}
	p := 0.0
	for k := kB; k <= min(kA+kB, nB); k++ {
		p += d.PMF(float64(k))
	}
	return min(p, 1)
}

// z95 is the one-sided 95 % quantile of the normal distribution.
const z95 = 1.6449

// wilson returns the one-sided 95 % confidence limits of a share (E. B. Wilson, Journal of the American
// Statistical Association 22, 1927).
func wilson(k, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	p, m, z := float64(k)/float64(n), float64(n), z95
	centre := (p + z*z/(2*m)) / (1 + z*z/m)
	width := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, centre-width), min(1, centre+width)
}

// riseLimit returns how much the share may have risen from before to after at most, with 95 %
// confidence (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).
func riseLimit(kA, nA, kB, nB int) float64 {
	pA, pB := share(kA, nA), share(kB, nB)
	low, _ := wilson(kA, nA)
	_, high := wilson(kB, nB)
	return pB - pA + math.Sqrt((high-pB)*(high-pB)+(pA-low)*(pA-low))
}

func share(k, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(k) / float64(n)
}
