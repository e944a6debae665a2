package restore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// hashOf returns a hash of n fields that expire one after the other from a time on, less every third,
// which never does.
func hashOf(key string, n int, from int64) tasks.Entry {
	e := tasks.Entry{Key: key, Type: tasks.EntryHash}
	for i := range n {
		at := from + int64(i)
		if i%3 == 2 {
			at = 0
		}
		e.Items = append(e.Items, fmt.Sprintf("f%d", i), "v")
		e.FieldsExpireAt = append(e.FieldsExpireAt, at)
	}
	return e
}

// TestHashesWhoseFieldsExpireComeBack: what is past when they come back is left out, field by field, and the
// rest has its own times.
func TestHashesWhoseFieldsExpireComeBack(t *testing.T) {
	w := verbtest.New(t)
	redistest.NeedFieldExpiries(t, w.Client)
	later := time.Now().Add(time.Hour).UnixMilli()
	soon := time.Now().Add(1500 * time.Millisecond).UnixMilli()
	gone := tasks.Entry{Key: "gone", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{soon, soon - 1}}
	half := tasks.Entry{Key: "half", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2", "c", "3"}, FieldsExpireAt: []int64{soon, 0, later}, ExpiresAt: later}
	last := tasks.Entry{Key: "last", Type: tasks.EntryHash, Items: []string{"a", "1", "b", "2"}, FieldsExpireAt: []int64{soon, 0}}
	w.Activate("r1", "r2")
	w.Must(w.Cache.Write(t.Context(), "r1", []tasks.Entry{gone, half, last, hashOf("packed", 20, later), hashOf("table", 700, later), hashOf("big", 5000, later)}))
	before := w.Entries("r1")
	w.Archive("r1")
	redistest.Eventually(t, "the first fields to expire", func() bool { return time.Now().UnixMilli() > soon })

	got, err := restore.New(rooms(w, nil)).Drill(t.Context(), verbtest.NewJob("drill"), drillR1)
	w.Must(err)
	if !got.Good || got.ExpiredLeftOut != 1 {
		t.Errorf("drill %+v", got)
	}
	report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	w.Must(err)
	delete(before, "gone")
	for _, e := range []tasks.Entry{half, last} {
		left, _ := e.Left(soon)
		before[e.Key] = verbtest.Text(left)
	}
	wantEntries(t, w, "r1", before)
	if report.ExpiredLeftOut != 1 || w.State("r1") != release.Active {
		t.Errorf("report %+v", report)
	}
}

// older is a cache Redis that knows no expiries of fields.
type older struct{ restore.Cache }

func (older) FieldExpiries(context.Context) (bool, error) { return false, nil }

// TestFieldsThatTheServerDoesNotKnow: a hash whose fields expire does not come back as one whose fields stay.
func TestFieldsThatTheServerDoesNotKnow(t *testing.T) {
	w := verbtest.New(t)
	redistest.NeedFieldExpiries(t, w.Client)
	archive(w)
	r := rooms(w, nil)
	r.Cache = older{r.Cache}
	_, err := restore.New(r).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), "1 hashes of its archive, fields for one, have fields that expire") || w.State("r1") != release.Archived {
		t.Errorf("got %v, r1 is %s", err, w.State("r1"))
	}
}
