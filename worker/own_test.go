package worker_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/source"
	"github.com/alphanode/stoker/worker/warm/source/sourcetest"
)

// prices is a source of a shop's own: its price list.
type prices struct{ currency string }

// openPrices is how the plan's `custom: {source: prices, with: {currency: EUR}}` is opened.
func openPrices(_ string, with map[string]string) (source.Source, error) {
	return prices{with["currency"]}, nil
}

// Keys names every entry that there is.
func (p prices) Keys(_ context.Context, fn func(key string) error) error {
	for id := range 100 {
		if err := fn(fmt.Sprint("price:", id)); err != nil {
			return err
		}
	}
	return nil
}

// Walk reads the entries ten at a time; a batch that is tried again goes on where it was.
func (p prices) Walk(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	if part.Items == nil {
		_ = p.Keys(ctx, func(key string) error { part.Items = append(part.Items, key); return nil })
	}
	return part.Walk(ctx, 10, from, func(keys []string) (source.Chunk, error) {
		c := source.Chunk{Written: source.ByRunner}
		for _, key := range keys {
			e := tasks.Entry{Key: key, Type: tasks.EntryString, Value: "1.00 " + p.currency}
			c.Entries = append(c.Entries, source.Entry{Entry: e, Tags: []string{"prices"}})
		}
		return c, nil
	}, fn)
}

// A site written in Go builds its own worker, with its own sources beside stoker's.
func ExampleServeWarm() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := worker.ServeWarm(ctx, map[string]source.Opener{"prices": openPrices}); err != nil {
		log.Fatal(err)
	}
}

// TestOwnSource: a source of the site's own keeps the contract, as it should have a test for.
func TestOwnSource(t *testing.T) {
	var keys []string
	for id := range 100 {
		keys = append(keys, fmt.Sprint("price:", id))
	}
	sourcetest.Run(t, sourcetest.Harness{
		Keys: keys, Entries: keys, Written: source.ByRunner, Resumes: true,
		Open: func(t *testing.T) source.Source {
			s, err := openPrices("r1", map[string]string{"currency": "EUR"})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	})
}

const ownPlan = `version: 1
sources:
  - name: prices
    custom: {source: prices, with: {currency: EUR}}
`

// TestServeWarm runs the example's worker and warms a release by it.
func TestServeWarm(t *testing.T) {
	server := redistest.Start(t)
	t.Setenv("STOKER_APP", "shop")
	t.Setenv("STOKER_REDIS_URL", server.URL)
	t.Setenv("STOKER_WEBHOOK_URL", "http://127.0.0.1:1/")
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- worker.ServeWarm(ctx, map[string]source.Opener{"prices": openPrices}) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client, err := tasks.NewClient(tasks.Config{App: "shop", RedisURL: server.URL, FillLimit: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	by := tasks.By{Actor: "ann"}
	keys := tasks.KeysOf("shop")
	if err := release.Open(server.Client, keys).Create(ctx, release.Record{ID: "r1", Template: tasks.DefaultTemplate}, by); err != nil {
		t.Fatal(err)
	}
	run, _, err := client.Warm(ctx, tasks.WarmRequest{Release: "r1", Plan: []byte(ownPlan), By: by})
	if err != nil {
		t.Fatal(err)
	}
	var s warm.RunStatus
	redistest.Eventually(t, "the run's end", func() bool {
		s, err = warm.Status(ctx, server.Client, keys, run)
		return err == nil && s.Over()
	})
	if s.Status != string(warm.Pass) || s.Sources[0].Stored != 100 || s.Sources[0].Kind != "custom" {
		t.Errorf("run %+v, certificate %+v", s, s.Certificate)
	}
	// One that fails is told to people, where anybody is to be told.
	if _, _, err := client.Warm(ctx, tasks.WarmRequest{Release: "r1", Plan: []byte(strings.Replace(ownPlan, "source: prices", "source: wages", 1)), By: by}); err != nil {
		t.Fatal(err)
	}
	told := "asynq:{" + tasks.LaneNotify.Queue("shop") + "}:pending"
	redistest.Eventually(t, "people to be told", func() bool { return server.Client.LLen(ctx, told).Val() == 1 })
	for _, id := range []int{0, 99} {
		if got, err := server.Client.Get(ctx, "shop:r1:price:"+strconv.Itoa(id)).Result(); got != "1.00 EUR" || err != nil {
			t.Errorf("price %d: %q, %v", id, got, err)
		}
	}
}

// TestServeWarmRefuses: settings that are wrong end it at once.
func TestServeWarmRefuses(t *testing.T) {
	t.Setenv("STOKER_WARM_BATCH", "0")
	if err := worker.ServeWarm(t.Context(), nil); err == nil {
		t.Error("a batch of 0 addresses was accepted")
	}
}
