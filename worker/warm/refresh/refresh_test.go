package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/warm"
)

// TestRefresh edits articles and asks for a refresh by key, tag and prefix: what was removed comes
// back as it is at the origin now, with its tags and its lifetime, and nothing else does.
func TestRefresh(t *testing.T) {
	for _, driver := range []string{"sqlite", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			w := newWorld(t, driver)
			r := w.refresher()
			for _, slug := range []string{"a", "b", "c", "d", "e"} {
				w.edit(slug, "new "+slug)
				if slug != "e" {
					w.put("r1", "post:"+slug, "old", map[string]string{"b": "author:ann", "c": "author:ann"}[slug])
				}
			}
			w.put("r1", "post:deleted", "old")
			w.put("r1", "nav:main", "old")
			w.put("r0", "post:a", "old")
			w.invalidate(r, key("post:a"), key("post:e"), key("post:deleted"), tag("author:ann"), prefix("nav:"))
			if got := w.value("r1", "post:a") + w.value("r1", "post:b"); got != "--" {
				t.Fatalf("removed entries: %s", got)
			}
			got := w.drain(r, "r1")
			if diff := cmp.Diff(Refreshed{Release: "r1", Stored: 4, Gone: 1, Unowned: 1, Loads: 5}, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			for key, want := range map[string]string{
				"post:a": "new a", "post:b": "new b", "post:c": "new c", "post:e": "new e", "post:d": "old",
				"post:deleted": "-", "nav:main": "-",
			} {
				if got := w.value("r1", key); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if ttl := w.client.TTL(t.Context(), w.tmpl.Key("r1", "post:a")).Val(); ttl < 23*time.Hour {
				t.Errorf("lifetime %v, want the plan's 24h", ttl)
			}
			members := w.client.ZRange(t.Context(), w.tmpl.Key("r1", tasks.TagIndex("author:ann")), 0, -1).Val()
			slices.Sort(members)
			if diff := cmp.Diff([]string{"post:a", "post:b", "post:c", "post:e"}, members); diff != "" {
				t.Errorf("tag index (-want +got):\n%s", diff)
			}
			w.clean("r1")
			if got := w.drain(r, "r0"); !got.NoPlan || got.Dropped != 3 || w.value("r0", "post:a") != "-" {
				t.Errorf("a release without a plan: %+v", got)
			}
			w.clean("r0")
			if !strings.Contains(w.lines.String(), "unowned=1") || !strings.Contains(w.lines.String(), "no_plan=true") {
				t.Errorf("the log does not tell what was left to the site:\n%s", w.lines)
			}
		})
	}
}

// TestBurst edits one article 200 times while a drain is at work: few loads, the last value.
func TestBurst(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.edit("a", "0")
	var loads atomic.Int64
	r := w.refresher(w.hook(func(keys []string) { loads.Add(int64(len(keys))) }, nil))
	r.rest = rest
	begun := time.Now()
	w.invalidate(r, key("post:a"))
	done := make(chan Refreshed)
	go func() { done <- w.drain(r, "r1") }()
	for i := 1; i <= 200; i++ {
		w.edit("a", fmt.Sprint(i))
		w.invalidate(r, key("post:a"))
	}
	took := time.Since(begun)
	got := <-done
	if w.value("r1", "post:a") != "200" {
		t.Errorf("the value is %q, want the last edit's", w.value("r1", "post:a"))
	}
	// One at once, one a second after it, one after the last edit; and one that an edit overtook.
	if most := int64(took/rest) + 3; loads.Load() > most {
		t.Errorf("%d loads in %v, want %d at most", loads.Load(), took, most)
	}
	t.Logf("201 edits in %v: %d loads, %+v", took.Round(time.Millisecond), loads.Load(), got)
	w.clean("r1")
}

// TestEditDuringLoad edits an article after it was read and before it is stored: what was read must
// not stay, and the edit must come.
func TestEditDuringLoad(t *testing.T) {
	for _, how := range []string{"with refresh", "without", "by tag, with refresh", "recorded only"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "sqlite")
			w.edit("a", "first")
			w.put("r1", "post:a", "old", "author:ann")
			plain := w.refresher()
			var once sync.Once
			r := w.refresher(w.hook(func([]string) {}, func(f warm.Found) {
				once.Do(func() {
					if f.Entries[0].Value != "first" {
						t.Errorf("read %q", f.Entries[0].Value)
					}
					w.edit("a", "second")
					switch how {
					case "with refresh":
						w.invalidate(plain, key("post:a"))
					case "by tag, with refresh":
						w.invalidate(plain, tag("author:ann"))
					case "without":
						w.record([]tasks.Target{key("post:a")})
						w.apply(nil)
					case "recorded only":
						w.record([]tasks.Target{key("post:a")})
						go func() {
							redistest.Eventually(t, "the load in vain", func() bool { return w.value("r1", "post:a") == "-" })
							if _, err := w.applier.Sweep(t.Context(), 0); err != nil {
								t.Error(err)
							}
						}()
					}
				})
			}))
			w.invalidate(r, key("post:a"))
			got := w.drain(r, "r1")
			if v := w.value("r1", "post:a"); v != "second" || got.Stored != 1 || got.Again == 0 {
				t.Errorf("the value is %q after %+v, want the second after one load in vain", v, got)
			}
			w.clean("r1")
		})
	}
}

// TestTwoWorkers drains from several workers at once, while keys are edited: no key is loaded by two at a time.
func TestTwoWorkers(t *testing.T) {
	w := newWorld(t, "sqlite")
	const articles = 120
	var targets []tasks.Target
	for i := range articles {
		w.edit(fmt.Sprint(i), "v0")
		targets = append(targets, key(fmt.Sprintf("post:%d", i)))
	}
	var mu sync.Mutex
	loading := map[string]bool{}
	hook := w.hook(func(keys []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			if loading[k] {
				t.Errorf("%s is loaded twice at a time", k)
			}
			loading[k] = true
		}
	}, func(f warm.Found) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range f.Entries {
			delete(loading, e.Key)
		}
	})
	w.invalidate(w.refresher(), targets...)
	var workers sync.WaitGroup
	var stored, busy atomic.Int64
	for range 4 {
		workers.Go(func() {
			got := w.drain(w.refresher(hook), "r1")
			stored.Add(got.Stored)
			if got.Busy {
				busy.Add(1)
			}
		})
	}
	workers.Wait()
	if stored.Load() != articles || busy.Load() != 3 {
		t.Errorf("%d stored, %d of 4 workers found another at it; want %d and 3", stored.Load(), busy.Load(), articles)
	}
	w.clean("r1")
}

// TestSiteLoads leaves a key alone that the site is filling, and takes it when the site has ended.
func TestSiteLoads(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.edit("a", "new")
	lease := w.tmpl.Key("r1", tasks.LeaseKey("post:a"))
	w.must(w.client.Set(t.Context(), lease, "a visitor", 0).Err())
	var loads atomic.Int64
	r := w.refresher(w.hook(func(keys []string) { loads.Add(1) }, nil))
	w.invalidate(r, key("post:a"))
	done := make(chan Refreshed)
	go func() { done <- w.drain(r, "r1") }()
	redistest.Eventually(t, "the key at rest", func() bool { return w.client.ZCard(t.Context(), w.keys.DirtyRest("r1")).Val() == 1 })
	if loads.Load() != 0 {
		t.Error("it was loaded beside the visitor")
	}
	w.must(w.client.Del(t.Context(), lease).Err())
	if got := <-done; got.Stored != 1 || w.value("r1", "post:a") != "new" {
		t.Errorf("%+v, value %q", got, w.value("r1", "post:a"))
	}
	if held := w.client.Exists(t.Context(), lease).Val(); held != 0 {
		t.Error("the lease is not given back")
	}
}

// TestKilled cancels drains at every load, before and after it, as a killed worker would end: another goes on.
func TestKilled(t *testing.T) {
	w := newWorld(t, "sqlite")
	const articles = 3 * batch
	var targets []tasks.Target
	for i := range articles {
		w.edit(fmt.Sprint(i), "new")
		targets = append(targets, key(fmt.Sprintf("post:%d", i)))
	}
	w.invalidate(w.refresher(), targets...)
	for _, at := range []string{"before", "after", "before"} {
		ctx, kill := context.WithCancel(t.Context())
		r := w.refresher(w.hook(func([]string) {
			if at == "before" {
				kill()
			}
		}, func(warm.Found) {
			if at == "after" {
				kill()
			}
		}))
		_, err := r.Refresh(ctx, tasks.Alone("test"), tasks.Refresh{Release: "r1"})
		kill()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want a cancelled context", err)
		}
	}
	w.drain(w.refresher(), "r0")
	// A worker that is killed gives nothing back.
	w.must(w.client.Set(t.Context(), w.keys.DirtyLease("r1"), "a dead drain", 200*time.Millisecond).Err())
	w.tasks.asked = nil
	r := w.refresher()
	if n, err := r.Sweep(t.Context()); err != nil || n != 1 || len(w.tasks.asked) != 0 {
		t.Errorf("sweep under a lease: %d, %v, asked for %q", n, err, w.tasks.asked)
	}
	redistest.Eventually(t, "the sweep to ask for a task", func() bool {
		_, err := r.Sweep(t.Context())
		w.must(err)
		return len(w.tasks.asked) > 0
	})
	got := w.drain(r, "r1")
	for i := range articles {
		if v := w.value("r1", fmt.Sprintf("post:%d", i)); v != "new" {
			t.Fatalf("post:%d is %q after %+v", i, v, got)
		}
	}
	w.clean("r1")
	if n, err := r.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("sweep at the end: %d, %v", n, err)
	}
}

// TestNotedBeforeRemoval takes a key whose removal is still pending: it is not lost, and not stored
// before the removal.
func TestNotedBeforeRemoval(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.edit("a", "new")
	w.put("r1", "post:a", "old")
	r := w.refresher()
	targets := []tasks.Target{key("post:a")}
	number := w.record(targets)
	r.Note(t.Context(), "r1", number, targets)
	done := make(chan Refreshed)
	go func() { done <- w.drain(r, "r1") }()
	redistest.Eventually(t, "the key at rest", func() bool { return w.client.ZCard(t.Context(), w.keys.DirtyRest("r1")).Val() == 1 })
	if v := w.value("r1", "post:a"); v != "old" {
		t.Errorf("stored %q before the removal", v)
	}
	r.Note(t.Context(), "r1", number, targets) // the worker died; another applies it
	w.apply(nil)
	if got := <-done; got.Stored != 1 || w.value("r1", "post:a") != "new" {
		t.Errorf("%+v, value %q", got, w.value("r1", "post:a"))
	}
}

// TestHotFirst loads what was used last, or most under an LFU policy, before the rest.
func TestHotFirst(t *testing.T) {
	for _, policy := range []string{"noeviction", "volatile-lfu"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "sqlite")
			w.must(w.client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
			const articles, hot = 3 * batch, 7
			for i := range articles {
				w.edit(fmt.Sprint(i), "v")
				w.put("r1", fmt.Sprintf("post:%d", i), "old", "all")
			}
			var want []string
			if policy == "noeviction" { // the server's clock of use counts seconds
				redistest.Eventually(t, "idle entries", func() bool {
					return w.client.ObjectIdleTime(t.Context(), w.tmpl.Key("r1", "post:0")).Val() >= 2*time.Second
				})
			}
			for i := range hot {
				k := fmt.Sprintf("post:%d", i*13)
				want = append(want, k)
				for range 500 {
					w.must(w.client.Get(t.Context(), w.tmpl.Key("r1", k)).Err())
				}
			}
			var first []string
			r := w.refresher(w.hook(func(keys []string) {
				if first == nil {
					first = slices.Clone(keys)
				}
			}, nil))
			w.invalidate(r, tag("all"))
			if got := w.drain(r, "r1"); got.Stored != articles {
				t.Errorf("%+v", got)
			}
			for _, k := range want {
				if !slices.Contains(first, k) {
					t.Errorf("%s is hot and not in the first load", k)
				}
			}
		})
	}
}

// TestBound refreshes the hottest up to the limit and says that there are more.
func TestBound(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher()
	r.cfg.RefreshLimit = 20
	w.must(w.client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lfu").Err())
	for i := range 50 {
		w.edit(fmt.Sprint(i), "new")
		w.put("r1", fmt.Sprintf("post:%d", i), "old", "all")
	}
	for range 500 {
		w.must(w.client.Get(t.Context(), w.tmpl.Key("r1", "post:33")).Err())
	}
	for _, target := range []tasks.Target{tag("all"), prefix("post:")} {
		p, err := r.Preview(t.Context(), "r1", []tasks.Target{target})
		w.must(err)
		if p.Keys != 20 || !p.Beyond || p.Sample[0] != "post:33" {
			t.Errorf("preview of %s: %+v", target, p)
		}
	}
	w.invalidate(r, tag("all"))
	if got := w.dirtyKeys("r1"); len(got) != 20 || !slices.Contains(got, "post:33") {
		t.Errorf("dirty keys %q, want the 20 hottest", got)
	}
	if got := w.drain(r, "r1"); got.Stored != 20 {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(w.lines.String(), "refresh bounded") {
		t.Error("the bound is not logged")
	}
	if w.value("r1", "post:33") != "new" {
		t.Error("the hottest was left out")
	}
}

// TestSourceFails keeps keys dirty while their source cannot be read, for an hour, and gives up at
// once what cannot be read at all.
func TestSourceFails(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.edit("a", "new")
	broken := errors.New("the database is away")
	r := w.refresher(func(d *Deps) {
		open := d.Sources
		d.Sources = func(ctx context.Context, id string) (Sources, error) {
			s, err := open(ctx, id)
			return failing{s, &broken}, err
		}
	})
	w.invalidate(r, key("post:a"))
	if _, err := r.Refresh(t.Context(), tasks.Alone("test"), tasks.Refresh{Release: "r1"}); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the source's error", err)
	}
	if got := w.dirtyKeys("r1"); !slices.Equal(got, []string{"post:a"}) {
		t.Fatalf("dirty keys %q", got)
	}
	broken = nil
	if got := w.drain(r, "r1"); got.Stored != 1 {
		t.Errorf("the source is back: %+v", got)
	}
	for name, setup := range map[string]func(){
		"invalid": func() {
			broken = fmt.Errorf("%w: SITE_DSN is not set", tasks.ErrInvalid)
			w.invalidate(r, key("post:a"))
		},
		"old": func() {
			broken = errors.New("the database is away")
			long := time.Now().Add(-2 * giveUp).UnixMicro()
			r.Note(t.Context(), "r1", long, []tasks.Target{key("post:a")})
		},
	} {
		setup()
		got, _ := r.Refresh(t.Context(), tasks.Alone("test"), tasks.Refresh{Release: "r1"})
		if got.Failed != 1 || len(got.Examples) != 1 || len(w.dirtyKeys("r1")) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

type failing struct {
	Sources
	err *error
}

func (f failing) Find(ctx context.Context, keys []string, fn func(warm.Found) error) error {
	if *f.err != nil {
		return *f.err
	}
	return f.Sources.Find(ctx, keys, fn)
}

// TestNotLive forgets the dirty keys of a release that no longer receives invalidations.
func TestNotLive(t *testing.T) {
	w := newWorld(t, "sqlite")
	r := w.refresher()
	w.invalidate(r, key("post:a"))
	w.must(w.client.SRem(t.Context(), w.keys.Live(), "r1").Err())
	if got := w.drain(r, "r1"); !got.NotLive || got.Dropped != 1 {
		t.Errorf("%+v", got)
	}
	w.clean("r1")
}
