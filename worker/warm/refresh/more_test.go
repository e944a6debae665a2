package refresh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// site returns the client of an app server of release r1.
func (w *world) site() *tasks.Client {
	w.Helper()
	c, err := tasks.NewClientFrom(w.client, w.client, tasks.Config{App: "site", Release: "r1", FillLimit: limit})
	w.must(err)
	w.Cleanup(func() { w.must(c.Close()) })
	return c
}

// TestCrawl refreshes by visiting pages: the site fills its own cache, and finds no lease in its way.
func TestCrawl(t *testing.T) {
	w := newWorld(t, "sqlite")
	site := w.site()
	var visits atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		defer fmt.Fprint(rw, "page")
		switch r.URL.Path {
		case "/gone":
			http.NotFound(rw, r)
		case "/never": // answers, and stores nothing
		default:
			got, err := site.Fetch(r.Context(), "page:"+r.URL.Path, nil, time.Hour, func(context.Context) ([]byte, error) { return []byte("new"), nil })
			if err != nil || !got.Stored {
				t.Errorf("the site's fill: %+v, %v", got, err)
			}
		}
	}))
	defer server.Close()
	w.planned("r1", fmt.Sprintf(`version: 1
sources:
  - name: pages
    crawl: {base: %q, urls: [/]}
    expect: {key: "page:{{.Path}}"}
`, server.URL))
	r := w.refresher()
	for _, path := range []string{"/a", "/b", "/gone"} {
		w.put("r1", "page:"+path, "old")
	}
	w.invalidate(r, prefix("page:"), key("page:/never"))
	got := w.drain(r, "r1")
	if got.Stored != 2 || got.Gone != 1 || got.Failed != 1 || visits.Load() != 4 {
		t.Errorf("%d visits: %+v", visits.Load(), got)
	}
	if v := w.value("r1", "page:/a") + w.value("r1", "page:/gone"); v != "new-" {
		t.Errorf("values %q", v)
	}
	w.clean("r1")
}

// TestAgainBeforeLoad invalidates keys that are dirty and gone already, by a tag and a prefix that find
// no entry any more: their numbers must move, or an edit would be lost.
func TestAgainBeforeLoad(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher()
	w.edit("a", "new")
	w.put("r1", "post:a", "old", "author:ann")
	w.put("r1", "post:long-gone", "old", "author:ann")
	w.must(w.client.Del(t.Context(), w.tmpl.Key("r1", "post:long-gone")).Err())
	number := func() string { return w.client.HGet(t.Context(), w.keys.Dirty("r1"), "post:a").Val() }
	w.invalidate(r, key("post:a"))
	for _, target := range []tasks.Target{tag("author:ann"), prefix("post:")} {
		before := number()
		w.invalidate(r, target)
		if number() == before {
			t.Errorf("%s: the dirty key keeps its number %s", target, before)
		}
	}
	if got := w.dirtyKeys("r1"); !slices.Equal(got, []string{"post:a"}) {
		t.Errorf("dirty keys %q, want what was there or named", got)
	}
}

// TestDirtyAgain edits an article between its check and the end of its load: it stays dirty.
func TestDirtyAgain(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher()
	d := r.dirty("r1")
	w.invalidate(r, key("post:a"), key("post:b"))
	if has, err := d.lease(t.Context(), "me"); !has || err != nil {
		t.Fatalf("lease: %v, %v", has, err)
	}
	got, err := d.take(t.Context(), "me", batch, time.Minute)
	w.must(err)
	if len(got.keys) != 2 {
		t.Fatalf("took %+v", got)
	}
	w.invalidate(r, key("post:a"))
	var all []ended
	for _, k := range got.keys {
		all = append(all, ended{dirty: k})
	}
	w.must(d.finish(t.Context(), all))
	if got := w.dirtyKeys("r1"); !slices.Equal(got, []string{"post:a"}) {
		t.Errorf("dirty keys %q, want the one that was edited again", got)
	}
	if got, err := d.take(t.Context(), "me", batch, time.Minute); err != nil || got.over || len(got.keys) > 0 || got.wait < 30*time.Second {
		t.Errorf("took %+v, %v, before its rest was over", got, err)
	}
	if got, err := d.take(t.Context(), "other", batch, time.Minute); err != nil || !got.over {
		t.Errorf("took %+v, %v, without the lease", got, err)
	}
}

// TestAskOnce asks twice through a real queue: one task waits, and none is added while a drain is at it.
func TestAskOnce(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher(func(d *Deps) { d.Tasks = w.site() })
	waiting := func() int64 { return w.client.LLen(t.Context(), "asynq:{site.refresh}:pending").Val() }
	for range 3 {
		w.must(r.Ask(t.Context(), "r1"))
	}
	if n := waiting(); n != 1 {
		t.Errorf("%d tasks wait, want 1", n)
	}
	if has, err := r.dirty("r0").lease(t.Context(), "me"); !has || err != nil {
		t.Fatalf("lease: %v, %v", has, err)
	}
	w.must(r.Ask(t.Context(), "r0"))
	if n := waiting(); n != 1 {
		t.Errorf("%d tasks wait beside a drain, want 1", n)
	}
}

// TestDraining hands the rest of the work on when the worker is asked to stop.
func TestDraining(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher()
	w.invalidate(r, key("post:a"))
	stop := make(chan struct{})
	close(stop)
	_, err := r.Refresh(t.Context(), stopping{tasks.Alone("test"), stop}, tasks.Refresh{Release: "r1"})
	if !errors.Is(err, tasks.ErrDraining) {
		t.Errorf("got %v, want draining", err)
	}
	if held := w.client.Exists(t.Context(), w.keys.DirtyLease("r1")).Val(); held != 0 {
		t.Error("the lease is not given back")
	}
}

type stopping struct {
	tasks.Alone
	stop chan struct{}
}

func (s stopping) Draining() <-chan struct{} { return s.stop }

// TestRandom has editors, visitors that fill, drains that are killed and drains that are not, all at
// once: in the end every article is in the cache as the last edit left it.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t, "sqlite")
	const articles, editors, edits = 8, 4, 40
	slug := func(i int) string { return fmt.Sprintf("s%d", i) }
	for i := range articles {
		w.edit(slug(i), "0")
		w.put("r1", "post:"+slug(i), "old", "author:ann")
	}
	site := w.site()
	load := func(i int) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) (v []byte, err error) {
			return v, w.db.QueryRowContext(ctx, "SELECT title FROM posts WHERE slug = '"+slug(i)+"'").Scan(&v)
		}
	}
	over, stop := context.WithCancel(t.Context())
	var editing, others sync.WaitGroup
	for e := range editors {
		random := rand.New(rand.NewPCG(seed, uint64(e)))
		r := w.refresher()
		editing.Go(func() {
			for n := range edits {
				i := random.IntN(articles)
				w.edit(slug(i), fmt.Sprintf("%d-%d", e, n))
				w.invalidate(r, []tasks.Target{key("post:" + slug(i)), tag("author:ann"), prefix("post:" + slug(i))}[random.IntN(3)])
			}
		})
	}
	for v := range 3 {
		random := rand.New(rand.NewPCG(seed, uint64(100+v)))
		others.Go(func() {
			for over.Err() == nil {
				i := random.IntN(articles)
				if _, err := site.Fetch(over, "post:"+slug(i), []string{"author:ann"}, time.Hour, load(i)); err != nil && over.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for d := range 2 {
		random := rand.New(rand.NewPCG(seed, uint64(200+d)))
		r := w.refresher()
		others.Go(func() {
			for over.Err() == nil {
				ctx, cancel := context.WithTimeout(over, time.Duration(random.IntN(100))*time.Millisecond)
				_, _ = r.Refresh(ctx, tasks.Alone("test"), tasks.Refresh{Release: "r1"}) // killed, most often
				cancel()
			}
		})
	}
	editing.Wait()
	stop()
	others.Wait()
	r := w.refresher()
	redistest.Eventually(t, "the last drain", func() bool {
		w.drain(r, "r1")
		return len(w.dirtyKeys("r1")) == 0
	})
	for i := range articles {
		want, err := load(i)(t.Context())
		w.must(err)
		if got := w.value("r1", "post:"+slug(i)); got != string(want) {
			t.Errorf("%s is %q, want %q", slug(i), got, want)
		}
	}
	w.clean("r1")
}
