package health

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/release"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	// A pool goes on dialling a dead server for a second after its client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const testApp = "site"

var testBy = tasks.By{Actor: "ann", Reason: "test"}

// defaults returns the configuration of an empty environment.
func defaults(t testing.TB) Config {
	t.Helper()
	var cfg Config
	if err := envconfig.Process("STOKER_TEST_EMPTY", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// newMonitor returns a monitor over two Redises with a ledger and a log.
func newMonitor(t testing.TB, queue, cache redis.UniversalClient, change func(*Deps)) *Monitor {
	t.Helper()
	keys := tasks.KeysOf(testApp)
	d := Deps{
		App: testApp, Keys: keys, Queue: queue, Cache: cache,
		Ledger: release.Open(queue, keys),
		Log:    invalidation.Open(queue, keys, invalidation.Config{}),
		Freshness: func(context.Context) (freshness.Report, error) {
			return freshness.Report{At: time.Now(), Places: []freshness.Result{{Release: "r2", Day: freshness.Tally{Compared: 10, Nines: 0.5}}}}, nil
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if change != nil {
		change(&d)
	}
	m := New(d, defaults(t))
	t.Cleanup(m.Close)
	return m
}

// addRelease records a release and, when asked, makes it the active one.
func addRelease(t testing.TB, l *release.Ledger, id string, active bool) {
	t.Helper()
	ctx := context.Background()
	r := release.Record{ID: id, Template: tasks.DefaultTemplate}
	if err := l.Create(ctx, r, testBy); err != nil {
		t.Fatal(err)
	}
	if !active {
		return
	}
	if _, err := l.Flip(ctx, id, release.New, testBy); err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, checks []Check, name string) Check {
	t.Helper()
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q among %v", name, checks)
	return Check{}
}
