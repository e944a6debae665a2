package demo

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// memory is stoker in one process: namespaces, an invalidation log, releases and archives.
type memory struct {
	mu      sync.Mutex
	spaces  map[string]map[string]memoryEntry
	log     map[string]int // tag → number of its last invalidation
	number  int
	state   map[string]release.State
	active  string
	archive map[string]map[string]memoryEntry
	marks   map[string]int // archive → number it was taken at
	forget  string         // a tag prefix whose invalidations are lost: a fault to be found
}

type memoryEntry struct {
	value []byte
	tags  []string
}

func newMemory() *memory {
	return &memory{
		spaces: map[string]map[string]memoryEntry{}, log: map[string]int{}, state: map[string]release.State{},
		archive: map[string]map[string]memoryEntry{}, marks: map[string]int{}, forget: "\x00",
	}
}

func (m *memory) Active(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.active == "" {
		return "", tasks.ErrNoRelease
	}
	return m.active, nil
}

// client is an app server's view of the memory.
type client struct {
	m       *memory
	release string
}

func (m *memory) client(id string) (Cache, error) { return client{m, id}, nil }

func (c client) Fetch(ctx context.Context, key string, tags []string, _ time.Duration, load func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	c.m.mu.Lock()
	e, ok := c.m.spaces[c.release][key]
	mark := c.m.number
	c.m.mu.Unlock()
	if ok {
		return e.value, true, nil
	}
	value, err := load(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("load: %w", err)
	}
	c.m.put(c.release, key, memoryEntry{value, tags}, mark)
	return value, false, nil
}

func (m *memory) put(id, key string, e memoryEntry, mark int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spaces[id] != nil && !slices.ContainsFunc(e.tags, func(t string) bool { return m.log[t] > mark }) {
		m.spaces[id][key] = e
	}
}

func (c client) Invalidate(_ context.Context, tags []string, _ string) (func(context.Context) error, error) {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	for _, t := range tags {
		if strings.HasPrefix(t, m.forget) {
			continue
		}
		m.log[t] = m.number
		for _, space := range m.spaces {
			drop(space, t)
		}
	}
	return func(context.Context) error { return nil }, nil
}

func drop(space map[string]memoryEntry, tag string) {
	for k, e := range space {
		if slices.Contains(e.tags, tag) {
			delete(space, k)
		}
	}
}

var _ Operator = (*memory)(nil)

func (m *memory) Create(_ context.Context, id string, n release.Notes) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spaces[id] = map[string]memoryEntry{}
	m.state[id] = release.New
	return n.Validate()
}

var (
	baseRE = regexp.MustCompile(`crawl: \{base: "([^"]+)"`)
	locRE  = regexp.MustCompile(`<loc>([^<]+)</loc>`)
)

func (m *memory) Warm(ctx context.Context, id string, plan []byte, sample float64, watch Watch) (Warmed, error) {
	m.mu.Lock()
	mark := m.number
	var carried map[string]memoryEntry
	if bytes.Contains(plan, []byte("carry:")) {
		carried = m.spaces[m.active]
		for k, e := range carried {
			if strings.HasPrefix(k, "nav:") || strings.HasPrefix(k, "frag:") {
				m.spaces[id][k] = e
			}
		}
	}
	m.mu.Unlock()
	if err := m.warmPosts(ctx, id, mark); err != nil {
		return Warmed{}, err
	}
	base := string(baseRE.FindSubmatch(plan)[1])
	sitemap, err := fetchPage(ctx, http.DefaultClient, base+"/sitemap.xml", nil)
	if err != nil {
		return Warmed{}, err
	}
	locs := locRE.FindAllSubmatch(sitemap.body, -1)
	if sample > 0 {
		locs = locs[:int(float64(len(locs))*sample)]
	}
	for i, loc := range locs {
		got, err := fetchPage(ctx, http.DefaultClient, string(loc[1]), nil)
		if err != nil || got.header.Get(ReleaseHeader) != id {
			return Warmed{}, fmt.Errorf("visit %s: %d from %q: %v", loc[1], got.status, got.header.Get(ReleaseHeader), err)
		}
		watch(int64(i+1), int64(len(locs)))
	}
	if sample > 0 {
		return Warmed{Verdict: "sample"}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state[id] = release.Ready
	return Warmed{Verdict: "pass", Entries: int64(len(m.spaces[id])), Coverage: 1}, nil
}

func (m *memory) warmPosts(ctx context.Context, id string, mark int) error {
	db, err := sql.Open(driver, os.Getenv(DSNVariable))
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, postsSQL)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var p post
		if err := rows.Scan(&p.Slug, &p.Title, &p.Summary, &p.Updated, &p.Version, &p.Tags, &p.Authors); err != nil {
			return err
		}
		// Another order of fields than the site's, as a generic warmer would write.
		row, err := json.Marshal(map[string]any{"slug": p.Slug, "title": p.Title, "summary": p.Summary,
			"updated": p.Updated, "version": p.Version, "tags": p.Tags, "authors": p.Authors})
		if err != nil {
			return err
		}
		m.put(id, postKey+p.Slug, memoryEntry{row, []string{postTag(p.Slug)}}, mark)
	}
	return rows.Err()
}

func (m *memory) Activate(_ context.Context, id, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state[id] != release.Ready {
		return fmt.Errorf("activate %q: %w: it is %s", id, tasks.ErrRefused, m.state[id])
	}
	m.flip(id)
	return nil
}

func (m *memory) flip(id string) {
	if m.active != "" {
		m.state[m.active] = release.Standby
	}
	m.active, m.state[id] = id, release.Active
}

func (m *memory) Rollback(_ context.Context, to, _ string, _ Watch) (RolledBack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := RolledBack{From: fromStandby, FreshAs: int64(m.number)}
	if m.state[to] == release.Archived {
		out.From = fromArchive
		m.spaces[to] = m.archive[to]
		out.Restored = int64(len(m.spaces[to]))
		for tag, number := range m.log {
			if number > m.marks[to] {
				out.Replayed++
				drop(m.spaces[to], tag)
			}
		}
	}
	m.flip(to)
	return out, nil
}

func (m *memory) Archive(_ context.Context, id, _ string, _ Watch) (Archived, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(len(m.spaces[id]))
	m.archive[id], m.marks[id] = m.spaces[id], m.number
	delete(m.spaces, id)
	m.state[id] = release.Archived
	return Archived{Entries: n, Bytes: 1000 * n, Removed: n}, nil
}

func (m *memory) Baseline(context.Context, string) error { return nil }
func (m *memory) Compare(context.Context, string, string) (string, error) {
	return "same", nil
}
func (m *memory) Note(_ context.Context, id string) (string, error) { return "# " + id, nil }
func (m *memory) State(_ context.Context, id string) (release.State, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state[id], int64(len(m.spaces[id])), nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// small is a site of n articles and a history of so many edits.
func small(n, events int) Corpus {
	c := Generate(3)
	return Corpus{Articles: c.Articles[:n], Events: c.Events[:events]}
}

func openStore(t *testing.T, c Corpus) *Store {
	t.Helper()
	s, err := OpenStore(t.Context(), t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openSite(t *testing.T, id string, s *Store, cache Cache) *Site {
	t.Helper()
	r, err := s.Reader(2, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	site, err := NewSite(id, r, cache, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return site
}
