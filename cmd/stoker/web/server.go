package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

// Limits that keep slow or greedy clients from holding the server.
const (
	requestLimit  = 15 * time.Second
	responseLimit = time.Minute
	headerBytes   = 32 << 10
	stopLimit     = 10 * time.Second // for requests under way when the server stops
)

// patience is how long a client may take for its part of a request.
type patience struct{ header, request, response, idle time.Duration }

var usualPatience = patience{header: 5 * time.Second, request: requestLimit, response: responseLimit, idle: 2 * time.Minute}

// Ledger is what the console reads of the releases; [release.Ledger] is one.
type Ledger interface {
	// List returns every release, newest first.
	List(ctx context.Context) ([]release.Record, error)
	// Get returns one release, or an error that wraps [tasks.ErrNotFound].
	Get(ctx context.Context, id string) (release.Record, error)
	// Active returns the active release's ID, "" when there is none.
	Active(ctx context.Context) (string, error)
	// History returns a release's moves, oldest first.
	History(ctx context.Context, id string) ([]release.Move, error)
}

var _ Ledger = (*release.Ledger)(nil)

// LogStatus is the state of the invalidation log.
type LogStatus struct {
	Pending       int           // recorded, not yet applied everywhere
	OldestPending time.Duration // age of the oldest of them
	Last          int64         // the last number given
	Targets       int64         // remembered
}

// Pending is an invalidation that is not yet applied everywhere.
type Pending struct {
	Number  int64
	Age     time.Duration
	Targets int            // how many it names
	Sample  []tasks.Target // some of them
	By      tasks.By
}

// Readiness says what a rollback would do now.
type Readiness struct {
	Ready  bool
	To     string        // the release that would come back; "" when there is none
	Reason string        // how it would come back, or why it would not
	Takes  time.Duration // about how long it would take; 0 when not known
}

// Deps are what the console reads from. Its functions are safe for concurrent use and return
// when their context ends; all but Now are required.
type Deps struct {
	App    string
	Queue  redis.UniversalClient // the server never closes them
	Cache  redis.UniversalClient
	Ledger Ledger
	// Status reads the log's figures.
	Status func(ctx context.Context) (LogStatus, error)
	// Lag says how long recent invalidations took.
	Lag func(ctx context.Context) (invalidation.Lag, error)
	// Pending returns up to n invalidations not yet applied, oldest first.
	Pending func(ctx context.Context, n int) ([]Pending, error)
	// Recent returns what became of the last n calls, newest first.
	Recent func(ctx context.Context, n int) ([]tasks.Applied, error)
	// Usage counts a release's namespace. It may take long: the console remembers the answer.
	Usage func(ctx context.Context, release string) (Usage, error)
	// Health returns the newest health report as JSON, nil when there is none yet.
	Health func(ctx context.Context) (json.RawMessage, error)
	// Freshness returns the freshness monitor's newest report as JSON, nil when there is none yet.
	Freshness func(ctx context.Context) (json.RawMessage, error)
	// Rollback says whether a rollback would be safe now.
	Rollback func(ctx context.Context) (Readiness, error)
	// Invalidate records a call, as [tasks.Client.Invalidate] does.
	Invalidate func(ctx context.Context, call tasks.Invalidation) (tasks.Receipt, error)
	// Applied returns what became of a record; of a pending one the number alone, of one that
	// nobody knows an error that wraps [tasks.ErrNotFound].
	Applied func(ctx context.Context, number int64) (tasks.Applied, Stage, error)
	// Braked says in words which work goes slower than its pace; nil means that none ever does.
	Braked func(ctx context.Context) ([]string, error)
	// Reads are what the pages read besides.
	Reads Reads
	// Operator carries out what people ask for; nil means that the pages only show.
	Operator Operator
	// Collectors are served beside the console's own metrics.
	Collectors []prometheus.Collector
	Log        *slog.Logger
	Now        func() time.Time // nil: the system's clock
}

// Server is the console. Make one with [New].
type Server struct {
	deps    Deps
	cfg     Config
	guard   *guard
	oidc    *provider // nil without one
	counts  *counts
	lanes   *lanes
	pages   *pages
	streams *streams
	handler http.Handler
	limits  patience

	patterns []string // of its routes
}

// New returns a console. It reads the tokens file; it does not listen yet.
func New(deps Deps, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	var tokens []token
	if cfg.WebTokensFile != "" {
		var err error
		if tokens, err = readTokens(cfg.WebTokensFile); err != nil {
			return nil, err
		}
	}
	sessions := &sessions{queue: deps.Queue, keys: tasks.KeysOf(deps.App), life: cfg.WebSession, secure: cfg.secure()}
	guard, err := newGuard(cfg, tokens, sessions, deps.Log, deps.Now)
	if err != nil {
		return nil, err
	}
	oidc, err := newProvider(cfg, sessions)
	if err != nil {
		return nil, err
	}
	s := &Server{
		deps:    deps,
		cfg:     cfg,
		guard:   guard,
		oidc:    oidc,
		counts:  newCounts(deps.Usage, deps.Now),
		lanes:   &lanes{app: deps.App, inspector: asynq.NewInspectorFromRedisClient(deps.Queue)},
		pages:   newPages(deps.Now),
		limits:  usualPatience,
		streams: newStreams(),
	}
	guard.signIn = s.askToSignIn
	routes, err := s.routes()
	if err != nil {
		return nil, err
	}
	s.handler = s.guard.outer(routes)
	return s, nil
}

// routes puts every address behind the scope it needs.
func (s *Server) routes() (http.Handler, error) {
	readOnly, err := newQueuesUI(s.deps.Queue, true)
	if err != nil {
		return nil, err
	}
	full, err := newQueuesUI(s.deps.Queue, false)
	if err != nil {
		return nil, err
	}
	queues := func(w http.ResponseWriter, r *http.Request) {
		if actorOf(r).scope.allows(Operate) {
			full.ServeHTTP(w, r)
			return
		}
		readOnly.ServeHTTP(w, r)
	}
	view := func(*http.Request) Scope { return View }
	byMethod := func(r *http.Request) Scope {
		if safe(r.Method) {
			return View
		}
		return Operate
	}

	mux := &router{mux: http.NewServeMux()}
	for path, page := range map[string]http.Handler{
		"/{$}":                s.live(refreshed, s.showOverview),
		"/releases":           s.live(refreshed, s.showReleases),
		"/releases/{id}":      s.live(refreshed, s.showRelease),
		"/releases/{id}/note": http.HandlerFunc(s.showNote),
		"/invalidations":      s.live(refreshed, s.showFeed),
		"/health":             s.live(seldom, s.showHealth),
		"/schedule":           s.live(seldom, s.showSchedule),
	} {
		mux.Handle("GET "+path, s.guard.need(view, page))
	}
	mux.Handle("GET /assets/", s.pages.assets())
	s.signInRoutes(mux)
	s.actionRoutes(mux)
	mux.Handle("GET /metrics", s.guard.need(view, s.metrics()))
	mux.Handle(queuesRoot+"/", s.guard.need(byMethod, http.HandlerFunc(queues)))
	newAPI(s.deps).routes(mux, s.guard)
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /readyz", newProbe(s.deps.Queue, s.deps.Cache))
	s.patterns = mux.patterns
	return mux.mux, nil
}

// Handler returns the whole console, guard included.
func (s *Server) Handler() http.Handler { return s.handler }

// Run listens and serves until ctx ends, then lets requests under way finish, for up to 10 s.
func (s *Server) Run(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.cfg.WebAddr)
	if err != nil {
		return fmt.Errorf("console: %w: choose another address (STOKER_WEB_ADDR)", err)
	}
	return s.Serve(ctx, listener)
}

// Serve is [Server.Run] on a listener that is open already, and closes it.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	cfg := s.cfg
	cfg.WebAddr = listener.Addr().String()
	if err := cfg.Validate(); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.limits.header,
		ReadTimeout:       s.limits.request,
		WriteTimeout:      s.limits.response,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelWarn),
	}
	s.deps.Log.InfoContext(ctx, "console listens", "addr", listener.Addr().String(), "tokens", len(s.guard.tokens))
	server.RegisterOnShutdown(s.streams.stop)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("console: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("stop console: %w", err), server.Close())
	}
	return nil
}
