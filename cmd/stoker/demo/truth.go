package demo

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// Truth knows which edits changed what, and which of them have been applied everywhere: what
// a page must be judged by. It is safe for concurrent use.
type Truth struct {
	mu      sync.RWMutex
	edits   map[string][]int64 // tag → the numbers of the edits that changed it, ascending
	alive   map[string]bool    // slug → whether it exists after the last edit begun
	settled int64              // every edit up to here has been applied
}

// NewTruth knows the articles that exist before the first edit.
func NewTruth(articles []Article) *Truth {
	t := &Truth{edits: map[string][]int64{}, alive: map[string]bool{}}
	for _, a := range articles {
		t.alive[a.Slug] = true
	}
	return t
}

// Begin notes an edit before it is committed. Numbers must ascend.
func (t *Truth) Begin(e Edit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tag := range e.Tags {
		t.edits[tag] = append(t.edits[tag], e.Number)
	}
	for slug, alive := range e.Alive {
		t.alive[slug] = alive
	}
}

// Settle notes that every edit up to number has been applied to all that is cached.
func (t *Truth) Settle(number int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled = max(t.settled, number)
}

// Settled returns the number up to which every edit has been applied.
func (t *Truth) Settled() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.settled
}

// Stale returns the first stamp that is older than the last edit of its tag up to settled,
// which the caller noted before it asked for the page.
func (t *Truth) Stale(settled int64, stamps []Stamp) (string, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, s := range stamps {
		edits := t.edits[s.Tag]
		after, _ := slices.BinarySearch(edits, settled+1)
		if after > 0 && s.Number < edits[after-1] {
			return fmt.Sprintf("%s shown as of edit %d, changed by edit %d", s.Tag, s.Number, edits[after-1]), true
		}
	}
	return "", false
}

// Exists reports whether the article exists. It is sure only when every edit of it that was
// begun is among the settled ones.
func (t *Truth) Exists(settled int64, slug string) (alive, sure bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	edits := t.edits[postTag(slug)]
	return t.alive[slug], len(edits) == 0 || edits[len(edits)-1] <= settled
}

// Slugs returns the articles that exist and those that did once, both sorted.
func (t *Truth) Slugs() (alive, gone []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for slug, is := range t.alive {
		if is {
			alive = append(alive, slug)
		} else {
			gone = append(gone, slug)
		}
	}
	slices.Sort(alive)
	slices.Sort(gone)
	return alive, gone
}

// Stamp says as of which edit a page shows what a tag labels. In a page it reads
// "[[v <tag>=<number>]]".
type Stamp struct {
	Tag    string
	Number int64
}

const (
	stampOpen  = "[[v "
	stampClose = "]]"
)

// String returns the stamp as it stands in a page.
func (s Stamp) String() string {
	return stampOpen + s.Tag + "=" + strconv.FormatInt(s.Number, 10) + stampClose
}

// ParseStamps returns the stamps of a page in order.
func ParseStamps(page []byte) []Stamp {
	var stamps []Stamp
	for {
		_, rest, ok := bytes.Cut(page, []byte(stampOpen))
		if !ok {
			return stamps
		}
		page = rest
		text, _, ok := bytes.Cut(rest, []byte(stampClose))
		if !ok {
			return stamps
		}
		tag, number, _ := bytes.Cut(text, []byte("="))
		if n, err := strconv.ParseInt(string(number), 10, 64); err == nil {
			stamps = append(stamps, Stamp{string(tag), n})
		}
	}
}
