package hot

import (
	"container/heap"
)

// counter counts names in a fixed number of places: the space-saving algorithm. A name that comes when
// all places are taken inherits the place and the count of the least counted one, and owes that count.
type counter struct {
	places int
	at     map[string]*place
	heap   places
}

type place struct {
	name        string
	count, owes int64 // owes is how much of count may be others'
	index       int   // in the heap
}

func newCounter(n int) *counter {
	return &counter{places: n, at: make(map[string]*place)}
}

// add counts a name, which need not outlive the call.
func (c *counter) add(name []byte) {
	if p := c.at[string(name)]; p != nil {
		p.count++
		heap.Fix(&c.heap, p.index)
		return
	}
	if len(c.heap) < c.places {
		p := &place{name: string(name), count: 1}
		c.at[p.name] = p
		heap.Push(&c.heap, p)
		return
	}
	p := c.heap[0]
	delete(c.at, p.name)
	p.name, p.owes = string(name), p.count
	p.count++
	c.at[p.name] = p
	heap.Fix(&c.heap, 0)
}

// top returns the n names with the highest counts that are certain.
func (c *counter) top(n int) []Item {
	t := NewTop(n)
	for _, p := range c.heap {
		t.Add(Item{p.name, float64(p.count - p.owes)})
	}
	return t.Items()
}

// places is a heap, the least counted first.
type places []*place

func (h places) Len() int           { return len(h) }
func (h places) Less(i, j int) bool { return h[i].count < h[j].count }
func (h places) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *places) Push(x any) {
	p := x.(*place)
	p.index = len(*h)
	*h = append(*h, p)
}

// Pop implements [heap.Interface].
func (h *places) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	*h = (*h)[:last]
	return p
}
