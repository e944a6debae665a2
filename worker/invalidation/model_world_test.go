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

	"github.com/alicebob/miniredis/v2"
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
	tagsOf   = map[string][]string{"a:1": {"t1"}, "b:1": {"t1", "t2"}}
	// The year keeps expiries clear of this process's own clock.
	dawn = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// version is what the origin holds under a key.
type version struct {
	number int
	gone   bool // deleted
}

// stage is what all histories share: an embedded Redis and the real rooms on it.
type stage struct {
	mini    *miniredis.Miniredis
	rdb     *redis.Client
	tmpl    tasks.Template
	log     *invalidation.Log
	ns      *namespace.Cache
	applier *invalidation.Applier
	clients map[string]*tasks.Client
	left    map[string]int // release → entries that were there at the end, in all histories
}

func newStage(t *testing.T) *stage {
	s := &stage{mini: miniredis.RunT(t), clients: map[string]*tasks.Client{}, left: map[string]int{}}
	s.mini.SetTime(dawn)
	s.mini.ClockTTL(true)
	s.rdb = redis.NewClient(&redis.Options{Addr: s.mini.Addr(), PoolSize: 1, MaxRetries: -1})
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.rdb.AddHook(stepper{})
	cfg := tasks.Config{App: "site", FillLimit: fillLimit}
	var err error
	if s.tmpl, err = cfg.Template(); err != nil {
		t.Fatal(err)
	}
	s.log = invalidation.Open(s.rdb, keys, invalidation.Config{FillLimit: fillLimit})
	s.ns = namespace.New(s.rdb, s.tmpl, keys, nil)
	s.applier = s.newApplier()
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

// world is one history: an origin, two live namespaces (r1 active, r2 warming), one that may be
// restored (r3), and the actors that work on them.
type world struct {
	*stage
	t     *rapid.T
	flaw  flaw
	marks worker.Marks
	now   time.Time

	origin   map[string]version
	need     map[string]int // key → its version at its last invalidation
	records  int
	actors   []*actor
	gone     map[string]bool // tasks that came to their end without success
	loading  map[string]bool // release/key → a fill is about to load it
	doomed   map[string]bool // release/key → a fill of it was disturbed: only its probation ends it
	archived []int64         // the marks of the archives
	notes    []string
}

func newWorld(t *rapid.T, s *stage, f flaw) *world {
	w := &world{
		stage: s, t: t, flaw: f, now: dawn, origin: map[string]version{}, need: map[string]int{},
		gone: map[string]bool{}, loading: map[string]bool{}, doomed: map[string]bool{},
	}
	w.marks = worker.Marks{Ledger: release.Open(s.rdb, keys), Log: s.log, Applier: s.applier, Gone: func(_ context.Context, id string) (bool, error) {
		return w.gone[id], nil
	}}
	w.mini.FlushAll()
	w.mini.SetTime(dawn)
	// The log is older than any mark goes back to, and replays have something to do.
	w.mini.HSet(keys.LogMeta(), "epoch", "e", "floor", number(dawn.Add(-time.Second)), "last", number(dawn))
	for _, tag := range []string{"t1", "t2"} {
		w.add(keys.Log(), float64(dawn.UnixMicro()), "t:"+tag)
	}
	w.advance(2 * time.Hour)
	for _, id := range []string{"r1", "r2"} {
		_, err := w.mini.SAdd(keys.Live(), id)
		w.must(err)
		for _, key := range names {
			if rapid.Bool().Draw(t, id+" holds "+key) {
				w.must(w.mini.Set(w.tmpl.Key(id, key), "0"))
				for _, tag := range tagsOf[key] {
					w.add(w.tmpl.Key(id, tasks.TagIndex(tag)), math.Inf(1), key)
				}
			}
		}
	}
	return w
}

// alone returns the context of an actor who waits for nobody.
func (w *world) alone(id string) context.Context {
	return context.WithValue(context.Background(), actorKey{}, &actor{w: w, id: id, yield: func(string) bool { return true }})
}

// tour makes the server know every script, so that none costs a history a round trip more.
func (w *world) tour() {
	ctx := w.alone("tour")
	for _, work := range []func(context.Context, *actor) error{
		w.edit("a:1", tasks.KindTag, false), w.trim, w.prune("r1"), w.carry("carry", ""), w.comeBack("comeback"),
	} {
		w.must(work(ctx, actorOf(ctx)))
	}
	w.bump("a:1", false)
	w.must(w.fill("r1", "a:1", 0)(ctx, actorOf(ctx)))
	w.must(w.warm("r1", "warm", [][]string{{"a:1"}})(ctx, actorOf(ctx)))
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatalf("%v\n%s", err, strings.Join(w.notes, "\n"))
	}
}

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
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

func (w *world) bump(key string, gone bool) {
	w.origin[key] = version{w.origin[key].number + 1, gone}
}

// promise notes that what is older than the origin is now must leave.
func (w *world) promise(targets []tasks.Target) {
	for _, key := range names {
		for _, t := range targets {
			if covers(t, key) {
				w.need[key] = w.origin[key].number
			}
		}
	}
}

func covers(t tasks.Target, key string) bool {
	switch t.Kind {
	case tasks.KindKey:
		return string(t.Name) == key
	case tasks.KindTag:
		return slices.Contains(tagsOf[key], string(t.Name))
	default:
		return strings.HasPrefix(key, string(t.Name))
	}
}

func (w *world) target(key string, kind tasks.Kind) tasks.Target {
	switch kind {
	case tasks.KindTag:
		return tasks.Target{Kind: kind, Name: tasks.Bytes(tagsOf[key][0])}
	case tasks.KindPrefix:
		return tasks.Target{Kind: kind, Name: tasks.Bytes(key[:2])}
	}
	return tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(key)}
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

// takeMarked drops the members that a removal has marked, and returns them.
func (w *world) takeMarked(index string) map[string]float64 {
	marked := map[string]float64{}
	members, _ := w.mini.ZMembers(index)
	for _, m := range members {
		if score, _ := w.mini.ZScore(index, m); score < 0 {
			marked[m] = score
			_, _ = w.mini.ZRem(index, m)
		}
	}
	return marked
}

func (w *world) putBack(index string, marked map[string]float64) {
	for m, score := range marked {
		w.add(index, score, m)
	}
}
