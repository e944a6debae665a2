package source

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// Rank gives each key a place in an order that has nothing to do with the keys' own, and is
// the same in every run and process: the first n keys by rank are a fair sample.
func Rank(key string) uint64 { return xxhash.Sum64String(key) }

// Picks reports whether a run of that share of the keys takes this one; a share of 0 or 1 takes
// all. The same share takes the same keys every time, and a larger one takes them as well.
func Picks(share float64, key string) bool {
	return share <= 0 || share >= 1 || Rank(key) < uint64(share*math.MaxUint64)
}

// least keeps a tiny share from becoming 0, which means all.
const least = 1e-15

// ShareOf returns which share of the entries of a weight a run takes that takes share of those of
// weight 1: what is asked for twice as often is twice as likely to be in a small sample. An
// entry that is in a sample is in every larger one, by whatever weights above 0.
func ShareOf(share, weight float64) float64 {
	if share <= 0 || share >= 1 {
		return share
	}
	return max(1-math.Pow(1-share, weight), least)
}
