package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// noPrefixes is an Unlinker for logs without prefix targets.
type noPrefixes struct{}

func (noPrefixes) Unlink(context.Context, string, string) (int64, error) { return 0, nil }

// noTags is a TagCopier for releases without tags.
type noTags struct{}

func (noTags) CopyTags(context.Context, string, string) error { return nil }

// TestReap: the mark of a writer whose task is gone is replayed and closed, so that the release
// may go on; that of a writer at work stays.
func TestReap(t *testing.T) {
	ctx := context.Background()
	c := redistest.Mini(t)
	keys := tasks.KeysOf(app)
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, app)
	if err != nil {
		t.Fatal(err)
	}
	ledger := release.Open(c, keys)
	log := invalidation.Open(c, keys, invalidation.Config{FillLimit: time.Minute})
	applier := invalidation.NewApplier(log, c, tmpl, ledger.Live, noPrefixes{})
	if err := ledger.Create(ctx, release.Record{ID: "r1", Template: tasks.DefaultTemplate}, by); err != nil {
		t.Fatal(err)
	}
	for _, writer := range []string{"dead", "alive"} {
		if _, err := log.OpenMark(ctx, "r1", writer); err != nil {
			t.Fatal(err)
		}
	}
	post := tasks.Target{Kind: tasks.KindKey, Name: "post:1"}
	_, err = log.Record(ctx, tasks.Record{ID: "a", Calls: []tasks.Invalidation{{Targets: []tasks.Target{post}, By: by}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := applier.Apply(ctx); err != nil {
		t.Fatal(err)
	}
	for _, reader := range []string{"dead/r1", "alive/r1"} {
		if _, err := log.OpenReader(ctx, "r1", reader); err != nil {
			t.Fatal(err)
		}
	}
	c.Set(ctx, tmpl.Key("r1", "post:1"), "read before the edit, written after it", 0) // and then its writer died

	var forsaken []string
	down := errors.New("the store does not answer")
	marks := Marks{Ledger: ledger, Log: log, Applier: applier, Tags: noTags{},
		Gone: func(_ context.Context, id string) (bool, error) { return id == "dead", nil },
		Forsake: func(_ context.Context, reader string, m invalidation.Mark) error {
			forsaken = append(forsaken, fmt.Sprint(reader, m.Number > 0))
			return down
		}}
	if n, err := marks.Reap(ctx); n != 2 || !errors.Is(err, down) {
		t.Errorf("reaped %d, %v; want a writer and a reader, and what the store says", n, err)
	}
	if readers, err := log.OpenReaders(ctx); err != nil || len(readers) != 1 || readers["alive/r1"].Number == 0 || fmt.Sprint(forsaken) != "[dead/r1true]" {
		t.Errorf("open readers after the reap: %v, %v; forsaken %v", readers, err, forsaken)
	}
	if n := c.Exists(ctx, tmpl.Key("r1", "post:1")).Val(); n != 0 {
		t.Error("the dead writer's stale value is still there")
	}
	open, err := log.OpenMarks(ctx, "r1")
	if _, alive := open["alive"]; err != nil || !alive || len(open) != 1 {
		t.Errorf("open marks after the reap: %v, %v", open, err)
	}
}
