package hot

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

func TestParseLine(t *testing.T) {
	const at = `127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] `
	tests := []struct {
		name, line, path, agent string
		status                  int
		ok                      bool
	}{
		{"common", `127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326`, "/a.gif", "", 200, true},
		{"combined", at + `"GET /a?b=1 HTTP/1.1" 304 - "http://x/" "Mozilla/4.08 [en] (Win98)"`, "/a?b=1", "Mozilla/4.08 [en] (Win98)", 304, true},
		{"what follows", at + `"GET /a HTTP/2.0" 200 0 "-" "curl" 0.003 "-"`, "/a", "curl", 200, true},
		{"a host before", "www.example.com " + at + `"GET /a HTTP/1.1" 200 1`, "/a", "", 200, true},
		{"a user with brackets", `::1 - a[b] "c [d [10/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.1" 200 1`, "/a", "", 200, true},
		{"escaped quotes", at + `"GET /a\"b\\c\x0ad HTTP/1.1" 200 1 "\"" "a\"b"`, "/a\"b\\c\nd", `a"b`, 200, true},
		{"no request", at + `"-" 408 -`, "", "", 408, true},
		{"bytes", at + `"\x16\x03\x01" 400 150 "-" "-"`, "", "-", 400, true},
		{"a space in the path", at + `"GET /a b HTTP/1.1" 400 1`, "", "", 400, true},
		{"no time", `127.0.0.1 - - "GET /a HTTP/1.1" 200 1`, "", "", 0, false},
		{"another time", `127.0.0.1 - - [2000-10-10T13:55:36Z] "GET /a HTTP/1.1" 200 1`, "", "", 0, false},
		{"cut off", at + `"GET /a HT`, "", "", 0, false},
		{"no size", at + `"GET /a HTTP/1.1" 200`, "", "", 0, false},
		{"a word for a status", at + `"GET /a HTTP/1.1" abc 1`, "", "", 0, false},
		{"a word for a size", at + `"GET /a HTTP/1.1" 200 1x`, "", "", 0, false},
		{"JSON", `{"path": "/a"}`, "", "", 0, false},
		{"nothing", "", "", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := parseLine([]byte(tt.line))
			if ok != tt.ok || string(r.path) != tt.path || string(r.agent) != tt.agent || r.status != tt.status {
				t.Errorf("got %q by %q, %d, %v", r.path, r.agent, r.status, ok)
			}
		})
	}
}

func TestWanted(t *testing.T) {
	const format = `h - - [10/Oct/2000:13:55:36 -0700] "%s HTTP/1.1" %d 1 "-" "%s"`
	for _, tt := range []struct {
		request string
		status  int
		agent   string
		want    bool
	}{
		{"GET /a", 200, "x", true}, {"GET /a", 206, "x", true}, {"GET /a", 304, "x", true},
		{"HEAD /a", 200, "x", false}, {"POST /a", 200, "x", false}, {"GET /a", 301, "x", false}, {"GET /a", 404, "x", false}, {"GET /a", 500, "x", false},
		{"GET /a", 200, "stoker/1.2", false}, {"GET http://h/a", 200, "x", false}, {"GET *", 200, "x", false},
		{"GET /" + strings.Repeat("a", maxPath), 200, "x", false},
	} {
		r, ok := parseLine(fmt.Appendf(nil, format, tt.request, tt.status, tt.agent))
		if !ok || r.wanted() != tt.want {
			t.Errorf("%.20s, %d, %s: wanted %v (%v), want %v", tt.request, tt.status, tt.agent, r.wanted(), ok, tt.want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a\x20\" HTTP/1.0" 200 2326 "-" "\\"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		r, ok := parseLine(line)
		if !bytes.Equal(line, before) {
			t.Error("the line was changed")
		}
		if ok && r.wanted() && (r.status < 200 || r.path[0] != '/') {
			t.Errorf("wanted %+v", r)
		}
	})
}

// TestCounter holds the counts against exact ones: none is too high, none is lower than all / places, so that
// whatever was asked for more often than that is known.
func TestCounter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.IntRange(1, 20).Draw(t, "places")
		names := rapid.SliceOf(rapid.IntRange(0, 40)).Draw(t, "names")
		c, exact := newCounter(places), map[string]int64{}
		for _, n := range names {
			name := fmt.Sprint("/", n)
			c.add([]byte(name))
			exact[name]++
		}
		most := int64(len(names) / places)
		for _, p := range c.heap {
			if got, want := p.count-p.owes, exact[p.name]; got > want || got < want-most || got < 1 {
				t.Fatalf("%s: %d of %d, with %d places for %d", p.name, got, want, places, len(names))
			}
		}
		for name, n := range exact {
			if c.at[name] == nil && n > most {
				t.Fatalf("%s, asked for %d times of %d, is not known with %d places", name, n, len(names), places)
			}
		}
		if len(c.heap) > places || len(c.at) != len(c.heap) {
			t.Fatalf("%d places, %d names for %d", len(c.heap), len(c.at), places)
		}
	})
}

func line(path string) string {
	return fmt.Sprintf("h - - [10/Oct/2000:13:55:36 -0700] \"GET %s HTTP/1.1\" 200 1 \"-\" \"x\"\n", path)
}

// TestReadLog reads a rotated set: plain, compressed, and a file that is cut off in its last line.
func TestReadLog(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		var b bytes.Buffer
		b.WriteString(text)
		if strings.HasSuffix(name, ".gz") {
			b.Reset()
			z := gzip.NewWriter(&b)
			z.Write([]byte(text))
			z.Close()
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("access.log", strings.Repeat(line("/a"), 3)+line("/b")+line("/%C3%A4")+line("/\\xC3\\xA4")+"h - - [10/Oct/20")
	write("access.log.1", line("/b")+strings.Repeat("x", 2*maxLine)+"\n"+line("/b"))
	write("access.log.2.gz", strings.Repeat(line("/b"), 2)+line("/c?x=1"))
	write("access.log.3", "")
	got, err := ReadLog(t.Context(), filepath.Join(dir, "access.log*"), 3)
	if err != nil {
		t.Fatal(err)
	}
	want := List{Paths: true, Counted: true, Total: 11, Items: []Item{{"/b", 5}, {"/a", 3}}}
	want.Items = append(want.Items, Item{"/%C3%A4", 1})
	if len(got.Items) != 3 {
		t.Fatalf("got %+v", got)
	}
	got.Items, want.Items = got.Items[:2], want.Items[:2] // what follows was asked for once
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	all, err := ReadLog(t.Context(), filepath.Join(dir, "access.log*"), 100)
	if err != nil || len(all.Items) != 4 || all.Items[2] != (Item{"/%C3%A4", 2}) {
		t.Errorf("a path that is written in two ways: %+v, %v", all, err)
	}
}

func TestReadLogRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access.log")
	if _, err := ReadLog(t.Context(), file, 10); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(file, []byte(line("/a")+strings.Repeat("{\"path\": \"/a\"}\n", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"read":  func() error { _, err := ReadLog(t.Context(), file, 10); return err },
		"probe": func() error { return ProbeLog(t.Context(), file) },
	} {
		if err := read(); !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), "3 of 4 lines") || !strings.Contains(err.Error(), "path") {
			t.Errorf("%s: another format: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.WriteFile(file, []byte(strings.Repeat(line("/a"), checkEvery)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLog(ctx, file, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := ProbeLog(t.Context(), file); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func TestSpec(t *testing.T) {
	tests := []struct {
		name string
		spec Spec
		want string // of the problem; "" for none
	}{
		{"log", Spec{AccessLog: "/var/log/a*"}, ""},
		{"keys", Spec{KeysOf: "active", Top: maxTop}, ""},
		{"entries", Spec{AccessLog: "a", Entries: []Entry{{"/posts/{{.slug}}", "post:{{.slug}}:{{.Release}}"}}}, ""},
		{"nothing", Spec{}, "no list"},
		{"both", Spec{AccessLog: "a", KeysOf: "r1"}, "two lists"},
		{"pattern", Spec{AccessLog: "a["}, "syntax error"},
		{"release", Spec{KeysOf: "a b"}, "release"},
		{"top", Spec{KeysOf: "r1", Top: -1}, "-1 entries"},
		{"entries of keys", Spec{KeysOf: "r1", Entries: []Entry{{"/a", "a"}}}, "entries already"},
		{"path", Spec{AccessLog: "a", Entries: []Entry{{"posts", "a"}}}, "begin it with /"},
		{"path template", Spec{AccessLog: "a", Entries: []Entry{{"/{{if .a}}b{{end}}", "a"}}}, "read backwards"},
		{"key template", Spec{AccessLog: "a", Entries: []Entry{{"/{{.a}}", "{{"}}}, "template"},
		{"reserved", Spec{AccessLog: "a", Entries: []Entry{{"/{{.a}}", "#{{.a}}"}}}, "reserved"},
		{"unknown name", Spec{AccessLog: "a", Entries: []Entry{{"/{{.a}}", "{{.b}}"}}}, "use names of the path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ps source.Problems
			tt.spec.Check("$.hot", &ps)
			text := fmt.Sprint(ps)
			if (tt.want == "") != (len(ps) == 0) || !strings.Contains(text, tt.want) {
				t.Errorf("got %s, want %q", text, tt.want)
			}
		})
	}
}

func TestNamer(t *testing.T) {
	spec := Spec{AccessLog: "a", Entries: []Entry{{"/posts/{{.slug}}/", "post:{{.slug}}"}, {"/{{.any}}", "page:{{.Release}}:{{.any}}"}}}
	n, err := spec.Namer("r1")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/posts/a/b/": "post:a/b", "/posts/a": "page:r1:posts/a", "x": ""} {
		if got := n.Key(path, "r1"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestUses(t *testing.T) {
	last := 0.0
	for freq := int64(5); freq < 256; freq++ {
		n := Uses(freq, 10)
		if n <= last {
			t.Fatalf("a frequency of %d is worth %v, one less %v", freq, n, last)
		}
		last = n
	}
	// What the server's documentation measured: 100 hits make a counter of 10, 1,000 one of 18, 100,000 one of 142.
	for freq, hits := range map[int64]float64{10: 100, 18: 1000, 142: 100_000} {
		if got := Uses(freq, 10); got < hits/1.5 || got > hits*1.5 {
			t.Errorf("a frequency of %d is worth %v uses, want about %v", freq, got, hits)
		}
	}
}

// BenchmarkReadLog counts a log of a million lines, and half as many paths as that.
func BenchmarkReadLog(b *testing.B) {
	file := filepath.Join(b.TempDir(), "access.log")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	const lines = 1_000_000
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.05, 1, 5_000_000)
	var text bytes.Buffer
	for range lines {
		text.WriteString(line(fmt.Sprint("/articles/about-something/", zipf.Uint64())))
	}
	f.Write(text.Bytes())
	f.Close()
	for b.Loop() {
		if _, err := ReadLog(b.Context(), file, defaultTop); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(lines*b.N)/b.Elapsed().Seconds(), "lines/s")
}
