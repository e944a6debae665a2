package hot

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"

	"github.com/alphanode/stoker/tasks"
)

// Item is one of the things that visitors want, and how much.
type Item struct {
	Name   string  // a path with its query, or a logical key
	Weight float64 // requests, or uses as the server estimates them; above 0
}

// List is what visitors want most, most wanted first.
type List struct {
	Items   []Item
	Total   float64 // weight of all that was counted, listed or not
	Paths   bool    // the items are paths; otherwise logical keys
	Counted bool    // weights are counts; otherwise they only keep the order, and all are 1
}

func errPath(path string) error {
	return fmt.Errorf("%w: path %q: begin it with /", tasks.ErrInvalid, path)
}

func errUnknown(e Entry, err error) error {
	return fmt.Errorf("%w: key %q: %v: use names of the path %q, or Release", tasks.ErrInvalid, e.Key, err, e.Path)
}

// sorted orders items, the most wanted first, those that are wanted alike by name.
func sorted(items []Item) []Item {
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.Name, b.Name))
	})
	return items
}

// Top keeps the n most wanted of any number of items.
type Top struct {
	n     int
	items items
}

// NewTop returns a Top of n items, which is at least 1.
func NewTop(n int) *Top { return &Top{n: n} }

// Add offers an item.
func (t *Top) Add(it Item) {
	if len(t.items) < t.n {
		heap.Push(&t.items, it)
	} else if it.Weight > t.items[0].Weight {
		t.items[0] = it
		heap.Fix(&t.items, 0)
	}
}

// Items returns what was kept, each name once, the most wanted first.
func (t *Top) Items() []Item {
	all := sorted(slices.Clone([]Item(t.items)))
	seen := make(map[string]bool, len(all))
	return slices.DeleteFunc(all, func(it Item) bool {
		again := seen[it.Name]
		seen[it.Name] = true
		return again
	})
}

// items is a heap, the least wanted first.
type items []Item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].Weight < h[j].Weight }
func (h items) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements [heap.Interface].
func (h *items) Push(x any) { *h = append(*h, x.(Item)) }

// Pop implements [heap.Interface].
func (h *items) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	*h = (*h)[:last]
	return it
}

// Uses estimates how often an entry was used from the frequency that a server with an LFU policy
// tells: a counter that begins at 5 and grows by one with the probability 1/((counter−5)·factor+1),
// where factor is the server's lfu-log-factor, 10 by default. What has decayed since does not count.
func Uses(freq int64, factor float64) float64 {
	const initial = 5
	n := float64(max(freq-initial, 0))
	return 1 + n + factor*n*(n-1)/2
}
