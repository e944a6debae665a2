package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Operation is one thing that operators ask for over the API. The server holds who may, how much they may send
// and how answers look; what is asked for it does not know.
type Operation struct {
	ID     string // in the API's description
	Method string
	Path   string // with {names} of members of the input
	Scope  Scope
	Long   bool   // may take minutes, not seconds
	Says   string // what it does, for people
	Goes   bool   // on as a task: it is answered with an [Accepted]
	// Do carries it out. in is a JSON object: the body's members, those that the path names and, of a GET,
	// those of the query, both as strings. The answer is encoded as JSON; one that is [Accepted] goes on as
	// a task.
	Do func(ctx context.Context, in []byte, by tasks.By) (any, error)
}

// Accepted is the answer of an operation that goes on when it is given.
type Accepted interface {
	// StatusURL is where one can read how far it has come.
	StatusURL() string
}

// How long an operation may take.
const (
	operationLimit = 30 * time.Second
	longLimit      = 15 * time.Minute
)

// operations adds the addresses of operations, each behind the scope it needs. methods are those that
// paths have already; the others of each path are refused.
func (a *api) operations(mux *router, g *guard, all []Operation, methods map[string][]string) {
	for _, op := range all {
		methods[op.Path] = append(methods[op.Path], op.Method)
		mux.Handle(op.Method+" "+op.Path, g.need(func(*http.Request) Scope { return op.Scope }, a.handle(func(w http.ResponseWriter, r *http.Request) error {
			return a.carryOut(w, r, op)
		})))
	}
	for _, path := range slices.Sorted(maps.Keys(methods)) {
		a.otherMethods(mux, path, methods[path])
	}
}

// otherMethods answers the methods that a path is not for.
func (a *api) otherMethods(mux *router, path string, methods []string) {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	allow := strings.Join(methods, ", ")
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		newProblem(http.StatusMethodNotAllowed, "%s is not for %s: use %s.", r.URL.Path, r.Method, allow).write(w)
	})
}

// carryOut has an operation carried out. One that writes is carried out to its end, also when its client
// hangs up: who asks again with the same idempotency key finds the answer.
func (a *api) carryOut(w http.ResponseWriter, r *http.Request, op Operation) error {
	in, reason, err := readInput(w, r, op.Path)
	if err != nil {
		return err
	}
	by := tasks.By{Actor: actorOf(r).name, Reason: reason}
	if err := by.Validate(); err != nil {
		return operationProblem(err)
	}
	ctx, limit := r.Context(), operationLimit
	if op.Long {
		limit = longLimit
	} else if !safe(r.Method) {
		ctx = context.WithoutCancel(ctx)
	}
	// Longer than the operation: its error is to be answered, too.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + requestLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reply, err := a.replyOnce(ctx, w, r, in, func() (reply, error) { return replyOf(op.Do(ctx, in, by)) })
	if err != nil {
		return err
	}
	status := http.StatusOK
	if reply.At != "" {
		status = http.StatusAccepted
		w.Header().Set("Location", reply.At)
	}
	answer(w, callType, status, reply.Body)
	return nil
}

// reply is what an operation is answered with.
type reply struct {
	Body json.RawMessage `json:"body"`
	At   string          `json:"at,omitempty"` // where it goes on
}

func replyOf(out any, err error) (r reply, _ error) {
	if err != nil {
		return r, operationProblem(err)
	}
	if on, ok := out.(Accepted); ok {
		r.At = on.StatusURL()
	}
	r.Body, err = json.Marshal(out)
	r.Body = secretURL.ReplaceAll(r.Body, []byte("${1}"+hidden+"@"))
	return r, err
}

// replyOnce does it, or finds that the idempotency key has been answered.
func (a *api) replyOnce(ctx context.Context, w http.ResponseWriter, r *http.Request, in []byte, do func() (reply, error)) (reply, error) {
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 || safe(r.Method) {
		return do()
	}
	if len(keys) > 1 {
		return reply{}, malformed("%d Idempotency-Key headers: send one.", len(keys))
	}
	same := fmt.Appendf(nil, "%s %s\n%s", r.Method, r.URL.Path, in)
	kept, replayed, err := a.once.once(ctx, actorOf(r).name, keys[0], same, func() (memo, error) {
		one, err := do()
		return memo{Reply: &one}, err
	})
	if err != nil {
		return reply{}, err
	}
	if kept.Reply == nil {
		return reply{}, invalid("Idempotency-Key %q was another request's in the last 24 hours: take a new key for a new request.", keys[0])
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	return *kept.Reply, nil
}

var pathName = regexp.MustCompile(`\{([a-z_]+)\}`)

// readInput reads an operation's input as one JSON object, without the reason, which is for the record.
func readInput(w http.ResponseWriter, r *http.Request, path string) (in []byte, reason string, err error) {
	members := map[string]json.RawMessage{}
	if safe(r.Method) {
		if err := addQuery(members, r.URL.RawQuery); err != nil {
			return nil, "", err
		}
	} else if err := addBody(members, w, r); err != nil {
		return nil, "", err
	}
	if raw, ok := members["reason"]; ok && !safe(r.Method) {
		if json.Unmarshal(raw, &reason) != nil {
			return nil, "", malformed("reason must be a string, not %.40s.", raw)
		}
		delete(members, "reason")
	}
	for _, m := range pathName.FindAllStringSubmatch(path, -1) {
		if _, twice := members[m[1]]; twice {
			return nil, "", malformed("%s stands in the address: leave it out of what you send.", m[1])
		}
		if members[m[1]], err = json.Marshal(r.PathValue(m[1])); err != nil {
			return nil, "", err
		}
	}
	in, err = json.Marshal(members) // sorted, so that the same input is the same text
	return in, reason, err
}

func addQuery(members map[string]json.RawMessage, query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return malformed("The query cannot be read: %v.", err)
	}
	for name, given := range values {
		if len(given) > 1 {
			return malformed("%s is given %d times: give it once.", name, len(given))
		}
		if members[name], err = json.Marshal(given[0]); err != nil {
			return err
		}
	}
	return nil
}

// addBody reads a body that is an object; none is an empty one.
func addBody(members map[string]json.RawMessage, w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIBody))
	if err != nil {
		return unreadable(err)
	}
	if len(body) == 0 {
		return nil
	}
	given := r.Header.Get("Content-Type")
	if kind, _, _ := mime.ParseMediaType(given); kind != callType {
		return newProblem(http.StatusUnsupportedMediaType, "Content-Type %q: use %s.", given, callType)
	}
	reader, err := newCallReader(body)
	if err != nil {
		return err
	}
	return reader.object("the body", func(name string) error {
		var raw json.RawMessage
		if err := reader.dec.Decode(&raw); err != nil {
			return malformed("The body is not JSON: %v.", err)
		}
		members[name] = raw
		return nil
	})
}

// operationProblem is the answer to an operation's error, in its own words: those who may operate or view are told
// what a command would tell them, and, by the cause, with which exit code.
func operationProblem(err error) *problem {
	var known *problem
	if errors.As(err, &known) {
		return known
	}
	status := http.StatusInternalServerError
	var network net.Error
	switch {
	case errors.Is(err, tasks.ErrInvalid):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, tasks.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, tasks.ErrRefused), errors.Is(err, tasks.ErrNotFresh):
		status = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	case errors.As(err, &network), errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolTimeout):
		status = http.StatusServiceUnavailable
	}
	f := tasks.NewFailure(err)
	p := newProblem(status, "%s", redactText(f.Error))
	p.Cause = f.Cause
	return p
}
