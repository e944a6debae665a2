package source

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

func TestDuration(t *testing.T) {
	for text, want := range map[Duration]time.Duration{"": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute} {
		if got, err := text.Parse(); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []Duration{"0", "0s", "-1s", "1d", "5", " 1s"} {
		if got, err := text.Parse(); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
	if got := Duration("").Or(time.Second); got != time.Second {
		t.Errorf("default: %v", got)
	}
}

func TestPercent(t *testing.T) {
	for text, want := range map[Percent]float64{"": 0, "0%": 0, "10%": 0.1, "99.5%": 0.995, "100%": 1} {
		if got, err := text.Parse(); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []Percent{"10", "-1%", "101%", "NaN%", "Inf%", "%", "ten%"} {
		if got, err := text.Parse(); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
	if got := Percent("0%").Or(0.5); got != 0 {
		t.Errorf("a share of 0%% became the default: %v", got)
	}
}

func TestTemplate(t *testing.T) {
	tm, err := ParseTemplate(`post:{{.slug}}:{{json .tags}}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tm.Render(map[string]any{"slug": "a b", "tags": []string{"x"}})
	if want := `post:a b:["x"]`; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := tm.Render(map[string]any{"slug": "a"}); err == nil || !strings.Contains(err.Error(), `"tags"`) {
		t.Errorf("a missing name gave %v", err)
	}
	if err := CheckTemplate("{{.a"); err == nil {
		t.Error("an open action compiled")
	}
}

func TestCheckKey(t *testing.T) {
	for key, ok := range map[string]bool{"a": true, "\x00": true, "": false, "#tag:a": false} {
		if err := CheckKey(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// TestPicks: a share takes about that share, the same every time, and a larger share takes all
// that a smaller one does.
func TestPicks(t *testing.T) {
	const n = 20_000
	taken := 0
	for i := range n {
		key := "post:" + strconv.Itoa(i)
		if Picks(0.05, key) {
			taken++
			if !Picks(0.06, key) {
				t.Fatalf("%q is in 5%% but not in 6%%", key)
			}
		}
		if !Picks(0, key) || !Picks(1, key) {
			t.Fatalf("%q is not in everything", key)
		}
	}
	if share := float64(taken) / n; share < 0.045 || share > 0.055 {
		t.Errorf("5%% took %.2f%%", 100*share)
	}
}

func TestProblem(t *testing.T) {
	var ps Problems
	ps.Check("$.a", nil)
	ps.Check("$.b.c", errors.New("wrong"))
	if len(ps) != 1 || ps[0].Error() != "b.c: wrong" || !errors.Is(ps[0], tasks.ErrInvalid) {
		t.Errorf("got %v", ps)
	}
}
