package invalidation_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
)

const fillLimit = 30 * time.Second

var (
	keys     = tasks.KeysOf("site")
	releases = []string{"r1", "r2", "r3"}
	names    = []string{"a:1", "b:1"}
	allTags  = []string{"t1", "t2"}
	// What an entry's tags may be; an edit may change them.
	tagsOf = map[string][2][]string{"a:1": {{"t1"}, {"t2"}}, "b:1": {{"t1", "t2"}, {"t2"}}}
	// The year keeps expiries clear of this process's own clock.
	dawn = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// version is what the origin holds under a key.
type version struct {
	number int
	tags   []string
	gone   bool // deleted
}

// stage is what all histories share: a Redis in memory and the real rooms on it.
type stage struct {
	*memory
	rdb     *redis.Client
	tmpl    tasks.Template
	log     *invalidation.Log
	ns      *namespace.Cache
	applier *invalidation.Applier
	clients map[string]*tasks.Client
	left    map[string]int // release → entries that were there at the end, in all histories
}

func newStage(t *testing.T, f flaw) *stage {
	s := &stage{memory: newMemory(t), clients: map[string]*tasks.Client{}, left: map[string]int{}}
	s.edit = strings.NewReplacer(breaks[f]...).Replace
	s.mini.SetTime(dawn)
	s.mini.ClockTTL(true)
	s.rdb = s.client()
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.rdb.AddHook(stepper{})
	cfg := tasks.Config{App: "site", FillLimit: fillLimit}
	var err error
	if s.tmpl, err = cfg.Template(); err != nil {
		t.Fatal(err)
	}
	s.ns = namespace.New(s.rdb, s.tmpl, keys, nil)
	for _, id := range []string{"r1", "r2"} {
		cfg.Release = id
		if s.clients[id], err = tasks.NewClientFrom(s.rdb, s.rdb, cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.clients[id].Close() })
	}
	rapid.Custom(func(t *rapid.T) string { w := newWorld(t, s, sound); w.tour(); return w.settled() }).Example(1)
	return s
}

// newApplier returns the applier of one more worker. Its claims end at once: a dead worker holds
// nobody up, and any number of workers apply the same record.
func (s *stage) newApplier() *invalidation.Applier {
	a := invalidation.NewApplier(s.log, s.rdb, s.tmpl, release.Open(s.rdb, keys).Live, s.ns)
	a.Claim = time.Nanosecond
	return a
}

// world is one history: an origin, two live namespaces (r1 active, r2 on standby), one that may be
// restored (r3), and the actors that work on them.
type world struct {
	*stage
	t      *rapid.T
	flaw   flaw
	marks  worker.Marks
	ledger *release.Ledger
	now    time.Time

	origin   map[string][]version    // key → its versions; the last is the present one
	invalid  map[string]map[int]bool // key → the versions that an invalidation named
	records  int
	actors   []*actor
	gone     map[string]bool // tasks that came to their end without success
	loading  map[string]bool // release/key → a fill is about to load it
	doomed   map[string]bool // release/key → a fill of it was disturbed: only its probation ends it
	archived []int64         // the marks of the archives
	notes    []note
}

func newWorld(t *rapid.T, s *stage, f flaw) *world {
	w := &world{
		stage: s, t: t, flaw: f, now: dawn, origin: map[string][]version{}, invalid: map[string]map[int]bool{},
		gone: map[string]bool{}, loading: map[string]bool{}, doomed: map[string]bool{},
	}
	// New processes: those of the last history would take this one's log for one that was lost.
	s.log = invalidation.Open(s.rdb, keys, invalidation.Config{FillLimit: fillLimit})
	s.applier = s.newApplier()
	w.ledger = release.Open(s.rdb, keys)
	w.marks = worker.Marks{Ledger: w.ledger, Log: s.log, Applier: s.applier, Tags: s.ns, Gone: func(_ context.Context, id string) (bool, error) {
		return w.gone[id], nil
	}}
	if f == tagsNotCarried {
		w.marks.Tags = noTags{}
	}
	for _, key := range names {
		w.origin[key], w.invalid[key] = []version{{tags: tagsOf[key][0]}}, map[int]bool{}
	}
	w.mini.FlushAll()
	w.mini.SetTime(dawn)
	w.must(w.mini.Set(keys.Active(), "r1"))
	// The log is older than any mark goes back to, and replays have something to do.
	w.mini.HSet(keys.LogMeta(), "epoch", "e", "floor", number(dawn.Add(-time.Second)), "last", number(dawn))
	for _, tag := range allTags {
		w.add(keys.Log(), float64(dawn.UnixMicro()), "t:"+tag)
	}
	w.advance(2 * time.Hour)
	for _, id := range []string{"r1", "r2"} {
		_, err := w.mini.SAdd(keys.Live(), id)
		w.must(err)
		w.mini.HSet(keys.Release(id), "state", map[string]string{"r1": "active", "r2": "standby"}[id])
		for _, key := range names {
			if rapid.Bool().Draw(t, id+" holds "+key) {
				w.must(w.mini.Set(w.tmpl.Key(id, key), "0"))
				for _, tag := range w.present(key).tags {
					w.add(w.tmpl.Key(id, tasks.TagIndex(tag)), math.Inf(1), key)
				}
			}
		}
	}
	return w
}

// alone returns the context of an actor who waits for nobody.
func (w *world) alone(id string) context.Context {
	return context.WithValue(context.Background(), actorKey{}, &actor{w: w, id: id, yield: func() bool { return true }})
}

// tour makes the server know every script, so that none costs a history a round trip more.
func (w *world) tour() {
	ctx := w.alone("tour")
	for _, work := range []func(context.Context, *actor) error{
		w.edit("a:1", tasks.KindTag, "stays", false), w.trim, w.prune("r1"), w.carry("carry", ""), w.comeBack("comeback"),
	} {
		w.must(work(ctx, actorOf(ctx)))
	}
	w.bump("a:1", allTags, false)
	w.must(w.fill("r1", "a:1", 0)(ctx, actorOf(ctx)))
	w.must(w.warm("r1", "warm", 0, [][]string{{"a:1"}})(ctx, actorOf(ctx)))
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatalf("%v\n%s", err, w.steps())
	}
}

// note is a step that was taken. It is put into words when somebody wants to read it.
type note struct {
	who  string
	what fmt.Stringer
	turn turn
}

// steps tells what happened, one step a line.
func (w *world) steps() string {
	var b strings.Builder
	for _, n := range w.notes {
		fmt.Fprintf(&b, "%-10s %s %s\n", n.who, n.what, n.turn)
	}
	return b.String()
}

func (w *world) add(key string, score float64, member string) {
	_, err := w.mini.ZAdd(key, score, member)
	w.must(err)
}

// number is the log's number of a time.
func number(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

func (w *world) advance(d time.Duration) {
	w.now = w.now.Add(d)
	w.mini.SetTime(w.now)
}

// present returns what the origin holds now.
func (w *world) present(key string) version { return w.origin[key][len(w.origin[key])-1] }

// bump edits a key.
func (w *world) bump(key string, tags []string, gone bool) {
	w.origin[key] = append(w.origin[key], version{len(w.origin[key]), tags, gone})
}

// promise notes that what is older than the origin is now must leave.
func (w *world) promise(targets []tasks.Target) {
	for _, key := range names {
		for _, v := range w.origin[key][:w.present(key).number] {
			for _, t := range targets {
				w.invalid[key][v.number] = w.invalid[key][v.number] || covers(t, key, v)
			}
		}
	}
}

func covers(t tasks.Target, key string, v version) bool {
	switch t.Kind {
	case tasks.KindKey:
		return string(t.Name) == key
	case tasks.KindTag:
		return slices.Contains(v.tags, string(t.Name))
	default:
		return strings.HasPrefix(key, string(t.Name))
	}
}

// targets returns what an edit of a key invalidates: a tag that it had, and one that it has.
func targets(key string, kind tasks.Kind, had, has []string) []tasks.Target {
	switch kind {
	case tasks.KindTag:
		all := []tasks.Target{{Kind: kind, Name: tasks.Bytes(had[0])}}
		if has[0] != had[0] {
			all = append(all, tasks.Target{Kind: kind, Name: tasks.Bytes(has[0])})
		}
		return all
	case tasks.KindPrefix:
		return []tasks.Target{{Kind: kind, Name: tasks.Bytes(key[:2])}}
	}
	return []tasks.Target{{Kind: tasks.KindKey, Name: tasks.Bytes(key)}}
}

// record returns a record of its own for the targets.
func (w *world) record(targets ...tasks.Target) tasks.Record {
	w.records++
	call := tasks.Invalidation{Targets: targets, By: tasks.By{Actor: "ann"}}
	return tasks.Record{ID: fmt.Sprint(w.records), Calls: []tasks.Invalidation{call}}
}

func (w *world) last() int64 {
	st, err := w.log.Status(context.Background())
	w.must(err)
	return st.Last
}

func (w *world) epoch() string { return w.mini.HGet(keys.LogMeta(), "epoch") }
