package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/alphanode/stoker"

// goPackage is what `go list` tells of one.
type goPackage struct {
	ImportPath string
	Imports    []string // of the package itself, not of its tests
	Standard   bool
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// Who may import whom. A room is a folder with what is below it; the first that matches counts.
// A room may always import itself.
var (
	groundRooms = []string{"worker/release", "worker/namespace", "worker/invalidation", "worker/snapshot", "worker/governor"}
	verbs       = []string{"worker/warm", "worker/restore", "worker/retire", "worker/health", "worker/notify"}

	layers = []struct {
		room string
		may  []string // rooms of this module
	}{
		{"tasks", nil},
		{"worker/release", []string{"tasks"}},
		{"worker/namespace", []string{"tasks"}},
		{"worker/invalidation", []string{"tasks"}},
		{"worker/snapshot", []string{"tasks"}},
		{"worker/governor", []string{"tasks"}},
		{"worker/warm", append([]string{"tasks"}, groundRooms...)},
		{"worker/restore", append([]string{"tasks"}, groundRooms...)},
		{"worker/retire", append([]string{"tasks"}, groundRooms...)},
		{"worker/health", append([]string{"tasks"}, groundRooms...)},
		{"worker/notify", []string{"tasks"}},
		{"worker/redistest", nil},
		{"worker", append(append([]string{"tasks"}, groundRooms...), verbs...)},
		{"scheduler", []string{"tasks"}},
		{"deploy", nil},
		{"cmd/stoker/web", append([]string{"tasks"}, groundRooms...)},
		{"cmd", []string{"tasks", "worker", "scheduler", "cmd"}},
	}
)

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

// roomOf returns the room that a package of this module is in.
func roomOf(pkg string) (room string, may []string, ok bool) {
	for _, r := range layers {
		if within(pkg, r.room) {
			return r.room, r.may, true
		}
	}
	return "", nil, false
}

// forTests reports whether a package is made for tests: by its name.
func forTests(pkg string) bool { return strings.HasSuffix(path.Base(pkg), "test") }

func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range listPackages(t) {
		pkg, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours {
			continue
		}
		room, may, ok := roomOf(pkg)
		if !ok {
			t.Errorf("%s is in none of the rooms that the design names", pkg)
			continue
		}
		seen[room] = true
		for _, imported := range p.Imports {
			dep, ours := strings.CutPrefix(imported, module+"/")
			if !ours || within(dep, room) && !forTests(dep) {
				continue
			}
			switch depRoom, _, _ := roomOf(dep); {
			case forTests(pkg):
			case forTests(dep):
				t.Errorf("%s imports %s, which is made for tests", pkg, dep)
			case !slices.ContainsFunc(may, func(r string) bool { return depRoom == r || r == "worker" && within(depRoom, r) }):
				t.Errorf("%s imports %s: %s may import %v only", pkg, dep, room, may)
			}
		}
	}
	for _, r := range layers {
		if !seen[r.room] {
			t.Errorf("there is no %s", r.room)
		}
	}
}

// light are the modules that an app server takes on when it imports tasks: those of its own choice, and the
// interfaces of OpenTelemetry, not what carries them out.
var light = []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9",
	"go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/propagation"}

// An app server that imports tasks takes on what is light, and nothing else.
func TestTasksIsLight(t *testing.T) {
	standard := map[string]bool{"C": true}
	var imports []string
	for _, p := range listPackages(t) {
		standard[p.ImportPath] = p.Standard
		if p.ImportPath == module+"/tasks" {
			imports = p.Imports
		}
	}
	for _, imported := range imports {
		if standard[imported] || slices.ContainsFunc(light, func(module string) bool { return within(imported, module) }) {
			continue
		}
		t.Errorf("tasks imports %s", imported)
	}
	if len(imports) == 0 {
		t.Error("tasks imports nothing: is it still there?")
	}
}
