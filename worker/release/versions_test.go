package release

import (
	"encoding/json"
	"errors"
	flags "flag"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

var update = flags.Bool("update", false, "rewrite what the present version looks like")

// kept is a release as the queue Redis holds it.
type kept struct {
	Record  map[string]string `json:"record"`
	History []string          `json:"history"`
}

func fixture(version int) string { return fmt.Sprintf("testdata/v%d.json", version) }

// Records of every version are read: the fixtures were written by this package as it was then.
func TestEveryVersionIsRead(t *testing.T) {
	l, rdb := open(t)
	if *update {
		must(t, l.Create(ctx, Record{ID: "r1", Template: tasks.DefaultTemplate, Notes: Notes{Owner: "ann", Files: []string{"a"}}}, ann))
		must(t, l.SetDoc(ctx, "r1", DocCertificate, map[string]string{"verdict": "pass"}))
		must(t, l.Pin(ctx, "r1", true, ann))
		must(t, l.SetRun(ctx, "r1", "RUN"))
		_, err := l.Flip(ctx, "r1", New, ann)
		must(t, err)
		raw, err := json.MarshalIndent(kept{rdb.HGetAll(ctx, keys.Release("r1")).Val(), rdb.LRange(ctx, keys.History("r1"), 0, -1).Val()}, "", "\t")
		must(t, err)
		must(t, os.WriteFile(fixture(tasks.Ledgers.For(1)), append(raw, '\n'), 0o644))
	}
	for version := 1; version <= tasks.Ledgers.Last(); version++ {
		raw, err := os.ReadFile(fixture(version))
		must(t, err)
		var k kept
		must(t, json.Unmarshal(raw, &k))
		if k.Record["version"] != fmt.Sprint(version) {
			t.Errorf("%s is of version %q", fixture(version), k.Record["version"])
		}
		forms := []map[string]string{k.Record}
		if version == 1 { // as it was before records had versions
			bare := maps.Clone(k.Record)
			delete(bare, "version")
			forms = append(forms, bare)
		}
		for _, form := range forms {
			got, err := parseRecord("r1", form)
			must(t, err)
			if got.State != Active || got.Notes.Owner != "ann" || !got.Pinned || got.Run != "RUN" || got.ActivatedAt.IsZero() || got.Docs[DocCertificate] == nil {
				t.Errorf("version %d is read as %+v", version, got)
			}
			if m, err := parseMove(k.History[len(k.History)-1]); err != nil || m.To != Active || m.Actor != "ann" {
				t.Errorf("history of version %d: %+v, %v", version, m, err)
			}
		}
	}
}

// A record that only a newer stoker reads is not moved, written to or served by this one; what it does not know
// of one that it reads is left alone.
func TestNewerRecordsAreLeftAlone(t *testing.T) {
	l, rdb := open(t)
	create(t, l, "r1", Active)
	create(t, l, "r2", Standby)
	rdb.HSet(ctx, keys.Release("r1"), "novelty", "kept", "doc:novelty", `{"a":1}`)
	must(t, l.Pin(ctx, "r1", true, ann))
	if got := rdb.HMGet(ctx, keys.Release("r1"), "novelty", "doc:novelty").Val(); got[0] != "kept" || got[1] != `{"a":1}` {
		t.Errorf("left %v", got)
	}

	rdb.HSet(ctx, keys.Release("r2"), "version", tasks.Ledgers.Last()+1)
	before := rdb.HGetAll(ctx, keys.Release("r2")).Val()
	_, get := l.Get(ctx, "r2")
	_, list := l.List(ctx)
	_, flip := l.Flip(ctx, "r2", Standby, ann)
	for what, err := range map[string]error{
		"get": get, "list": list, "flip": flip,
		"move": l.Move(ctx, "r2", Standby, Archived, ann), "pin": l.Pin(ctx, "r2", true, ann), "note": l.SetNotes(ctx, "r2", Notes{}, ann),
		"document": l.SetDoc(ctx, "r2", DocPurge, struct{}{}),
	} {
		if !errors.Is(err, tasks.ErrNewer) || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "up to version 1") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if diff := cmp.Diff(before, rdb.HGetAll(ctx, keys.Release("r2")).Val()); diff != "" {
		t.Errorf("it was changed (-before +after):\n%s", diff)
	}
	// Nor does a flip to another release take a newer one out of service.
	rdb.HSet(ctx, keys.Release("r1"), "version", tasks.Ledgers.Last()+1)
	rdb.HSet(ctx, keys.Release("r2"), "version", 1)
	if _, err := l.Flip(ctx, "r2", Standby, ann); !errors.Is(err, tasks.ErrNewer) {
		t.Errorf("flip away from a newer release: %v", err)
	}
	if id, err := l.Active(ctx); err != nil || id != "r1" {
		t.Errorf("%q is active, %v", id, err)
	}
	// Its namespace goes on receiving invalidations.
	if live, err := l.Live(ctx); err != nil || len(live) != 2 {
		t.Errorf("live: %v, %v", live, err)
	}
}

// A state that there is not yet is something newer.
func TestNewStates(t *testing.T) {
	l, rdb := open(t)
	create(t, l, "r1")
	rdb.HSet(ctx, keys.Release("r1"), "state", "hibernating")
	if _, err := l.Get(ctx, "r1"); !errors.Is(err, tasks.ErrNewer) || !strings.Contains(err.Error(), `"hibernating"`) {
		t.Errorf("got %v", err)
	}
}
