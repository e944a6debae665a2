package worker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

// memoryJob keeps its cursor for the next try.
type memoryJob struct {
	tasks.Alone
	cursor []byte
}

func (j *memoryJob) Load(_ context.Context, v any) (bool, error) {
	if j.cursor == nil {
		return false, nil
	}
	return true, json.Unmarshal(j.cursor, v)
}

func (j *memoryJob) Save(_ context.Context, v any) (err error) {
	j.cursor, err = json.Marshal(v)
	return err
}

type activation struct {
	*Activator
	ledger  *release.Ledger
	watches []tasks.Watch
	ids     []string
	swept   int
	fail    error // of the next enqueue
}

func newActivation(t *testing.T) *activation {
	t.Helper()
	a := &activation{ledger: release.Open(redistest.Mini(t), tasks.KeysOf(app))}
	a.Activator = &Activator{
		Ledger: a.ledger,
		Sweeper: sweepFunc(func(olderThan time.Duration) (int, error) {
			if olderThan != 0 {
				t.Errorf("swept what is older than %v, want everything", olderThan)
			}
			a.swept++
			return 0, nil
		}),
		Enqueue: func(_ context.Context, p tasks.Payload, opts ...asynq.Option) (string, error) {
			if err := a.fail; err != nil {
				a.fail = nil
				return "", err
			}
			a.watches = append(a.watches, p.(tasks.Watch))
			a.ids = append(a.ids, opts[0].Value().(string))
			return a.ids[len(a.ids)-1], nil
		},
	}
	return a
}

// release puts a release into a state by way of the moves that lead there.
func (a *activation) release(t *testing.T, id string, verdict string, states ...release.State) {
	t.Helper()
	ctx := context.Background()
	if err := a.ledger.Create(ctx, release.Record{ID: id, Template: tasks.DefaultTemplate}, by); err != nil {
		t.Fatal(err)
	}
	from := release.New
	for _, to := range states {
		if err := a.ledger.Move(ctx, id, from, to, by); err != nil {
			t.Fatal(err)
		}
		from = to
	}
	if verdict != "" {
		if err := a.ledger.SetDoc(ctx, id, release.DocCertificate, map[string]string{"verdict": verdict}); err != nil {
			t.Fatal(err)
		}
	}
}

func (a *activation) activate(id string, force bool) (Activation, error) {
	return a.Activate(context.Background(), &memoryJob{Alone: tasks.Alone("job-" + id)}, tasks.Activate{Release: id, Force: force, By: by})
}

func TestActivate(t *testing.T) {
	a := newActivation(t)
	a.release(t, "r1", "")
	got, err := a.activate("r1", false)
	if diff := cmp.Diff(Activation{Release: "r1"}, got); err != nil || diff != "" {
		t.Fatalf("first activation: %v (-want +got):\n%s", err, diff)
	}
	if len(a.watches) != 0 {
		t.Errorf("the first release is watched against nothing: %+v", a.watches)
	}

	a.release(t, "new", "")
	a.release(t, "standby", "pass", release.Standby)
	a.release(t, "warming", "pass", release.Warming)
	a.release(t, "failed", "fail", release.Warming, release.Ready)
	a.release(t, "uncertified", "", release.Warming, release.Ready)
	for id, want := range map[string]string{
		"new": "is new, not ready", "standby": "stoker rollback --to standby", "warming": "is warming: wait",
		"failed": `says "fail"`, "uncertified": "has no certificate", "r1": "active already",
	} {
		_, err := a.activate(id, false)
		if !errors.Is(err, tasks.ErrRefused) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "activate: ") {
			t.Errorf("activate %s: %v, want it refused with %q", id, err, want)
		}
	}
	if _, err := a.activate("nothing", false); !errors.Is(err, tasks.ErrNotFound) {
		t.Errorf("activate nothing: %v", err)
	}
	if active, _ := a.ledger.Active(context.Background()); active != "r1" {
		t.Errorf("after all refusals %q is active", active)
	}

	a.release(t, "r2", "pass", release.Warming, release.Ready)
	got, err = a.activate("r2", true)
	if diff := cmp.Diff(Activation{Release: "r2", Previous: "r1", Watch: "watch-after-job-r2"}, got); err != nil || diff != "" {
		t.Errorf("activation: %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]tasks.Watch{{Release: "r2", Before: "r1", By: by}}, a.watches); diff != "" {
		t.Errorf("watches (-want +got):\n%s", diff)
	}
	got, err = a.activate("failed", true)
	if err != nil || !got.Forced || got.Previous != "r2" {
		t.Errorf("forced activation: %+v, %v", got, err)
	}
	history, err := a.ledger.History(context.Background(), "failed")
	if err != nil || !strings.Contains(history[len(history)-1].Reason, "forced") {
		t.Errorf("the history does not tell that it was forced: %+v, %v", history, err)
	}
	if a.swept != 3 {
		t.Errorf("pending invalidations swept %d times before 3 flips", a.swept)
	}
}

// TestActivateRetry: a task that died between flip and watch ends its work when it is tried again.
func TestActivateRetry(t *testing.T) {
	a := newActivation(t)
	a.release(t, "r1", "")
	if _, err := a.activate("r1", false); err != nil {
		t.Fatal(err)
	}
	a.release(t, "r2", "pass", release.Warming, release.Ready)
	j := &memoryJob{Alone: "job"}
	p := tasks.Activate{Release: "r2", By: by}
	a.fail = errors.New("queue Redis is away")
	if _, err := a.Activate(context.Background(), j, p); err == nil {
		t.Fatalf("activation with a broken queue: %v", err)
	}
	for range 2 {
		got, err := a.Activate(context.Background(), j, p)
		if err != nil || got.Previous != "r1" || got.Watch == "" {
			t.Errorf("retry: %+v, %v", got, err)
		}
	}
	if ids := slices.Compact(slices.Clone(a.ids)); len(ids) != 1 {
		t.Errorf("retries watch under several IDs %q: several watches", ids)
	}
}

// sweepFunc is a Sweeper.
type sweepFunc func(olderThan time.Duration) (int, error)

func (f sweepFunc) Sweep(_ context.Context, olderThan time.Duration) (int, error) {
	return f(olderThan)
}
