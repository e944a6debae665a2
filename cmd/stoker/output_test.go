package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/worker/redistest"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  []string
	}{
		{"", 30, []string{""}},
		{"short", 30, []string{"short"}},
		{"what is longer than the line goes on below", 24, []string{"what is longer than the", "line goes on below"}},
		{"exactly twenty-four long", 24, []string{"exactly twenty-four long"}},
		{"a-word-that-no-line-can-hold-is-cut", 24, []string{"a-word-that-no-line-can-", "hold-is-cut"}},
		{"die Größe zählt in Zeichen", 26, []string{"die Größe zählt in Zeichen"}},
		{"one\ntwo\x1b[2J", 30, []string{"one", "two·[2J"}},
		{"too narrow to be of use", 3, []string{"too narrow to be of use"}},
	} {
		if diff := cmp.Diff(c.want, wrap(c.in, c.width)); diff != "" {
			t.Errorf("wrap(%q, %d) (-want +got):\n%s", c.in, c.width, diff)
		}
	}
}

func TestTable(t *testing.T) {
	header := []string{"RELEASE", "STATE", "WHY"}
	rows := [][]string{
		{"r1", "active", "the first one, which was made for a reason that takes a while to tell"},
		{"a-long-name", "standby", ""},
		{"r2\x07", "new", "two\nlines"},
	}
	want := `RELEASE      STATE    WHY
r1           active   the first one, which was
                      made for a reason that
                      takes a while to tell
a-long-name  standby
r2·          new      two
                      lines
`
	var out bytes.Buffer
	columns(&out, 46, header, rows)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for width := 80; width <= 120; width += 20 {
		out.Reset()
		columns(&out, width, header, rows)
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > width {
				t.Errorf("%d characters in %d columns: %s", n, width, line)
			}
		}
	}
}

var fieldName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// fields lists the names in a JSON value, as paths: scripts rely on them. Names that are data,
// such as release IDs, are shown as *; what the rooms keep of a release only with the release.
func fields(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			fields(e, path, into)
		}
	case map[string]any:
		for name, e := range v {
			if strings.HasSuffix(path, ".namespaces") || strings.HasSuffix(path, ".evicted") {
				name = "*"
			}
			into[path+"."+name] = true
			if name != "docs" || path == "release show" {
				fields(e, path+"."+name, into)
			}
		}
	}
}

// shape is a command line without its values.
func shape(command []string) string {
	kept := []string{command[0]}
	for _, word := range command[1:] {
		switch word {
		case "create", "list", "show", "pin", "note", "verify", "inspect", "check", "--wait", "--dry-run":
			kept = append(kept, word)
		}
	}
	return strings.Join(kept, " ")
}

// What reads prints JSON when asked to, with names that stay: testdata/json.golden holds them,
// and -update writes it.
func TestJSON(t *testing.T) {
	in := newInstall(t, "STOKER_PLAN=plan.yaml", "STOKER_SNAPSHOT_URL=file://"+filepath.Join(t.TempDir(), "archives"))
	in.write("plan.yaml", onePost)
	for _, key := range []string{"site:r1:post:1", "site:r10:post:1", "site:r10:page:1"} {
		if err := in.redis.Client.Set(context.Background(), key, "one", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	in.must("release", "create", "r1", "--adopt", "--active")
	in.must("release", "create", "r10", "--adopt")
	in.start("worker")
	redistest.Eventually(t, "a healthy worker", func() bool { _, _, code := in.run("health"); return code == exitDone })

	commands := [][]string{
		list("release", "create", "r11", "--why", "to show", "--owner", "ann", "--file", "a", "--command", "b"),
		list("invalidate", "--key", "post:1", "--tag", "t", "--reason", "edited", "--wait"), list("invalidate", "--prefix", "nav:"),
		list("invalidate", "--key", "post:1", "--dry-run"), list("invalidations"),
		list("snapshot", "r10"), list("snapshot", "r10", "--wait"), list("snapshot", "list"), list("snapshot", "verify", "r10"), list("snapshot", "inspect", "r10"), list("snapshot", "inspect", "r10", "--key", "page:1"),
		list("expire", "--release", "r10", "--dry-run"), list("rollback", "--to", "r10", "--wait"), list("expire", "--release", "r1", "--wait"),
		list("release", "list"), list("release", "show", "r10"), list("release", "pin", "r10"), list("release", "note", "r10"),
		list("status"), list("freshness", "--now"), list("health"), list("doctor"), list("config"), list("plan", "check", "plan.yaml", "--offline"), list("plan", "schema"),
		list("pause", "warm"), list("resume", "warm"),
	}
	names := map[string]bool{}
	for _, command := range commands {
		out := in.must(append(command, "--json")...)
		dec := json.NewDecoder(strings.NewReader(out))
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Errorf("stoker %s --json: %v\n%s", strings.Join(command, " "), err, out)
			continue
		}
		if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
			t.Errorf("stoker %s --json prints more than one value:\n%s", strings.Join(command, " "), out)
		}
		if v == nil {
			t.Errorf("stoker %s --json prints null", strings.Join(command, " "))
		}
		if command[1%len(command)] == "schema" {
			continue // another's format
		}
		into := map[string]bool{}
		fields(v, shape(command), into)
		for path := range into {
			if name := path[strings.LastIndex(path, ".")+1:]; name != "*" && !fieldName.MatchString(name) {
				t.Errorf("field %s: use lower case with underscores", path)
			}
		}
		maps.Copy(names, into)
	}
	golden := filepath.Join("testdata", "json.golden")
	got := strings.Join(slices.Sorted(maps.Keys(names)), "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("fields of --json (-want +got); go test ./cmd/stoker -run TestJSON -update keeps them:\n%s", diff)
	}
}

// With nothing to show, lists are empty, not null, and people are told what to do.
func TestEmpty(t *testing.T) {
	in := newInstall(t)
	for _, command := range []string{"release list", "snapshot list", "invalidations", "expire --dry-run", "invalidate --key a --dry-run"} {
		args := strings.Fields(command)
		if out := in.must(append(args, "--json")...); strings.TrimSpace(out) != "[]" {
			t.Errorf("stoker %s --json: %s", command, out)
		}
		if out := in.must(args...); !strings.Contains(out, " ") || strings.HasPrefix(out, "RELEASE") {
			t.Errorf("stoker %s:\n%s", command, out)
		}
	}
	if out := in.must("status"); !strings.Contains(out, "no release yet") || !strings.Contains(out, "stoker release create") {
		t.Errorf("stoker status:\n%s", out)
	}
	in.must("pause", "warm")
	in.must("pause", "warm")
	if out := in.must("status"); !strings.Contains(out, "yes") {
		t.Errorf("a lane without tasks does not show as paused:\n%s", out)
	}
}
