package tasks

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var by = By{Actor: "ann@web1", Reason: "new templates"}

// payloads is one example of every task's payload: what the golden files pin.
func payloads() []Payload {
	return []Payload{
		&Invalidate{Numbers: []int64{1795371029000001, 1795371029000007}, Targets: 2, Sample: []Target{{KindTag, "post:42"}, {KindKey, "\x00tags\x00android\xff"}}},
		&InvalidateBulk{Number: 1795371029000001, Targets: 1, Sample: []Target{{KindPrefix, "nav:"}}},
		&Rollback{To: "r41", Salvage: true, From: "r42", Pace: PaceNormal, By: by},
		&Activate{Release: "r42", Force: true, AutoRollback: true, By: by},
		&Refresh{Release: "r42"},
		&WarmRun{Run: "RUN", Release: "r42", Sources: []string{"articles"}, Sample: 0.05, Pace: PaceGentle, By: by},
		&WarmBatch{Run: "RUN", Release: "r42", Source: "pages", From: 100, To: 200, Pace: PaceGentle},
		&Snapshot{Release: "r41", Pace: PaceFull, By: by},
		&Expire{Release: "r40", NoSnapshot: true, Pace: PaceGentle, By: by},
		&Prune{By: by},
		&Drill{Release: "r41", Pace: PaceFull, By: by},
		&Health{By: by},
		&Freshness{Confirm: true, By: by},
		&Baseline{Release: "r41", By: by},
		&Watch{Release: "r42", Before: "r41", Look: 2, Activated: 1795371029000001, AutoRollback: true, By: by},
		&Notify{Event: EventWorse, At: time.Date(2026, 11, 22, 20, 30, 3, 0, time.UTC), App: "site", Release: "r42", Title: "r42 is worse", Lines: []string{"errors: 0 of 400 before, 9 of 400 after"}},
	}
}

func TestPayloadsMatchGoldens(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range payloads() {
		seen[p.TaskType()] = true
		file := filepath.Join(fixtures(Payloads.Last()), strings.ReplaceAll(p.TaskType(), ":", "_")+".json")
		got, err := Encode(p)
		if err != nil {
			t.Fatalf("encode %s: %v", p.TaskType(), err)
		}
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
			t.Errorf("%s changed on the wire; a new form needs a new version (-want +got):\n%s", p.TaskType(), diff)
		}
	}
	for taskType := range laneOf {
		if !seen[taskType] {
			t.Errorf("no golden for %s", taskType)
		}
	}
}

// TestPaces: whatever has a pace is worked at it, refuses one that there is not, and needs none.
func TestPaces(t *testing.T) {
	field := func(p Payload) reflect.Value { return reflect.ValueOf(p).Elem().FieldByName("Pace") }
	for _, p := range payloads() {
		value := reflect.ValueOf(p).Elem()
		if !field(p).IsValid() {
			if got := PaceOf(value.Interface().(Payload)); got != "" {
				t.Errorf("%s has no pace, yet is worked at %q", p.TaskType(), got)
			}
			continue
		}
		want := Pace(field(p).String())
		if got := PaceOf(value.Interface().(Payload)); got != want {
			t.Errorf("%s at %q is worked at %q", p.TaskType(), want, got)
		}
		field(p).SetString("fast")
		if err := p.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `"fast"`) {
			t.Errorf("%s at fast: %v", p.TaskType(), err)
		}
		field(p).SetString("")
		if err := p.Validate(); err != nil {
			t.Errorf("%s without a pace: %v", p.TaskType(), err)
		}
		want = ""
		if p.TaskType() == TypeRollback {
			want = PaceFull
		}
		if got := PaceOf(value.Interface().(Payload)); got != want {
			t.Errorf("%s without a pace is worked at %q, want %q", p.TaskType(), got, want)
		}
	}
}

func TestDecodeIsTheInverseOfEncode(t *testing.T) {
	raw, err := Encode(&Invalidate{Numbers: []int64{7}, Targets: 1, Sample: []Target{{KindKey, "\x00 \xff*[?]"}}})
	if err != nil {
		t.Fatal(err)
	}
	var got Invalidate
	if err := Decode(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := Invalidate{V: Payloads.Last(), Numbers: []int64{7}, Targets: 1, Sample: []Target{{KindKey, "\x00 \xff*[?]"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded payload (-want +got):\n%s", diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"no version":        `{"numbers":[7],"targets":1}`,
		"a negative one":    `{"v":-1,"numbers":[7],"targets":1}`,
		"an unknown field":  `{"v":1,"numbers":[7],"tragets":1}`,
		"an invalid value":  `{"v":1,"numbers":[-7],"targets":1}`,
		"what is not JSON":  `numbers=7`,
		"a broken encoding": `{"v":1,"numbers":[7],"targets":1,"sample":[{"kind":"key","name":{"base64":"*"}}]}`,
	} {
		if err := Decode([]byte(raw), new(Invalidate)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestTargetRefuses(t *testing.T) {
	for name, target := range map[string]Target{
		"an empty prefix": {KindPrefix, ""},
		"an empty key":    {KindKey, ""},
		"a reserved key":  {KindKey, "#tag:post:1"},
		"a reserved part": {KindPrefix, "#"},
		"an unknown kind": {"glob", "*"},
		"a huge key":      {KindKey, Bytes(strings.Repeat("k", MaxTargetLen+1))},
	} {
		if err := target.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestMembersRoundTrip(t *testing.T) {
	for _, want := range []Target{{KindKey, "a"}, {KindTag, "k:b"}, {KindPrefix, "\x00 "}} {
		got, err := ParseMember(want.Member())
		if err != nil || got != want {
			t.Errorf("member %q: got %v, %v, want %v", want.Member(), got, err, want)
		}
	}
	if _, err := ParseMember("x:y"); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

func TestControlCharactersInReasons(t *testing.T) {
	for _, reason := range []string{"\x1b[31mred", "null\x00", "\xff"} {
		if err := (By{Actor: "ann", Reason: reason}).Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("reason %q: got %v, want ErrInvalid", reason, err)
		}
	}
}

func FuzzBytesJSON(f *testing.F) {
	for _, s := range []string{"", "post:42", "\x00\xff", `"`, "\u2028", "日本"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(Bytes(s))
		if err != nil {
			t.Fatal(err)
		}
		var got Bytes
		if err := json.Unmarshal(raw, &got); err != nil || string(got) != s {
			t.Fatalf("%q became %s and then %q, %v", s, raw, got, err)
		}
	})
}
