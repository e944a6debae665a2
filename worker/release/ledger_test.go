package release

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

var (
	ctx  = context.Background()
	ann  = tasks.By{Actor: "ann", Reason: "test"}
	keys = tasks.KeysOf("site")
)

func open(t *testing.T) (*Ledger, *redis.Client) {
	t.Helper()
	rdb := redistest.Start(t).Client
	return Open(rdb, keys), rdb
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, l *Ledger, id string, path ...State) {
	t.Helper()
	must(t, l.Create(ctx, Record{ID: id, Template: tasks.DefaultTemplate}, ann))
	from := New
	for _, to := range path {
		if to == Active {
			_, err := l.Flip(ctx, id, from, ann)
			must(t, err)
		} else {
			must(t, l.Move(ctx, id, from, to, ann))
		}
		from = to
	}
}

func state(t *testing.T, l *Ledger, id string) State {
	t.Helper()
	r, err := l.Get(ctx, id)
	must(t, err)
	return r.State
}

func TestCreateKeepsWhatAColleagueNeeds(t *testing.T) {
	l, _ := open(t)
	want := Notes{Owner: "ann", Reason: "new templates", Expected: "faster tags", Revision: "abc123", Files: []string{"tmpl/post.html"}, Commands: []string{"make deploy"}}
	must(t, l.Create(ctx, Record{ID: "r1", Template: tasks.DefaultTemplate, Notes: want}, ann))
	got, err := l.Get(ctx, "r1")
	must(t, err)
	if diff := cmp.Diff(want, got.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if got.State != New || got.CreatedAt.IsZero() {
		t.Errorf("got state %q, created %v", got.State, got.CreatedAt)
	}
	live, err := l.Live(ctx)
	must(t, err)
	if diff := cmp.Diff([]string{"r1"}, live); diff != "" {
		t.Errorf("a new release is live before the first write (-want +got):\n%s", diff)
	}
	if err := l.Create(ctx, Record{ID: "r1"}, ann); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("a second create: got %v, want ErrRefused", err)
	}
}

func TestMoveIsACompareAndSet(t *testing.T) {
	l, _ := open(t)
	create(t, l, "r1", Warming)
	if err := l.Move(ctx, "r1", New, Warming, ann); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("from the wrong state: got %v, want ErrRefused", err)
	}
	if err := l.Move(ctx, "r1", Warming, Archived, ann); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("a move that does not exist: got %v, want ErrRefused", err)
	}
	if err := l.Move(ctx, "r9", New, Warming, ann); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("an unknown release: got %v, want ErrNotFound", err)
	}
	if got := state(t, l, "r1"); got != Warming {
		t.Errorf("refused moves left state %q", got)
	}
}

func TestFlipMovesTwoReleasesAtOnce(t *testing.T) {
	l, rdb := open(t)
	sub := rdb.Subscribe(ctx, keys.ActiveChannel())
	defer sub.Close()
	_, err := sub.Receive(ctx)
	must(t, err)
	create(t, l, "r1", Warming, Ready, Active)
	create(t, l, "r2", Warming, Ready)
	previous, err := l.Flip(ctx, "r2", Ready, ann)
	must(t, err)
	active, err := l.Active(ctx)
	must(t, err)
	if previous != "r1" || active != "r2" || state(t, l, "r1") != Standby || state(t, l, "r2") != Active {
		t.Errorf("after the flip: previous %q, active %q, r1 %s, r2 %s", previous, active, state(t, l, "r1"), state(t, l, "r2"))
	}
	for _, want := range []string{"r1", "r2"} {
		if m := <-sub.Channel(); m.Payload != want {
			t.Errorf("message %q, want %q", m.Payload, want)
		}
	}
	history, err := l.History(ctx, "r1")
	must(t, err)
	var got []State
	for _, m := range history {
		got = append(got, m.To)
		if m.Actor != "ann" || m.At.IsZero() {
			t.Errorf("move without actor or time: %+v", m)
		}
	}
	if diff := cmp.Diff([]State{New, Warming, Ready, Active, Standby}, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestOpenMarksForbidReadyAndActive(t *testing.T) {
	l, rdb := open(t)
	create(t, l, "r1", Warming)
	rdb.ZAdd(ctx, keys.Marks("r1"), redis.Z{Score: 1, Member: "writer"})
	if err := l.Move(ctx, "r1", Warming, Ready, ann); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("ready with an unfinished writer: got %v, want ErrRefused", err)
	}
	rdb.Del(ctx, keys.Marks("r1"))
	must(t, l.Move(ctx, "r1", Warming, Ready, ann))
	rdb.ZAdd(ctx, keys.Marks("r1"), redis.Z{Score: 1, Member: "writer"})
	if _, err := l.Flip(ctx, "r1", Ready, ann); !errors.Is(err, tasks.ErrRefused) {
		t.Errorf("active with an unfinished writer: got %v, want ErrRefused", err)
	}
}

// Of many activations at once exactly one wins, and there is one active release throughout.
func TestTwoActivationsAtOnce(t *testing.T) {
	l, _ := open(t)
	create(t, l, "r0", Warming, Ready, Active)
	ids := []string{"r1", "r2", "r3", "r4"}
	for _, id := range ids {
		create(t, l, id, Warming, Ready)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		for range 4 {
			wg.Go(func() {
				if _, err := l.Flip(ctx, id, Ready, ann); err != nil && !errors.Is(err, tasks.ErrRefused) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	assertOnePointer(t, l)
}

func assertOnePointer(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, l *Ledger) {
	t.Helper()
	active, err := l.Active(ctx)
	if err != nil {
		t.Fatal(err)
	}
	records, err := l.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	live, err := l.Live(ctx)
	if err != nil {
		t.Fatal(err)
	}
	isLive := map[string]bool{}
	for _, id := range live {
		isLive[id] = true
	}
	for _, r := range records {
		if (r.State == Active) != (r.ID == active) {
			t.Fatalf("%q is %s while the pointer names %q", r.ID, r.State, active)
		}
		if r.State.Live() != isLive[r.ID] {
			t.Fatalf("%q is %s, live set says %v", r.ID, r.State, isLive[r.ID])
		}
	}
}

// Whatever is asked in whatever order: one pointer, and the live set follows the states.
func TestLedgerInvariants(t *testing.T) {
	l, rdb := open(t)
	rapid.Check(t, func(t *rapid.T) {
		rdb.FlushDB(ctx)
		ids := []string{"r1", "r10", "r2"}
		activated := false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			from := rapid.SampledFrom(States()).Draw(t, "from")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				_ = l.Create(ctx, Record{ID: id}, ann)
			case 1:
				_ = l.Move(ctx, id, from, rapid.SampledFrom(States()).Draw(t, "to"), ann)
			case 2:
				if _, err := l.Flip(ctx, id, from, ann); err == nil {
					activated = true
				}
			}
			assertOnePointer(t, l)
			if active, _ := l.Active(ctx); activated && active == "" {
				t.Fatal("no active release after the first activation")
			}
		}
	})
}

func TestDocs(t *testing.T) {
	l, _ := open(t)
	create(t, l, "r1")
	must(t, l.SetDoc(ctx, "r1", DocCertificate, map[string]int{"planned": 7}))
	r, err := l.Get(ctx, "r1")
	must(t, err)
	var got map[string]int
	ok, err := r.Doc(DocCertificate, &got)
	if err != nil || !ok || got["planned"] != 7 {
		t.Errorf("got %v, %v, %v", got, ok, err)
	}
	if ok, _ := r.Doc(DocVerdict, &got); ok {
		t.Error("a document that nobody wrote was found")
	}
	if err := l.SetDoc(ctx, "r9", DocVerdict, 1); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("a document of an unknown release: got %v, want ErrNotFound", err)
	}
}

func TestRule(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	rec := func(id string, s State, hoursAgo int) Record {
		at := now.Add(-time.Duration(hoursAgo) * time.Hour)
		return Record{ID: id, State: s, ActivatedAt: at, ChangedAt: at}
	}
	pinned := rec("keep", Standby, 90)
	pinned.Pinned = true
	records := []Record{
		rec("now", Active, 1), rec("s1", Standby, 2), rec("s2", Standby, 3), rec("s3", Standby, 4),
		rec("a1", Archived, 50), rec("a2", Archived, 60), pinned, rec("n", New, 99),
	}
	sizes := map[string]int64{"s1": 50, "s2": 30, "s3": 20, "keep": 1000}
	for _, c := range []struct {
		name            string
		rule            Rule
		archive, expire []string
	}{
		{"one of each", Rule{Standby: 1, Archived: 1}, []string{"s2", "s3"}, []string{"a2"}},
		{"a minimum age", Rule{Standby: 1, Archived: 0, MinAge: 4 * time.Hour}, []string{"s3"}, []string{"a1", "a2"}},
		{"room for all", Rule{Standby: 9, Archived: 9}, nil, nil},
		{"all fit", Rule{Standby: 9, Archived: 9, Memory: 100}, nil, nil},
		{"the oldest does not", Rule{Standby: 9, Archived: 9, Memory: 99}, []string{"s3"}, nil},
		{"only the newest does", Rule{Standby: 9, Archived: 9, Memory: 50}, []string{"s3", "s2"}, nil},
		{"not even the newest", Rule{Standby: 9, Archived: 9, Memory: 1}, []string{"s3", "s2"}, nil},
		{"none by number", Rule{Standby: 0, Archived: 9, Memory: 1}, []string{"s1", "s2", "s3"}, nil},
		{"numbers first", Rule{Standby: 2, Archived: 9, Memory: 80}, []string{"s3"}, nil},
		{"too young to leave", Rule{Standby: 9, Archived: 9, Memory: 99, MinAge: 5 * time.Hour}, nil, nil},
		{"the young count", Rule{Standby: 0, Archived: 9, Memory: 60, MinAge: 4 * time.Hour}, []string{"s3"}, nil},
	} {
		var archive, expire []string
		for _, l := range c.rule.Plan(records, sizes, now) {
			if l.Why == "" {
				t.Errorf("%s: %s leaves without a reason", c.name, l.ID)
			}
			if l.To == Archived {
				archive = append(archive, l.ID)
			} else {
				expire = append(expire, l.ID)
			}
		}
		if diff := cmp.Diff([][]string{c.archive, c.expire}, [][]string{archive, expire}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestRuleWeighsWhatItNeeds: nothing is measured that decides nothing.
func TestRuleWeighsWhatItNeeds(t *testing.T) {
	records := []Record{{ID: "a", State: Standby}, {ID: "b", State: Standby}, {ID: "c", State: Standby, Pinned: true}, {ID: "d", State: Active}}
	for _, c := range []struct {
		rule Rule
		want []string
	}{
		{Rule{Standby: 2}, nil},
		{Rule{Standby: 2, Memory: 1}, []string{"a", "b"}},
		{Rule{Standby: 1, Memory: 1}, nil},
	} {
		if d := cmp.Diff(c.want, c.rule.Weighs(records, time.Now())); d != "" {
			t.Errorf("%+v (-want +got):\n%s", c.rule, d)
		}
	}
}

// TestRuleProperties: whatever there is, the rule takes only what is not pinned and old enough, never
// the newest on standby for its memory, and what it leaves fits or cannot leave.
func TestRuleProperties(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var records []Record
		sizes := map[string]int64{}
		for i := range rapid.IntRange(0, 12).Draw(t, "releases") {
			id := fmt.Sprint("r", i)
			at := now.Add(-time.Duration(rapid.IntRange(0, 100).Draw(t, "hours")) * time.Hour)
			records = append(records, Record{ID: id, State: rapid.SampledFrom(States()).Draw(t, "state"), Pinned: rapid.Bool().Draw(t, "pinned"), ActivatedAt: at, ChangedAt: at})
			sizes[id] = rapid.Int64Range(0, 100).Draw(t, "size")
		}
		rule := Rule{
			Standby: rapid.IntRange(0, 4).Draw(t, "standby"), Archived: rapid.IntRange(0, 4).Draw(t, "archived"),
			MinAge: time.Duration(rapid.IntRange(0, 50).Draw(t, "age")) * time.Hour, Memory: rapid.Int64Range(0, 300).Draw(t, "memory"),
		}
		gone := map[string]bool{}
		for _, l := range rule.Plan(records, sizes, now) {
			if l.Pinned || now.Sub(l.ChangedAt) < rule.MinAge || !l.State.May(l.To) || gone[l.ID] {
				t.Fatalf("%+v lets %+v go", rule, l)
			}
			gone[l.ID] = true
		}
		var left, movable, standby int64
		for _, rec := range records {
			if rec.State != Standby || rec.Pinned || gone[rec.ID] {
				continue
			}
			standby++
			left += sizes[rec.ID]
			if now.Sub(rec.ChangedAt) >= rule.MinAge {
				movable++
			}
		}
		if rule.Memory > 0 && left > rule.Memory && movable > 1 {
			t.Fatalf("%+v leaves %d bytes on standby, %d of the releases could go", rule, left, movable)
		}
		if all := len(records); rule.Standby > 0 && standby == 0 && all > 0 {
			for _, rec := range records {
				if rec.State == Standby && !rec.Pinned {
					t.Fatalf("%+v leaves nothing to flip to", rule)
				}
			}
		}
	})
}
