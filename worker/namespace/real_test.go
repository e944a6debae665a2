package namespace_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

const realKeys = "../../../shared/data/real-keys.jsonl.gz"

// loadReal restores the keys that real clients wrote and returns how many there are.
func loadReal(t *testing.T, f fixture) int {
	t.Helper()
	file, err := os.Open(realKeys)
	if err != nil {
		t.Skipf("the real keys are not here: %v", err)
	}
	defer func() { _ = file.Close() }()
	zip, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	pipe, n := f.rdb.Pipeline(), 0
	for dec := json.NewDecoder(zip); ; n++ {
		var line struct {
			K, D []byte
			TTL  int64 `json:"ttl_ms"`
		}
		if err := dec.Decode(&line); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pipe.Do(ctxOf(t), "RESTORE", line.K, max(line.TTL, 0), line.D)
	}
	if _, err := pipe.Exec(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	return n
}

// realNamespaces are templates that fit what the clients wrote, and the releases in them.
var realNamespaces = []struct {
	template string
	releases []string
	refers   bool // values hold the prefix
}{
	{"wp:<release>:<key>", []string{"r1"}, false},
	{"<release>:1:<key>", []string{"rel-41", "rel-42"}, false},
	{"<release>:2:<key>", []string{"rel-42"}, false},
	{"<release>_plain:<key>", []string{"sfrel7"}, false},
	{"<release>_tagged:<key>", []string{"sfrel7"}, true},
	{"lv:<release>:<key>", []string{"rel7", "rel8"}, false}, // its tag sets name keys without the connection's prefix
	{"rails:<release>:<key>", []string{"rel7"}, false},
	{"keyv-<release>:<key>", []string{"r7"}, false},
	{"cm-<release>:<key>", []string{"r7"}, false},
	{"io:<release>:<key>", []string{"r7"}, false},
}

// expiries returns the absolute expiry of every key, -1 for never.
func expiries(t *testing.T, f fixture) map[string]int64 {
	t.Helper()
	keys, err := f.rdb.Keys(ctxOf(t), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	ctx := ctxOf(t)
	cmds, err := f.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, k := range keys {
			p.Do(ctx, "PEXPIRETIME", k)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, cmd := range cmds {
		out[keys[i]], _ = cmd.(*redis.Cmd).Int64()
	}
	return out
}

// TestRealKeys moves every namespace that real clients wrote to another server, to another
// release, and off the first, and looks at the neighbours.
func TestRealKeys(t *testing.T) {
	f, other := on(t, redistest.Start(t).Client), on(t, redistest.Start(t).Client)
	loadReal(t, f)
	before := expiries(t, f)
	types := map[string]int{}
	for _, ns := range realNamespaces {
		tmpl := template(t, ns.template)
		from, to := namespace.New(f.rdb, tmpl, f.keys, nil), namespace.New(other.rdb, tmpl, f.keys, nil)
		for _, release := range ns.releases {
			want := readAll(t, from, release)
			if len(want) == 0 {
				t.Fatalf("%s: %s has no entries", ns.template, release)
			}
			for _, e := range want {
				types[e.Type]++
				if at := before[tmpl.Key(release, e.Key)]; max(at, 0) != e.ExpiresAt {
					t.Errorf("%s: %s expires at %d, read as %d", release, tasks.Bytes(e.Key), at, e.ExpiresAt)
				}
			}
			if err := to.Write(ctxOf(t), release, want); err != nil {
				t.Fatal(err)
			}
			diff(t, ns.template+" "+release, readAll(t, to, release), want)
			checkRealCopy(t, f, tmpl, from, release, want, ns.refers)
		}
	}
	t.Logf("types: %v", types)
	purgeReal(t, f)
}

// checkRealCopy copies a release and back out again.
func checkRealCopy(t *testing.T, f fixture, tmpl tasks.Template, c *namespace.Cache, release string, want []tasks.Entry, refers bool) {
	t.Helper()
	got := total(t, c, release, "copy", "")
	if int(got.Copied)+len(got.Referring) != len(want) || refers != (len(got.Referring) > 0) {
		t.Errorf("%s: copied %d, left out %d of %d; values refer: %v", tmpl, got.Copied, len(got.Referring), len(want), refers)
	}
	copied := map[string]tasks.Entry{}
	for _, e := range readAll(t, c, "copy") {
		copied[e.Key] = e
	}
	left := map[string]bool{}
	for _, key := range got.Referring {
		left[key] = true
	}
	for _, e := range want {
		if !left[e.Key] {
			diff(t, "copy of "+e.Key, copied[e.Key], e)
		} else if !strings.Contains(e.Value+strings.Join(e.Items, "\n"), tmpl.Prefix(release)) {
			t.Errorf("%s is left out and does not refer to its release", tasks.Bytes(e.Key))
		}
	}
	purge(t, c, "copy", int(got.Copied))
}

func purge(t *testing.T, c *namespace.Cache, release string, want int) {
	t.Helper()
	if err := c.SetFence(ctxOf(t), release, "test"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Purge(ctxOf(t), release, "test", nil); err != nil || int(n) != want {
		t.Errorf("purge %s: %d, %v; want %d", release, n, err, want)
	}
	if err := c.SetFence(ctxOf(t), release, ""); err != nil {
		t.Fatal(err)
	}
}

// purgeReal purges one namespace after the other; only its own keys may go each time.
func purgeReal(t *testing.T, f fixture) {
	t.Helper()
	for _, ns := range realNamespaces {
		tmpl := template(t, ns.template)
		c := namespace.New(f.rdb, tmpl, f.keys, nil)
		for _, release := range ns.releases {
			before := expiries(t, f)
			purge(t, c, release, len(readAll(t, c, release)))
			after := expiries(t, f)
			for key, at := range before {
				_, own := tmpl.Logical(release, key)
				if now, there := after[key]; own == there || there && now != at {
					t.Errorf("purge %s: key %s of its own: %v, there afterwards: %v", tmpl.Prefix(release), tasks.Bytes(key), own, there)
				}
			}
		}
	}
}
