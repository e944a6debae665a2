package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/alphanode/stoker/cmd/stoker/remote"
	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
)

// operation is one thing that operators ask for, by a command or over the API: the command line and the API
// are two ways to the same do. In and Out are plain data that survives JSON; members of In that the path
// or, of a GET, the query names are strings there.
type operation[In, Out any] struct {
	id     string // in the API's description
	says   string // what it does, for people
	method string
	path   string
	scope  web.Scope
	long   bool // may take minutes: it reads an archive, or asks a site
	// builtin is one that package web serves to app servers by itself.
	builtin bool
	do      func(ctx context.Context, r *rooms, in In, by tasks.By) (Out, error)
}

// endpoint is an operation of any type.
type endpoint interface {
	route() remote.Route
	// direct carries it out by these rooms; in and out are an In and a pointer to an Out.
	direct(ctx context.Context, r *rooms, in, out any, by tasks.By) error
	// serve is how the API carries it out; false for what the API does by itself.
	serve(r *rooms) (web.Operation, bool)
}

// none is what an operation takes, or answers, that needs nothing to be said.
type none struct{}

// port is where commands have operations carried out.
type port interface {
	// carryOut carries out an operation and decodes its answer into out. An error wraps the cause that the
	// operation gave it, and with it the exit code, wherever that was carried out.
	carryOut(ctx context.Context, e endpoint, in, out any) error
}

var (
	_ port = direct{}
	_ port = distant{}
)

// direct carries operations out in this process, which needs the Redises' credentials.
type direct struct {
	rooms *rooms
	by    tasks.By
}

func (d direct) carryOut(ctx context.Context, e endpoint, in, out any) error {
	return e.direct(ctx, d.rooms, in, out, d.by)
}

// distant has operations carried out by a `stoker web`, under the name of the token that it is shown.
type distant struct {
	client *remote.Client
	reason string
}

func (d distant) carryOut(ctx context.Context, e endpoint, in, out any) error {
	return d.client.Call(ctx, e.route(), in, d.reason, out)
}

// ask has an operation carried out.
func ask[In, Out any](ctx context.Context, p port, op operation[In, Out], in In) (out Out, err error) {
	err = p.carryOut(ctx, op, in, &out)
	return out, err
}

func (op operation[In, Out]) route() remote.Route {
	return remote.Route{Method: op.method, Path: op.path}
}

func (op operation[In, Out]) direct(ctx context.Context, r *rooms, in, out any, by tasks.By) (err error) {
	*out.(*Out), err = op.do(ctx, r, in.(In), by)
	return err
}

func (op operation[In, Out]) serve(r *rooms) (web.Operation, bool) {
	_, goes := any(*new(Out)).(web.Accepted)
	return web.Operation{
		ID: op.id, Method: op.method, Path: op.path, Scope: op.scope, Long: op.long, Says: op.says, Goes: goes,
		Do: func(ctx context.Context, raw []byte, by tasks.By) (any, error) {
			var in In
			dec := json.NewDecoder(bytes.NewReader(raw))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&in); err != nil {
				return nil, fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
			}
			return op.do(ctx, r, in, by)
		},
	}, !op.builtin
}

// endpoints are all operations, in the order in which people read them.
func endpoints() []endpoint {
	return []endpoint{
		statusOp, releasesOp, releaseOp, createOp, notesOp, noteOp, pinOp, unpinOp,
		warmOp, dryWarmOp, runOp, checkPlanOp,
		activateOp, rollbackOp,
		recordOp, outcomeOp, invalidationsOp, previewOp,
		archivesOp, snapshotOp, verifyOp, inspectOp, drillOp, expirePlanOp, expireOp,
		baselineOp, compareOp, comparePagesOp,
		latestHealthOp, healthOp, freshnessOp, lookOp, doctorOp,
		pauseOp, resumeOp, tellOp, enqueueTellOp,
		taskOp,
	}
}

// served are the operations of the API that package web does not know by itself.
func (r *rooms) served() []web.Operation {
	var all []web.Operation
	for _, e := range endpoints() {
		if op, ok := e.serve(r); ok {
			all = append(all, op)
		}
	}
	return all
}

// with calls do with where this command's operations are carried out: by the API that STOKER_API_URL names,
// else by this process, for which both Redises must answer.
func (c *cli) with(ctx context.Context, do func(port) error) error {
	return c.ported(ctx, true, do)
}

// ported is with; ping false is for what is to say itself which Redis does not answer.
func (c *cli) ported(ctx context.Context, ping bool, do func(port) error) error {
	far, err := loadRemote()
	if err != nil {
		return err
	}
	if far.Enabled() {
		client, err := remote.New(far, version)
		if err != nil {
			return err
		}
		defer client.Close()
		return do(distant{client, c.reason})
	}
	set, err := loadSettings()
	if err != nil {
		return err
	}
	r, err := wire(set, c.log(slog.LevelError), c.traces)
	if err != nil {
		return err
	}
	defer r.close()
	if ping {
		if err := r.ping(ctx); err != nil {
			return err
		}
	}
	return do(direct{r, c.by()})
}

// here refuses what the API cannot carry out when commands are to go by it.
func here(name string) error {
	far, err := loadRemote()
	if err != nil {
		return err
	}
	if far.Enabled() {
		return fmt.Errorf("%w: `stoker %s` works on the Redises itself and cannot go by the API at STOKER_API_URL: unset STOKER_API_URL and set STOKER_REDIS_URL where it runs", tasks.ErrInvalid, name)
	}
	return nil
}

// queued is a task that was enqueued.
type queued struct {
	Task  string   `json:"task"`
	Type  string   `json:"type"`
	URL   string   `json:"status_url"`
	Notes []string `json:"notes,omitempty"` // what the asker should know
}

// StatusURL implements [web.Accepted].
func (q queued) StatusURL() string { return q.URL }

var _ web.Accepted = queued{}

// enqueue has a worker do it.
func (r *rooms) enqueue(ctx context.Context, p tasks.Payload, notes ...string) (queued, error) {
	if err := p.Validate(); err != nil {
		return queued{}, err
	}
	id, err := r.client.Enqueue(ctx, p)
	return queued{Task: id, Type: p.TaskType(), URL: "/v1/tasks/" + p.TaskType() + "/" + id, Notes: notes}, err
}

// the is an operation's choice of a release.
type the struct {
	ID string `json:"id"`
}

// paced is a choice of a release and of the work's pace.
type paced struct {
	ID   string     `json:"id"`
	Pace tasks.Pace `json:"pace,omitempty"`
}
