package web

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/alphanode/stoker/tasks"
)

// openAPI describes what app servers ask for.
//
//go:embed openapi.json
var openAPI []byte

// operationsAPI describes what operators ask for; the operations' types tell it.
//
//go:embed operations.json
var operationsAPI []byte

const (
	apiRoot     = "/v1/"
	apiCalls    = "/v1/invalidations"
	maxAPIBody  = 4 << 20 // bytes of a call or a batch
	recordLimit = 15 * time.Second
	callType    = "application/json"
	streamType  = "application/x-ndjson"
)

// Stage says how far an invalidation has come.
type Stage string

// The stages.
const (
	StagePending Stage = "pending" // recorded: it cannot be lost any more
	StageApplied Stage = "applied" // removed from every live release
)

// api is what app servers talk to. It answers in JSON, and says no with a [problem].
type api struct {
	invalidate func(context.Context, tasks.Invalidation) (tasks.Receipt, error)
	applied    func(context.Context, int64) (tasks.Applied, Stage, error)
	once       *idempotency
	log        *slog.Logger
}

func newAPI(deps Deps) *api {
	return &api{
		invalidate: deps.Invalidate, applied: deps.Applied, log: deps.Log,
		once: &idempotency{queue: deps.Queue, keys: tasks.KeysOf(deps.App), log: deps.Log},
	}
}

// routes adds the API's addresses, each behind the scope it needs.
func (a *api) routes(mux *router, g *guard, operations []Operation) {
	scope := func(s Scope) func(*http.Request) Scope { return func(*http.Request) Scope { return s } }
	mux.Handle("POST "+apiCalls, g.need(scope(Invalidate), a.handle(a.accept)))
	mux.Handle("GET "+apiCalls+"/{number}", g.need(scope(signedIn), a.handle(a.show)))
	mux.Handle("GET "+apiRoot+"openapi.json", g.need(scope(signedIn), a.handle(describe)))
	a.operations(mux, g, operations, map[string][]string{apiCalls: {http.MethodPost}})
	a.otherMethods(mux, apiCalls+"/{number}", []string{http.MethodGet})
	a.otherMethods(mux, apiRoot+"openapi.json", []string{http.MethodGet})
	mux.HandleFunc(apiRoot, func(w http.ResponseWriter, r *http.Request) {
		newProblem(http.StatusNotFound, "Nothing is at %s: see %sopenapi.json for what there is.", r.URL.Path, apiRoot).write(w)
	})
}

// handle answers the error of a handler that has not answered itself.
func (a *api) handle(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := do(w, r)
		if err == nil {
			return
		}
		p := problemOf(err)
		if p.Status == http.StatusServiceUnavailable && !errors.As(err, new(*problem)) {
			a.log.WarnContext(r.Context(), "API request failed", "path", r.URL.Path, "error", err)
		}
		p.write(w)
	})
}

func describe(w http.ResponseWriter, _ *http.Request) error {
	whole, err := wholeAPI()
	if err != nil {
		return err
	}
	answer(w, "application/json", http.StatusOK, whole)
	return nil
}

// wholeAPI puts both parts of the API's description together.
var wholeAPI = sync.OnceValues(func() (whole map[string]any, _ error) {
	var operations map[string]any
	if err := errors.Join(json.Unmarshal(openAPI, &whole), json.Unmarshal(operationsAPI, &operations)); err != nil {
		return nil, fmt.Errorf("read the API's description: %w", err)
	}
	merge(whole, operations)
	return whole, nil
})

// merge puts the members of from into to, objects member by member.
func merge(to, from map[string]any) {
	for name, value := range from {
		more, object := value.(map[string]any)
		have, there := to[name].(map[string]any)
		if object && there {
			merge(have, more)
			continue
		}
		to[name] = value
	}
}

// accepted answers a call.
type accepted struct {
	Number    int64  `json:"number"`
	Targets   int    `json:"targets"`
	StatusURL string `json:"status_url"`
}

// accept records a call, a batch or a stream of calls.
func (a *api) accept(w http.ResponseWriter, r *http.Request) error {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "Content-Encoding %q: send the body as it is.", coding)
	}
	given := r.Header.Get("Content-Type")
	switch kind, _, _ := mime.ParseMediaType(given); kind {
	case callType:
		return a.acceptCalls(w, r)
	case streamType:
		return a.acceptStream(w, r)
	default:
		return newProblem(http.StatusUnsupportedMediaType, "Content-Type %q: use %s for a call or a batch, %s for one call a line.", given, callType, streamType)
	}
}

func (a *api) acceptCalls(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIBody))
	if err != nil {
		return unreadable(err)
	}
	calls, batch, err := readBody(body)
	if err != nil {
		return err
	}
	who := actorOf(r).name
	for i := range calls {
		calls[i].Actor = who
		if err := calls[i].Validate(); err != nil {
			return err
		}
	}
	// A client that hangs up, and asks again with the same idempotency key, must find the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordLimit)
	defer cancel()
	numbers, err := a.recordOnce(ctx, w, r.Header.Values("Idempotency-Key"), body, calls)
	if err != nil {
		return err
	}
	all := make([]accepted, len(calls))
	for i, call := range calls {
		all[i] = accepted{numbers[i], len(call.Targets), fmt.Sprintf("%s/%d", apiCalls, numbers[i])}
	}
	if batch {
		answer(w, callType, http.StatusAccepted, map[string]any{"calls": all})
		return nil
	}
	w.Header().Set("Location", all[0].StatusURL)
	answer(w, callType, http.StatusAccepted, all[0])
	return nil
}

// recordOnce records calls, or finds that the idempotency key has been answered.
func (a *api) recordOnce(ctx context.Context, w http.ResponseWriter, keys []string, body []byte, calls []tasks.Invalidation) ([]int64, error) {
	switch len(keys) {
	case 0:
		return a.record(ctx, calls)
	case 1:
	default:
		return nil, malformed("%d Idempotency-Key headers: send one.", len(keys))
	}
	kept, replayed, err := a.once.once(ctx, calls[0].Actor, keys[0], body, func() (memo, error) {
		numbers, err := a.record(ctx, calls)
		return memo{Numbers: numbers}, err
	})
	if err == nil && len(kept.Numbers) != len(calls) {
		return nil, fmt.Errorf("idempotency key %q: %d numbers for %d calls", keys[0], len(kept.Numbers), len(calls))
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	return kept.Numbers, err
}

// record records calls side by side, so that they share round trips, and returns their numbers.
func (a *api) record(ctx context.Context, calls []tasks.Invalidation) ([]int64, error) {
	numbers := make([]int64, len(calls))
	var g errgroup.Group
	for i, call := range calls {
		g.Go(func() (err error) {
			numbers[i], err = a.recordOne(ctx, call)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return numbers, nil
}

// recordOne records a call. One that could not be enqueued is recorded, and a sweep applies it.
func (a *api) recordOne(ctx context.Context, call tasks.Invalidation) (int64, error) {
	receipt, err := a.invalidate(ctx, call)
	if errors.Is(err, tasks.ErrNotEnqueued) {
		a.log.WarnContext(ctx, "invalidation left to the sweep", "number", receipt.Number, "error", err)
		err = nil
	}
	return receipt.Number, err
}

// outcome answers what became of a call. An app's token may ask for any number: it is not told who
// asked, and for what.
type outcome struct {
	Number   int64            `json:"number"`
	Status   Stage            `json:"status"`
	Recorded time.Time        `json:"recorded"`
	Applied  *time.Time       `json:"applied,omitempty"`
	TookMS   *float64         `json:"took_ms,omitempty"` // of the removal itself, in the slowest release
	Targets  *int             `json:"targets,omitempty"`
	Removed  map[string]int64 `json:"removed,omitzero"` // release → entries
	// Call is all that is known of it, for who may view.
	Call *tasks.Applied `json:"call,omitempty"`
}

// slowest returns the longest of the durations.
func slowest(took map[string]time.Duration) time.Duration {
	var longest time.Duration
	for _, d := range took {
		longest = max(longest, d)
	}
	return longest
}

func (a *api) show(w http.ResponseWriter, r *http.Request) error {
	number, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
	if err != nil || number <= 0 {
		return malformed("%q is not a number of an invalidation: use the number that POST %s answered.", r.PathValue("number"), apiCalls)
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordLimit)
	defer cancel()
	applied, stage, err := a.applied(ctx, number)
	if errors.Is(err, tasks.ErrNotFound) {
		return newProblem(http.StatusNotFound, "No invalidation has the number %d: it was never given, or was applied so long ago that only the newest 20,000 are still known.", number)
	}
	if err != nil {
		return err
	}
	o := outcome{Number: number, Status: stage, Recorded: time.UnixMicro(number).UTC()}
	if stage == StageApplied {
		took := float64(slowest(applied.Took).Microseconds()) / 1000
		o.Applied, o.TookMS, o.Targets, o.Removed = &applied.At, &took, &applied.Targets, applied.Namespaces
		if actorOf(r).scope.allows(View) {
			o.Call = &applied
		}
	}
	answer(w, "application/json", http.StatusOK, o)
	return nil
}
