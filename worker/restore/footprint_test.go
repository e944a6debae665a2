package restore

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/snapshot"
)

// TestFootprint holds the prediction against what a real server takes.
func TestFootprint(t *testing.T) {
	server := redistest.Start(t)
	tmpl, err := tasks.ParseTemplate(tasks.DefaultTemplate, "blog")
	if err != nil {
		t.Fatal(err)
	}
	cache := namespace.New(server.Client, tmpl, tasks.KeysOf("blog"), nil)
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + random.IntN(26))
		}
		return string(b)
	}
	items := func(n, size int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = text(size) + fmt.Sprint(i)
		}
		return out
	}
	scored := func(n int) []string {
		out := items(2*n, 20)
		for i := 1; i < len(out); i += 2 {
			out[i] = fmt.Sprint(random.IntN(1 << 40))
		}
		return out
	}
	expiring := func(n int) tasks.Entry {
		e := tasks.Entry{Type: tasks.EntryHash, Items: items(2*n, 20)}
		for i := range n {
			e.FieldsExpireAt = append(e.FieldsExpireAt, 1<<42+int64(i))
		}
		return e
	}
	makers := map[string]func() tasks.Entry{
		"pages": func() tasks.Entry {
			return tasks.Entry{Type: tasks.EntryString, Value: text(500 + random.IntN(8000)), ExpiresAt: 1 << 42}
		},
		"small": func() tasks.Entry { return tasks.Entry{Type: tasks.EntryString, Value: text(random.IntN(100))} },
		"packed hash": func() tasks.Entry {
			return tasks.Entry{Type: tasks.EntryHash, Items: items(20, 20), ExpiresAt: 1 << 42}
		},
		"large hash":   func() tasks.Entry { return tasks.Entry{Type: tasks.EntryHash, Items: items(3000, 30)} },
		"large set":    func() tasks.Entry { return tasks.Entry{Type: tasks.EntrySet, Items: items(600, 30)} },
		"large zset":   func() tasks.Entry { return tasks.Entry{Type: tasks.EntryZSet, Items: scored(400)} },
		"list of long": func() tasks.Entry { return tasks.Entry{Type: tasks.EntryList, Items: items(100, 300)} },
	}
	switch knows, err := cache.FieldExpiries(t.Context()); {
	case err != nil:
		t.Fatal(err)
	case knows:
		makers["packed expiring"] = func() tasks.Entry { return expiring(10) }
		makers["large expiring"] = func() tasks.Entry { return expiring(1500) }
	}
	for name, make := range makers {
		if err := server.Client.Do(t.Context(), "FLUSHALL", "SYNC").Err(); err != nil {
			t.Fatal(err)
		}
		rs := RedisServer{Client: server.Client, Keys: tasks.KeysOf("blog")}
		before, err := rs.Memory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var needs snapshot.Needs
		entries := 0
		for needs.Memory < 8<<20 {
			var batch []tasks.Entry
			for range 100 {
				e := make()
				e.Key = fmt.Sprint("post:", entries)
				entries++
				needs.Add(e, len(tmpl.Prefix("r1")))
				batch = append(batch, e)
			}
			if err := cache.Write(t.Context(), "r1", batch); err != nil {
				t.Fatal(err)
			}
		}
		after, err := rs.Memory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ratio := float64(needs.Memory) / float64(after[0].Used-before[0].Used)
		t.Logf("%s: %d entries, predicted %.2f of what they take", name, entries, ratio)
		if ratio < 0.75 || ratio > 1.6 { // Valkey's tables take less than Redis's
			t.Errorf("%s: predicted %d bytes, the server took %d", name, needs.Memory, after[0].Used-before[0].Used)
		}
	}
	if v, err := (RedisServer{Client: server.Client, Keys: tasks.KeysOf("blog")}).DumpVersion(t.Context()); err != nil || v < 10 {
		t.Errorf("version of DUMP: %d, %v", v, err)
	}
	if n, err := server.Client.Exists(t.Context(), tasks.KeysOf("blog").DumpProbe()).Result(); err != nil || n != 0 {
		t.Errorf("the probe stays: %v", err)
	}
}
