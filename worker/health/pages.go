package health

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/html"

	"github.com/alphanode/stoker/tasks"
)

// Side is one release of two, and where it answers. Both sides are asked for the paths of the first.
type Side struct {
	Release string
	Probes  Probes
}

// Pages are two releases' answers to the same requests, side by side.
type Pages struct {
	A       string     `json:"a"`
	B       string     `json:"b"`
	Pages   []PagePair `json:"pages"` // those that differ most first
	Verdict Verdict    `json:"verdict"`
}

// PagePair is one page of both releases.
type PagePair struct {
	Path    string   `json:"path"`
	A       Page     `json:"a"`
	B       Page     `json:"b"`
	Differs []string `json:"differs"` // in status, title, size; in that order
}

// Page is how one release answered for a page.
type Page struct {
	Requests int     `json:"requests"`
	Status   string  `json:"status"` // every one that was seen, the commonest first; "none" without an answer
	MS       float64 `json:"ms"`     // median latency of the answers without an error, in milliseconds
	Bytes    int64   `json:"bytes"`  // median size
	Title    string  `json:"title,omitempty"`
	HitRate  float64 `json:"hit_rate"` // of the answers that told
	Told     int     `json:"cache_reported"`
	DBCalls  float64 `json:"db_calls"` // per answer that told
	Counted  int     `json:"db_reported"`
}

// maxHead is how much of a page is searched for its title, in bytes.
const maxHead = 64 << 10

// ComparePages asks both releases for the same pages, in turn and each first as often as the other, so
// that what befalls machine and network befalls both alike. Nothing is stored.
func (m *Monitor) ComparePages(ctx context.Context, job tasks.Job, a, b Side) (Pages, error) {
	b.Probes.Paths, b.Probes.Count = a.Probes.Paths, a.Probes.Count
	sides := [2]*asked{newAsked(m, a), newAsked(m, b)}
	for _, s := range sides {
		if err := s.Probes.Validate(); err != nil {
			return Pages{}, err
		}
	}
	paths := len(a.Probes.Paths)
	err := m.send(ctx, job, 2*a.Probes.count(), func(ctx context.Context, i int) func() {
		turn := i / 2
		s := sides[(i+turn/paths)%2]
		got := m.probe(ctx, s.Probes, turn, maxHead)
		return func() { s.add(turn%paths, turn < paths, got) }
	})
	if err != nil {
		return Pages{}, fmt.Errorf("compare %s with %s: %w", a.Release, b.Release, err)
	}
	p := Pages{A: a.Release, B: b.Release, Verdict: Compare(sides[0].sum.baseline(maxWatched), sides[1].sum.baseline(maxWatched))}
	for i, path := range a.Probes.Paths {
		pair := PagePair{Path: path, A: sides[0].pages[i].page(), B: sides[1].pages[i].page()}
		pair.Differs = pair.differs()
		p.Pages = append(p.Pages, pair)
	}
	slices.SortStableFunc(p.Pages, func(x, y PagePair) int { return cmp.Compare(y.weight(), x.weight()) })
	return p, nil
}

// asked is one side under way.
type asked struct {
	Side
	sum   *tally
	pages []answers
}

func newAsked(m *Monitor, s Side) *asked {
	return &asked{Side: s, sum: newTally(s.Release, m.now().UTC()), pages: make([]answers, len(s.Probes.Paths))}
}

func (s *asked) add(page int, first bool, a answer) {
	s.sum.add(s.Probes.Paths[page], first, a)
	p := &s.pages[page]
	if a.head != nil {
		p.title = title(a.head)
		a.head = nil // thousands of them would weigh
	}
	p.all = append(p.all, a)
}

// answers are those to requests for one page.
type answers struct {
	all   []answer
	title string // of the last page that came
}

func (s answers) page() Page {
	p := Page{Requests: len(s.all), Title: s.title}
	var ms, sizes, calls []float64
	status, hits := map[string]int{}, 0
	for _, a := range s.all {
		name := "none"
		if a.status > 0 {
			name = strconv.Itoa(a.status)
		}
		status[name]++
		if a.status > 0 {
			sizes = append(sizes, float64(a.bytes))
		}
		if a.failed() {
			continue
		}
		ms = append(ms, float64(a.latency.Microseconds())/1000)
		if a.cache != "" {
			p.Told++
			if strings.HasPrefix(strings.ToLower(a.cache), "hit") {
				hits++
			}
		}
		if a.counted {
			calls = append(calls, float64(a.calls))
		}
	}
	p.Status = commonest(status)
	p.MS, p.Bytes = median(ms), int64(math.Round(median(sizes)))
	p.HitRate, p.DBCalls, p.Counted = share(hits, p.Told), mean(calls), len(calls)
	return p
}

func commonest(seen map[string]int) string {
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(seen[b], seen[a]), cmp.Compare(a, b)) })
	return strings.Join(names, ", ")
}

func (p PagePair) differs() []string {
	found := []string{}
	if p.A.Status != p.B.Status {
		found = append(found, "status")
	}
	if p.A.Title != p.B.Title {
		found = append(found, "title")
	}
	if p.A.Bytes != p.B.Bytes {
		found = append(found, "size")
	}
	return found
}

// weight orders pages: another status weighs more than another title, that more than another size,
// and of the sizes the one that has changed most.
func (p PagePair) weight() float64 {
	w := 0.0
	for _, d := range p.Differs {
		w += map[string]float64{"status": 4, "title": 2}[d]
	}
	if a, b := float64(p.A.Bytes), float64(p.B.Bytes); a != b {
		w += math.Abs(a-b) / max(a, b)
	}
	return w
}

// title returns the text of a page's title element, "" without one.
func title(page []byte) string {
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return ""
		case html.StartTagToken:
			if name, _ := z.TagName(); string(name) == "title" {
				if z.Next() != html.TextToken {
					return ""
				}
				return cut(strings.Join(strings.Fields(html.UnescapeString(string(z.Raw()))), " "), 200)
			}
		}
	}
}
