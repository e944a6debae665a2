package namespace

import (
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// watching is a watch over the prefix a:, and a client to write with.
func watching(t *testing.T) (*watch, *redis.Client, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t)
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "site")
	if err != nil {
		t.Fatal(err)
	}
	w := New(server.Client, tmpl, tasks.KeysOf("site"), nil).watch(t.Context(), "a:")
	if w == nil {
		t.Fatal("the server does not tell")
	}
	t.Cleanup(w.close)
	return w, server.Client, server
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatch: every way to write to a key is heard of, also by scripts and transactions, and no other key.
func TestWatch(t *testing.T) {
	w, rdb, _ := watching(t)
	ctx := t.Context()
	must(t, rdb.Set(ctx, "a:1", "x", 0).Err())
	must(t, rdb.Set(ctx, "b:1", "x", 0).Err())
	must(t, rdb.ZAdd(ctx, "a:2", redis.Z{Member: "m"}).Err())
	must(t, rdb.Copy(ctx, "b:1", "a:3", 0, false).Err())
	must(t, rdb.Eval(ctx, "return redis.call('SET', KEYS[1], 'x')", []string{"a:4"}).Err())
	_, err := rdb.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Del(ctx, "a:1").Err() })
	must(t, err)
	must(t, rdb.Get(ctx, "b:1").Err())
	for range 2 { // it goes on listening
		keys, ok := w.changed(ctx)
		slices.Sort(keys)
		if d := cmp.Diff([]string{"a:1", "a:2", "a:3", "a:4"}, keys); d != "" || !ok {
			t.Errorf("heard of (ok %v, -want +got):\n%s", ok, d)
		}
	}
}

// TestWatchThatMissed: a watch never says that it heard of everything when it may not have.
func TestWatchThatMissed(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, w *watch, rdb *redis.Client){
		"too many": func(t *testing.T, _ *watch, rdb *redis.Client) {
			_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
				for i := range maxTold + 1 {
					p.Set(t.Context(), "a:"+strconv.Itoa(i), "x", 0)
				}
				return nil
			})
			must(t, err)
		},
		"all is flushed": func(t *testing.T, _ *watch, rdb *redis.Client) { must(t, rdb.FlushAll(t.Context()).Err()) },
		"the told connection breaks": func(t *testing.T, w *watch, rdb *redis.Client) {
			must(t, rdb.Do(t.Context(), "CLIENT", "KILL", "ID", w.id).Err())
		},
		"the asking connection breaks": func(t *testing.T, w *watch, rdb *redis.Client) {
			id, err := w.asker.ClientID(t.Context()).Result()
			must(t, err)
			must(t, rdb.Do(t.Context(), "CLIENT", "KILL", "ID", id).Err())
		},
		"tracking ends": func(t *testing.T, w *watch, _ *redis.Client) {
			must(t, w.asker.Do(t.Context(), "CLIENT", "TRACKING", "OFF").Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, rdb, _ := watching(t)
			harm(t, w, rdb)
			if keys, ok := w.changed(t.Context()); ok {
				t.Errorf("it says that %d keys are all", len(keys))
			}
		})
	}
}

// TestNobodyTells: a server that does not offer it, or not to this user.
func TestNobodyTells(t *testing.T) {
	_, rdb, _ := watching(t)
	must(t, rdb.Do(t.Context(), "ACL", "SETUSER", "poor", "on", "nopass", "~*", "+@all", "-client|tracking").Err())
	opt := *rdb.Options()
	opt.Username, opt.Password = "poor", "x"
	poor := redis.NewClient(&opt)
	t.Cleanup(func() { _ = poor.Close() })
	w := New(poor, tasks.Template{}, tasks.KeysOf("site"), nil).watch(t.Context(), "a:")
	if keys, ok := w.changed(t.Context()); w != nil || ok {
		t.Errorf("a watch that may not ask: %v, heard of %v, all of them: %v", w, keys, ok)
	}
	w.close()
}
