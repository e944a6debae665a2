package warm

import (
	"fmt"
	"slices"
	"time"
)

const (
	// together is how close lifetimes end that end at once.
	together = time.Minute
	// atOnce is the share of a sample that ends within it from which on a certificate warns, and
	// fewest how many entries a sample must have to tell.
	atOnce = 0.5
	fewest = 20
)

// sameMinute returns the largest share of n sampled entries whose lifetimes end within one minute, and in
// how long that minute begins. lives are the lifetimes left of those that end.
func sameMinute(lives []time.Duration, n int) (share float64, in time.Duration) {
	slices.Sort(lives)
	most, from := 0, 0
	for to := range lives {
		for lives[to]-lives[from] > together {
			from++
		}
		if to-from+1 > most {
			most, in = to-from+1, lives[from]
		}
	}
	if n == 0 {
		return 0, 0
	}
	return float64(most) / float64(n), in
}

// warnAtOnce warns of entries that end together: the origin would have to make all of them at once.
func warnAtOnce(share float64, in time.Duration, sampled int) string {
	if share < atOnce || sampled < fewest {
		return ""
	}
	return fmt.Sprintf("%s of the sampled entries end within one minute, in %v: spread them with a jitter", percent(share), in.Round(time.Second))
}
