package invalidation_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
)

// The model: an origin whose keys have versions, two live namespaces (r1 active, r2 warming) and
// one that is restored from r1's snapshot (r3). Editors, workers and app servers run the real
// code against real scripts; a scheduler that rapid drives lets one of them at a time take one
// round trip, kills them, and loses their replies. When all have come to their end, no live
// namespace may hold an entry older than its last invalidation.

// flaw is a rule of the protocol that a history breaks on purpose.
type flaw string

const (
	sound            flaw = ""
	lateMark         flaw = "the mark is taken after the read"
	pendingIgnored   flaw = "the mark ignores what is pending"
	newMark          flaw = "a retry takes a new mark"
	uncheckedFill    flaw = "a fill is not checked"
	noProbation      flaw = "a fill is put without probation"
	writersIgnored   flaw = "a carry's mark ignores the source's writers"
	fillsIgnored     flaw = "a carry's mark ignores the source's fills"
	membersForgotten flaw = "a removal forgets the tag's members"
	marksSkipped     flaw = "a removal skips the members that an earlier one marked"
	indexesReadFirst flaw = "a snapshot reads the indexes before the entries"
)

// scenes are the actors whose meeting shows a flaw. A sound history draws one of these casts, and
// others into it. The search for a history that shows the flaw begins at seed from, which only
// saves time: some take thousands from 0.
var scenes = []struct {
	flaw flaw
	cast string
	from int
}{
	{lateMark, "edit, warm", 0},
	{pendingIgnored, "edit, warm", 0},
	{newMark, "edit gone, warm r2", 4300},
	{uncheckedFill, "edit, fill", 1000},
	{noProbation, "edit, fill", 550},
	{writersIgnored, "edit, warm r1, carry, clock 31s", 0},
	{fillsIgnored, "edit, fill r1, carry", 4050},
	{membersForgotten, "edit tag, comeback", 0},
	{marksSkipped, "warm r1, replay r1", 0},
	{indexesReadFirst, "edit, fill r1, comeback", 0},
}

// kinds are those that join any scene.
var kinds = []string{"edit", "fill", "clock", "warm", "carry", "comeback", "sweep", "reap", "prune", "trim", "replay"}

// enroll draws the actors: those of the flaw's scene, or of any scene with others.
func (w *world) enroll() {
	if w.flaw != sound {
		for _, scene := range scenes {
			if scene.flaw == w.flaw {
				w.enterAll(scene.cast)
			}
		}
		return
	}
	w.enterAll(rapid.SampledFrom(scenes).Draw(w.t, "scene").cast)
	for range rapid.IntRange(0, 3).Draw(w.t, "others") {
		w.enter(rapid.SampledFrom(kinds).Draw(w.t, "actor"), "")
	}
}

func (w *world) enterAll(cast string) {
	for part := range strings.SplitSeq(cast, ", ") {
		kind, detail, _ := strings.Cut(part, " ")
		w.enter(kind, detail)
	}
}

// enter draws what an actor of a kind does, as far as detail leaves it open.
func (w *world) enter(kind, detail string) {
	draw := func(label string, from ...string) string {
		if detail != "" && slices.Contains(from, detail) {
			return detail
		}
		return rapid.SampledFrom(from).Draw(w.t, label)
	}
	release := draw("release", "r2", "r1")
	key := draw("key", "a:1", "a:1", "b:1")
	n := 1
	for _, a := range w.actors {
		if strings.HasPrefix(a.id, kind) {
			n++
		}
	}
	a := &actor{w: w, id: fmt.Sprint(kind, n), tries: rapid.IntRange(0, 2).Draw(w.t, "retries")}
	switch kind {
	case "edit":
		by := tasks.Kind(draw("by", string(tasks.KindKey), string(tasks.KindTag), string(tasks.KindPrefix)))
		a.work = w.edit(key, by, draw("then", "there", "there", "gone") == "gone")
	case "fill":
		a.tries = 0
		a.work = w.fill(release, key, rapid.SampledFrom([]time.Duration{0, 24 * time.Hour}).Draw(w.t, "ttl"))
	case "warm":
		chunks := rapid.SampledFrom([][][]string{{{"a:1"}}, {{"a:1"}, {"b:1"}}, {{"a:1", "b:1"}}}).Draw(w.t, "chunks")
		a.work = w.warm(release, a.id, chunks)
	case "carry":
		a.work = w.carry(a.id, draw("family", "", "a:"))
	case "comeback":
		if n > 1 {
			return // there is one r3
		}
		a.work = w.comeBack(a.id)
	case "clock":
		a.tries = 0
		by, err := time.ParseDuration(draw("by", "1ms", "10s", "31s"))
		w.must(err)
		a.work = w.tick(by)
	case "sweep":
		a.work = w.sweep
	case "reap":
		a.work = w.reap
	case "prune":
		a.work = w.prune(release)
	case "trim":
		a.work = w.trim
	case "replay":
		a.work = w.replay(release)
	}
	w.actors = append(w.actors, a)
}

// play lets the actors take their steps in an order that rapid draws, with faults.
func (w *world) play() {
	defer func() {
		for _, a := range w.actors {
			if a.stop != nil {
				a.stop()
			}
		}
	}()
	for _, a := range w.actors {
		a.begin()
	}
	faults := []turn{well, dies, refused, lost}
	calm := rapid.SampledFrom([]int{31, 15, 7}).Draw(w.t, "calm")
	safe := rapid.SampledFrom([]int{63, 31, 15}).Draw(w.t, "safe")
	at := 0
	for {
		w.actors = slices.DeleteFunc(w.actors, func(a *actor) bool { return a.over })
		if len(w.actors) == 0 {
			return
		}
		// Mostly the one that ran last goes on: a rare switch at the right place shows more
		// than many switches anywhere.
		if by := rapid.IntRange(0, max(calm, len(w.actors)-1)).Draw(w.t, "switch"); by < len(w.actors) {
			at += by
		}
		at %= len(w.actors)
		// From the far end, where rapid draws less often and never shrinks to.
		if bad := safe - 1 - rapid.IntRange(0, safe).Draw(w.t, "turn"); bad >= 0 && bad < len(faults) {
			w.actors[at].advance(faults[bad])
		} else {
			w.actors[at].advance(well)
		}
	}
}

// settled brings everything to its end and returns what is wrong then, or "".
func (w *world) settled() string {
	ctx := w.alone("settle")
	_, err := w.applier.Sweep(ctx, 0)
	w.must(err)
	// A restore that was given up is not served; the next one clears it first.
	if w.gone["comeback1"] {
		w.must(w.rdb.SRem(ctx, keys.Live(), "r3").Err())
	}
	_, err = w.marks.Reap(ctx)
	w.must(err)
	for _, id := range []string{"r1", "r2"} {
		open, err := w.log.OpenMarks(ctx, id)
		w.must(err)
		if len(open) > 0 {
			return fmt.Sprintf("%s: open marks %v", id, open)
		}
	}
	if bad := w.stale(w.doomed); bad != "" {
		return bad
	}
	w.advance(fillLimit + time.Second)
	if bad := w.stale(nil); bad != "" {
		return bad + " for good"
	}
	w.count()
	// What is right now must be found by its tags when they are next invalidated.
	tags := []tasks.Target{{Kind: tasks.KindTag, Name: "t1"}, {Kind: tasks.KindTag, Name: "t2"}}
	for _, key := range names {
		w.bump(key, false)
	}
	w.promise(tags)
	ctx = w.alone("edit")
	_, err = w.log.Record(ctx, w.record(tags...))
	w.must(err)
	_, err = w.applier.Apply(ctx)
	w.must(err)
	if bad := w.stale(nil); bad != "" {
		return bad + ", which its tags do not find"
	}
	return ""
}

// count counts the entries that histories leave in each namespace.
func (w *world) count() {
	for _, id := range releases {
		for _, key := range names {
			if w.mini.Exists(w.tmpl.Key(id, key)) {
				w.left[id]++
			}
		}
	}
}

// stale names an entry of a live namespace that is older than its last invalidation, other than
// those excepted.
func (w *world) stale(except map[string]bool) string {
	live, err := w.mini.SMembers(keys.Live())
	w.must(err)
	for _, id := range live {
		for _, key := range names {
			value, err := w.mini.Get(w.tmpl.Key(id, key))
			if err != nil || except[id+"/"+key] {
				continue
			}
			n, err := strconv.Atoi(value)
			w.must(err)
			if n < w.need[key] {
				return fmt.Sprintf("%s holds %s of version %d, invalidated at %d", id, key, n, w.need[key])
			}
		}
	}
	return ""
}

// history plays one and returns what is wrong at its end, with its steps.
func history(t *rapid.T, s *stage, f flaw) (wrong, steps string) {
	w := newWorld(t, s, f)
	w.enroll()
	w.play()
	wrong = w.settled()
	return wrong, strings.Join(w.notes, "\n")
}

// histories is how many histories the model plays.
func histories(t *testing.T) int {
	text := os.Getenv("STOKER_TEST_HISTORIES")
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("STOKER_TEST_HISTORIES %q: want a number", text)
	}
	return n
}

// No history of edits, fills, warms, carries, snapshots and restores, with processes that die
// and replies that get lost anywhere, leaves a stale entry behind.
func TestNoHistoryLeavesAStaleEntry(t *testing.T) {
	set(t, "rapid.checks", strconv.Itoa(histories(t)))
	set(t, "rapid.nofailfile", "true") // the seed, which is printed, says it all
	s := newStage(t)
	rapid.Check(t, func(t *rapid.T) {
		if wrong, steps := history(t, s, sound); wrong != "" {
			t.Fatalf("%s, after\n%s", wrong, steps)
		}
	})
	t.Logf("entries left, all fresh: %v", s.left)
	for _, id := range releases {
		if s.left[id] == 0 && !t.Failed() {
			t.Errorf("no history left an entry in %s: nothing was tested there", id)
		}
	}
}

// set sets a flag for the time of the test.
func set(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	before := f.Value.String()
	t.Cleanup(func() { _ = f.Value.Set(before) })
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
}

// The model finds what it should: each rule of the protocol, broken, shows. It takes minutes:
// `make model`.
func TestTheModelFindsBrokenRules(t *testing.T) {
	if os.Getenv("STOKER_TEST_HISTORIES") == "" {
		t.Skip("the search for broken rules takes minutes: make model")
	}
	for _, scene := range scenes {
		f := scene.flaw
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			var steps string
			play := rapid.Custom(func(t *rapid.T) (wrong string) {
				wrong, steps = history(t, s, f)
				return wrong
			})
			const limit = 15_000
			for seed := scene.from; seed < scene.from+limit; seed++ {
				if wrong := play.Example(seed); wrong != "" {
					t.Logf("seed %d, after %d histories: %s", seed, seed-scene.from+1, wrong)
					if testing.Verbose() {
						t.Log("\n" + steps)
					}
					return
				}
			}
			t.Errorf("%d histories show nothing", limit)
		})
	}
}
