package tasks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/redistest"
)

// fixtures is where what a version looks like is kept, for good: as this package's code wrote it then.
func fixtures(version int) string { return filepath.Join("testdata", fmt.Sprint("v", version)) }

// golden compares with a file, which -update writes.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: what was written at a version stays as it is; a new form needs a new version (-want +got):\n%s", file, diff)
	}
}

// Payloads of every version are read, with all their fields.
func TestEveryVersionOfPayloadsIsRead(t *testing.T) {
	for version := 1; version <= Payloads.Last(); version++ {
		for _, p := range payloads() {
			file := filepath.Join(fixtures(version), strings.ReplaceAll(p.TaskType(), ":", "_")+".json")
			raw, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) && version < Payloads.Last() {
				continue // a type that there was not yet
			}
			if err != nil {
				t.Fatal(err)
			}
			got := reflect.New(reflect.TypeOf(p).Elem()).Interface().(Payload)
			if err := Decode(raw, got); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if diff := cmp.Diff(version, int(reflect.ValueOf(got).Elem().FieldByName("V").Int())); diff != "" {
				t.Errorf("%s: version (-want +got):\n%s", file, diff)
			}
			reflect.ValueOf(got).Elem().FieldByName("V").SetInt(0)
			if diff := cmp.Diff(p, got); version == Payloads.Last() && diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	}
}

// The fields of a version never change: a worker of that version knows no others.
func TestFieldsOfTheVersion(t *testing.T) {
	var all strings.Builder
	for _, p := range payloads() {
		fmt.Fprintf(&all, "%s: %s\n", p.TaskType(), strings.Join(jsonFields(reflect.TypeOf(p).Elem()), " "))
	}
	for _, wire := range []any{recordWire{}, callWire{}, Target{}} {
		fmt.Fprintf(&all, "%T: %s\n", wire, strings.Join(jsonFields(reflect.TypeOf(wire)), " "))
	}
	golden(t, filepath.Join(fixtures(Payloads.Last()), "fields.txt"), all.String())
}

func jsonFields(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonFields(f.Type)...)
		case name != "-":
			names = append(names, name)
		}
	}
	return names
}

// A record and an outcome of every version are read.
func TestEveryVersionOfRecordsIsRead(t *testing.T) {
	r := Record{ID: "ID", Calls: []Invalidation{
		{Targets: []Target{{KindTag, "post:42"}, {KindKey, "\x00\xff"}}, Refresh: true, By: by},
		{Targets: []Target{{KindPrefix, "nav:"}}, By: By{Actor: "bob"}},
	}}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join(fixtures(Records.Last()), "record.json"), string(raw)+"\n")
	o := NewOutcome(1795371029000001, r, []string{"r41", "r42"})
	o.At = time.UnixMicro(1795371029500000).UTC()
	o.Calls[1].Removed[1] = 3
	if raw, err = o.Encode(); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join(fixtures(Records.Last()), "outcome.json"), string(raw)+"\n")

	for version := 1; version <= Records.Last(); version++ {
		raw, err := os.ReadFile(filepath.Join(fixtures(version), "record.json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRecord(string(raw))
		if err != nil {
			t.Errorf("version %d: %v", version, err)
		} else if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", version, diff)
		}
		if raw, err = os.ReadFile(filepath.Join(fixtures(version), "outcome.json")); err != nil {
			t.Fatal(err)
		}
		calls, err := decodeOutcome(string(raw))
		if err != nil || len(calls) != 2 || calls[1].Namespaces["r42"] != 3 {
			t.Errorf("outcome of version %d: %+v, %v", version, calls, err)
		}
	}
}

// What is newer is refused as that, whatever else is in it, with both versions and the way out.
func TestNewerIsRefused(t *testing.T) {
	payload := Decode([]byte(`{"v":2,"numbers":"all of them","novelty":true}`), new(Invalidate))
	_, record := DecodeRecord(`{"v":2,"calls":"otherwise"}`)
	for what, err := range map[string]error{"payload": payload, "record": record} {
		if !errors.Is(err, ErrNewer) || errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrNewer", what, err)
			continue
		}
		for _, want := range []string{"version 2", "up to version 1", "upgrade this worker"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v lacks %q", what, err, want)
			}
		}
		// The cause passes through a task's result to whoever waits for it.
		raw, _ := json.Marshal(NewFailure(err))
		if got := Failed("", raw); !errors.Is(got, ErrNewer) {
			t.Errorf("%s: through a result: %v", what, got)
		}
	}
}

// A log of another version holds everything for invalidated: whoever fills the cache stores nothing then.
func TestLogOfANewerVersion(t *testing.T) {
	queue := redistest.Start(t).Client
	keys := KeysOf("site")
	j := NewJournal(queue, keys, 0, 0)
	mark, err := j.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	many := make([]Tagged, manyEntries)
	for _, version := range []string{"", "1", "2"} {
		if version != "" {
			queue.HSet(t.Context(), keys.LogMeta(), "version", version)
		}
		few, err := j.Check(t.Context(), "", mark, []Tagged{{Key: "a"}})
		if err != nil || few[0] != (version == "2") {
			t.Errorf("version %q: one entry: %v, %v", version, few, err)
		}
		if _, err := j.Check(t.Context(), "", mark, many); errors.Is(err, ErrNewer) != (version == "2") {
			t.Errorf("version %q: many entries: %v", version, err)
		}
	}
}

// Whoever waits for a call is not disturbed by a record of a newer process.
func TestWaitBesideANewerRecord(t *testing.T) {
	queue := redistest.Start(t).Client
	keys := KeysOf("site")
	j := NewJournal(queue, keys, 0, 0)
	number, err := j.Record(t.Context(), Record{ID: "A", Calls: []Invalidation{{Targets: []Target{{KindKey, "a"}}, By: by}}})
	if err != nil {
		t.Fatal(err)
	}
	queue.ZAdd(t.Context(), keys.Pending(), redis.Z{Score: float64(number - 1), Member: `{"v":2,"id":"B"}`})
	if _, pending, err := ReadApplied(t.Context(), queue, keys, number); err != nil || !pending {
		t.Errorf("while it is pending: %v, %v", pending, err)
	}
	raw, err := NewOutcome(number, Record{Calls: make([]Invalidation, 1)}, nil).Encode()
	if err != nil {
		t.Fatal(err)
	}
	queue.ZRemRangeByScore(t.Context(), keys.Pending(), fmt.Sprint(number), fmt.Sprint(number))
	queue.ZAdd(t.Context(), keys.Applied(), redis.Z{Score: float64(number), Member: raw})
	if got, pending, err := ReadApplied(t.Context(), queue, keys, number); err != nil || pending || got.Number != number {
		t.Errorf("when it is applied: %+v, %v, %v", got, pending, err)
	}
	if _, pending, err := ReadApplied(t.Context(), queue, keys, number-1); err != nil || !pending {
		t.Errorf("the newer one: %v, %v", pending, err)
	}
}

// Every key of stoker has its line in the list of formats, and the list names no others.
func TestListOfFormats(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	keys := reflect.ValueOf(KeysOf("app"))
	listed, used := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.Contains(cells[1], "`") {
			listed[strings.Trim(cells[1], " `")] = true
		}
	}
	for i := range keys.NumMethod() {
		method := keys.Type().Method(i)
		args := []reflect.Value{}
		for n := range method.Type.NumIn() - 1 {
			switch method.Type.In(n + 1).Kind() {
			case reflect.String:
				args = append(args, reflect.ValueOf("<>"))
			case reflect.Int:
				args = append(args, reflect.ValueOf(0))
			default:
				args = append(args, reflect.ValueOf(int64(0)))
			}
		}
		name := keys.Method(i).Call(args)[0].String()
		name = strings.TrimPrefix(strings.TrimPrefix(name, "stoker:{app}:"), "stoker:{<>}:")
		name = strings.ReplaceAll(strings.ReplaceAll(name, "removed:0", "removed:<>"), ":app", "")
		if !listed[name] {
			t.Errorf("%s: deploy/formats.md lacks a line for `%s`: give it a version, or say what readers do with what they do not know", method.Name, name)
		}
		used[name] = true
	}
	for name := range listed {
		if used[name] || strings.HasPrefix(name, "file ") || strings.HasPrefix(name, "task ") || strings.HasPrefix(name, "#") {
			continue
		}
		t.Errorf("deploy/formats.md lists `%s`, which no key is", name)
	}
}
