package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/warm/refresh"
)

// invalidateIn is a call as the API reads it.
type invalidateIn struct {
	Targets []target `json:"targets"`
	Refresh bool     `json:"refresh,omitempty"`
}

// target is a target as the API reads it: one member, that names what it is of.
type target tasks.Target

// encodedTarget ends the member's name of a target that is no text.
const encodedTarget = "_base64"

// MarshalJSON implements [json.Marshaler].
func (t target) MarshalJSON() ([]byte, error) {
	if name := string(t.Name); utf8.ValidString(name) {
		return json.Marshal(map[string]string{string(t.Kind): name})
	}
	return json.Marshal(map[string]string{string(t.Kind) + encodedTarget: base64.StdEncoding.EncodeToString([]byte(t.Name))})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (t *target) UnmarshalJSON(raw []byte) error {
	var members map[string]string
	if err := json.Unmarshal(raw, &members); err != nil || len(members) != 1 {
		return fmt.Errorf("target %.40s: give exactly one of key, tag, prefix or their _base64", raw)
	}
	for name, value := range members {
		kind, encoded := strings.CutSuffix(name, encodedTarget)
		if encoded {
			plain, err := base64.StdEncoding.Strict().DecodeString(value)
			if err != nil {
				return fmt.Errorf("%s %q is not base64: use the standard alphabet with padding", name, value)
			}
			value = string(plain)
		}
		*t = target{Kind: tasks.Kind(kind), Name: tasks.Bytes(value)}
	}
	return nil
}

func targetsOf(call tasks.Invalidation) (all []target) {
	for _, t := range call.Targets {
		all = append(all, target(t))
	}
	return all
}

func (in invalidateIn) call(by tasks.By) tasks.Invalidation {
	call := tasks.Invalidation{Refresh: in.Refresh, By: by}
	for _, t := range in.Targets {
		call.Targets = append(call.Targets, tasks.Target(t))
	}
	return call
}

var recordOp = operation[invalidateIn, tasks.Receipt]{
	id: "invalidate", says: "Record a call",
	method: "POST", path: "/v1/invalidations", scope: web.Invalidate, builtin: true,
	do: func(ctx context.Context, r *rooms, in invalidateIn, by tasks.By) (tasks.Receipt, error) {
		return r.client.Invalidate(ctx, in.call(by))
	},
}

// callNumber names a call.
type callNumber struct {
	Number int64 `json:"number,string"`
}

// outcome is what became of a call, as the API answers it.
type outcome struct {
	Number   int64            `json:"number"`
	Status   web.Stage        `json:"status"`
	Recorded time.Time        `json:"recorded,omitzero"`
	Applied  time.Time        `json:"applied,omitzero"`
	Targets  int              `json:"targets,omitempty"`
	Removed  map[string]int64 `json:"removed,omitempty"`
	Call     *tasks.Applied   `json:"call,omitempty"` // for who may view
}

// applied is what is known of a call that is applied: an app's token is not told who asked for what.
func (o outcome) applied() tasks.Applied {
	if o.Call != nil {
		return *o.Call
	}
	return tasks.Applied{Number: o.Number, Recorded: o.Recorded, At: o.Applied, Targets: o.Targets, Namespaces: o.Removed}
}

var outcomeOp = operation[callNumber, outcome]{
	id: "status", says: "What became of an invalidation",
	method: "GET", path: "/v1/invalidations/{number}", builtin: true,
	do: func(ctx context.Context, r *rooms, in callNumber, _ tasks.By) (outcome, error) {
		applied, stage, err := r.outcome(ctx, in.Number)
		return outcome{Number: in.Number, Status: stage, Call: &applied}, err
	},
}

// lastCalls asks for the last N calls.
type lastCalls struct {
	N int `json:"n,string"`
}

func (in lastCalls) validate() error {
	if in.N < 1 || in.N > 10_000 {
		return fmt.Errorf("%w: -n %d: use 1 to 10000", tasks.ErrInvalid, in.N)
	}
	return nil
}

var invalidationsOp = operation[lastCalls, []tasks.Applied]{
	id: "invalidations", says: "What was invalidated last, by whom, and what it removed: n calls, newest first",
	method: "GET", path: "/v1/invalidations", scope: web.View,
	do: func(ctx context.Context, r *rooms, in lastCalls, _ tasks.By) ([]tasks.Applied, error) {
		if err := in.validate(); err != nil {
			return nil, err
		}
		return tasks.ListApplied(ctx, r.queue, r.keys, in.N)
	},
}

// preview is what an invalidation would do to one namespace.
type preview struct {
	invalidation.Preview
	// Refresh is what would be reloaded, when that was asked for.
	Refresh *refresh.Preview `json:"refresh,omitempty"`
}

var previewOp = operation[invalidateIn, []preview]{
	id: "planInvalidation", says: "What an invalidation would remove from each live release, and have reloaded",
	method: "POST", path: "/v1/invalidation-plan", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in invalidateIn, by tasks.By) ([]preview, error) {
		call := in.call(by)
		if err := call.Validate(); err != nil {
			return nil, err
		}
		live, err := r.ledger.Live(ctx)
		if err != nil {
			return nil, err
		}
		all := []preview{}
		for _, id := range live {
			p, err := r.applier.Preview(ctx, id, call.Targets)
			if err != nil {
				return nil, err
			}
			one := preview{Preview: p}
			if call.Refresh {
				p, err := r.refresh.Preview(ctx, id, call.Targets)
				if err != nil {
					return nil, err
				}
				one.Refresh = &p
			}
			all = append(all, one)
		}
		return all, nil
	},
}
