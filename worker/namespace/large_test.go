package namespace_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

var lazyFreed = regexp.MustCompile(`(?m)^lazyfreed_objects:(\d+)`)

// freed returns how many values the server has freed beside its work.
func (f fixture) freed() int {
	f.t.Helper()
	info, err := f.rdb.Info(ctxOf(f.t), "memory").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	m := lazyFreed.FindStringSubmatch(info)
	if m == nil {
		f.t.Skip("this server does not tell what it freed beside its work")
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// members makes a set of that many members, a multiple of 5000, inside the server.
func (f fixture) members(key string, n int) {
	f.t.Helper()
	for from := 0; from < n; from += 5000 {
		f.do("EVAL", `local some = {}
		for i = 1, 5000 do some[i] = 'member-' .. (ARGV[1] + i) end
		return redis.call('SADD', KEYS[1], unpack(some))`, 1, key, from)
	}
}

// TestLargeValuesAreFreedBeside: whatever takes a large collection away, by purging or replacing
// it, leaves the freeing to the server's other thread: in line, a million members take a second
// that all visitors wait.
func TestLargeValuesAreFreedBeside(t *testing.T) {
	f := on(t, redistest.Start(t).Client)
	ctx := ctxOf(t)
	few, many := []string{"a", "b"}, make([]string, 3000)
	for i := range many {
		many[i] = fmt.Sprint("new", i)
	}
	for name, take := range map[string]func() error{
		"purge": func() error {
			if err := f.SetFence(ctx, "r1", "mine"); err != nil {
				return err
			}
			_, err := f.Purge(ctx, "r1", "mine", nil)
			return err
		},
		"unlink": func() error { _, err := f.Unlink(ctx, "r1", "large"); return err },
		"remove": func() error { _, err := f.Remove(ctx, "r1", []string{"large"}); return err },
		"replace": func() error {
			return f.Write(ctx, "r1", []tasks.Entry{{Key: "large", Type: tasks.EntrySet, Items: few}})
		},
		"replace by such": func() error {
			return f.Write(ctx, "r1", []tasks.Entry{{Key: "large", Type: tasks.EntrySet, Items: many}})
		},
	} {
		f.do("DEL", f.tmpl.Key("r1", "large"))
		f.members(f.tmpl.Key("r1", "large"), 5000)
		before := f.freed()
		if err := take(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		redistest.Eventually(t, name+": a value freed beside the server's work", func() bool { return f.freed() > before })
	}
}

// longest is a pacer that keeps the longest slice.
type longest struct {
	stride
	took time.Duration
}

func (p *longest) Done(took time.Duration, _ int) { p.took = max(p.took, took) }

// BenchmarkPurgeLarge tells the longest that a visitor waits while a set of a million members, or a
// string of 64 MiB, is purged, beside what DEL of the same takes. The server frees a string in line.
func BenchmarkPurgeLarge(b *testing.B) {
	f := on(b, redistest.Start(b).Client)
	for name, fill := range map[string]func(){
		"set of a million": func() { f.members(f.tmpl.Key("r1", "large"), 1_000_000) },
		"string of 64 MiB": func() {
			f.do("EVAL", `for i = 1, 64 do redis.call('APPEND', KEYS[1], string.rep('x', 1048576)) end return 1`, 1, f.tmpl.Key("r1", "large"))
		},
	} {
		b.Run(name, func(b *testing.B) {
			var purged, deleted time.Duration
			for range b.N {
				fill()
				begun := time.Now()
				f.do("DEL", f.tmpl.Key("r1", "large"))
				deleted += time.Since(begun)
				fill()
				p := &longest{stride: 100}
				f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, func(context.Context, namespace.Work) namespace.Pacer { return p })
				if err := f.SetFence(ctxOf(b), "r1", "mine"); err != nil {
					b.Fatal(err)
				}
				if n, err := f.Purge(ctxOf(b), "r1", "mine", nil); n != 1 || err != nil {
					b.Fatal(n, err)
				}
				purged += p.took
			}
			b.ReportMetric(float64(purged.Microseconds())/float64(b.N), "purge-µs")
			b.ReportMetric(float64(deleted.Microseconds())/float64(b.N), "DEL-µs")
		})
	}
}
