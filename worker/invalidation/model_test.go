package invalidation_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// The model: an origin whose keys have versions, two live namespaces (r1 active, r2 on standby) and
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
	deadSource       flaw = "a carry begins from a release that is not live"
	membersForgotten flaw = "a removal forgets the tag's members"
	marksSkipped     flaw = "a removal skips the members that an earlier one marked"
	indexesReadFirst flaw = "a snapshot reads the indexes before the entries"
	trimmedTooFar    flaw = "the log is trimmed below an open mark, and its floor stays"
	tagsNotCarried   flaw = "the reaper of a dead carry does not complete its tags"
	anyCompanion     flaw = "a companion counts for any value"
	byExpiryOnly     flaw = "a companion counts for any value with its expiry"
	retagForgotten   flaw = "a removal drops the member of an entry that has other tags by now"
)

// breaks are the flaws that lie in a script: what is replaced there, and by what.
var breaks = map[flaw][]string{
	deadSource:       {"if ARGV[7] ~= '' and", "if false and"},
	membersForgotten: {"'ZADD', KEYS[1], gone, found[i]", "'ZREM', KEYS[1], found[i]"},
	marksSkipped:     {"if not retagged(", "if string.sub(found[i + 1], 1, 1) ~= '-' and not retagged("},
	trimmedTooFar:    {"for i = 5, #KEYS do", "for i = 5, 0 do", "redis.call('HSET', KEYS[1], 'floor', text)", ""},
	anyCompanion:     {"local expiry = redis.call('PEXPIRETIME', entry)", "do return true end\nlocal expiry"},
	byExpiryOnly:     {"local value = redis.call('MGET', entry)[1]", "do return true end\nlocal value"},
	retagForgotten:   {"there = redis.call('UNLINK', entry)\n", "there = redis.call('UNLINK', entry)\n  else\n    redis.call('ZREM', KEYS[1], found[i])\n    found[i + 1] = '-'\n"},
}

// noTags is a [worker.TagCopier] that does nothing.
type noTags struct{}

func (noTags) CopyTags(context.Context, string, string) error { return nil }

// scene is the actors whose meeting shows a flaw.
type scene struct {
	flaw   flaw
	cast   string
	faults []int // one step in how many goes wrong
	from   int   // a seed from which it is found soon: that only saves time
}

var (
	none = []int{never}
	many = []int{16, 8}
)

// scenes show a flaw each. A sound history draws one of these casts, and others into it.
var scenes = []scene{
	{lateMark, "edit a:1, warm a:1", none, 0},
	{pendingIgnored, "edit a:1, warm a:1", none, 0},
	{newMark, "edit a:1 gone, warm r2 a:1 one", many, 760},
	{uncheckedFill, "edit a:1 there, fill a:1", none, 0},
	{noProbation, "edit a:1 there, fill a:1", many, 0},
	{writersIgnored, "edit a:1 there key, clock 31s, warm r1 a:1 one, carry", none, 655},
	{fillsIgnored, "edit a:1 there key, fill r1 a:1, carry", none, 610},
	{deadSource, "flip, expire, edit a:1 there key, clock 31s, carry", none, 240},
	{membersForgotten, "edit tag, comeback", none, 0},
	{marksSkipped, "warm r1, replay r1", none, 0},
	{indexesReadFirst, "edit, fill r1, comeback", none, 690},
	{trimmedTooFar, "edit a:1 there key, clock 61m, trim, warm r2 a:1 one", none, 0},
	{tagsNotCarried, "warm r1 a:1 one, carry", many, 0},
	{anyCompanion, "warm r1 a:1 one 24h, slip a:1, plain r1 a:1, edit a:1 tag there", none, 0},
	{byExpiryOnly, "warm r1 a:1 one 24h, slip a:1, plain r1 a:1 keep, edit a:1 tag there", none, 0},
	{retagForgotten, "slip a:1, warm r1 a:1 one 24h, slip a:1, warm r1 a:1 one 24h, replay r1", none, 0},
}

func sceneOf(f flaw) scene {
	return scenes[slices.IndexFunc(scenes, func(s scene) bool { return s.flaw == f })]
}

// kinds are those that join any scene.
var kinds = []string{"edit", "fill", "clock", "warm", "carry", "comeback", "sweep", "reap", "prune", "trim", "replay", "plain", "slip", "flip", "expire"}

// enroll draws the actors: those of the flaw's scene, or of any scene with others.
func (w *world) enroll() {
	if w.flaw != sound {
		w.enterAll(sceneOf(w.flaw).cast)
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
		for word := range strings.FieldsSeq(detail) {
			if slices.Contains(from, word) {
				return word
			}
		}
		return rapid.SampledFrom(from).Draw(w.t, label)
	}
	release := draw("release", "r2", "r1")
	key := draw("key", "a:1", "a:1", "b:1")
	ttl := func() time.Duration {
		if draw("ttl", "24h", "ever") == "ever" {
			return 0
		}
		return 24 * time.Hour
	}
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
		a.work = w.edit(key, by, draw("tags", "stay", "retag"), draw("then", "there", "there", "gone") == "gone")
	case "slip":
		a.work = w.slip(key)
	case "plain":
		a.work = w.plain(release, key, draw("expiry", "keep", "drop") == "keep")
	case "fill":
		a.tries = 0
		a.work = w.fill(release, key, ttl())
	case "warm":
		chunks := map[string][][]string{"one": {{key}}, "apart": {{"a:1"}, {"b:1"}}, "both": {{"a:1", "b:1"}}}
		a.work = w.warm(release, a.id, ttl(), chunks[draw("chunks", "one", "apart", "both")])
	case "carry":
		a.work = w.carry(a.id, draw("family", "", "a:"))
	case "comeback":
		if n > 1 {
			return // there is one r3
		}
		a.work = w.comeBack(a.id)
	case "clock":
		a.tries = 0
		by, err := time.ParseDuration(draw("by", "1ms", "10s", "31s", "61m"))
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
	case "flip":
		a.work = w.flip
	case "expire":
		a.work = w.expire(a.id)
	}
	w.actors = append(w.actors, a)
}

// play lets the actors take their steps in an order, and with faults, that dice decide: rapid's own
// numbers are mostly small ones, and the schedules made of them much alike.
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
	dice := newDice(w.t)
	rash, calm, faults := dice.oneIn(2, 4, 8, 16), dice.oneIn(8, 32, 128), dice.oneIn(never, never, 64, 16)
	if w.flaw != sound {
		faults = dice.oneIn(sceneOf(w.flaw).faults...)
	}
	at := dice.IntN(len(w.actors))
	for {
		w.actors = slices.DeleteFunc(w.actors, func(a *actor) bool { return a.over })
		if len(w.actors) == 0 {
			return
		}
		// Mostly the one that ran last goes on: a rare switch at the right place shows more
		// than many switches anywhere.
		switches := calm
		if at < len(w.actors) && w.actors[at].writes {
			switches = rash
		}
		if at >= len(w.actors) || switches() {
			at = dice.IntN(len(w.actors))
		}
		next := well
		if faults() {
			next = []turn{dies, refused, lost}[dice.IntN(3)]
		}
		w.actors[at].advance(next)
	}
}

// dice are fair ones, from one throw of rapid's.
type dice struct{ *rand.Rand }

func newDice(t *rapid.T) dice {
	var seed uint64
	for _, bit := range rapid.SliceOfN(rapid.Bool(), 64, 64).Draw(t, "dice") {
		seed <<= 1
		if bit {
			seed |= 1
		}
	}
	return dice{rand.New(rand.NewPCG(seed, 0))}
}

const never = math.MaxInt

// oneIn returns an event that happens once in n times, n being one of those given.
func (d dice) oneIn(n ...int) func() bool {
	odds := n[d.IntN(len(n))]
	return func() bool { return d.IntN(odds) == 0 }
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
	if bad := w.pointer(); bad != "" {
		return bad
	}
	live, err := w.mini.SMembers(keys.Live())
	w.must(err)
	for _, id := range live {
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
	for _, tag := range allTags {
		for _, key := range names {
			w.bump(key, w.present(key).tags, false)
		}
		named := []tasks.Target{{Kind: tasks.KindTag, Name: tasks.Bytes(tag)}}
		w.promise(named)
		ctx = w.alone("edit")
		_, err := w.log.Record(ctx, w.record(named...))
		w.must(err)
		_, err = w.applier.Apply(ctx)
		w.must(err)
		if bad := w.stale(nil); bad != "" {
			return bad + ", which its tags do not find"
		}
	}
	return ""
}

// pointer says what is wrong with the releases' states, or "".
func (w *world) pointer() string {
	active, err := w.mini.Get(keys.Active())
	w.must(err)
	for _, id := range []string{"r1", "r2"} {
		state := release.State(w.mini.HGet(keys.Release(id), "state"))
		live, err := w.mini.SIsMember(keys.Live(), id)
		w.must(err)
		if (state == release.Active) != (id == active) || live != state.Live() {
			return fmt.Sprintf("%s is %s, live %v, and the active release is %s", id, state, live, active)
		}
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
			if w.invalid[key][n] {
				return fmt.Sprintf("%s holds %s of version %d, which was invalidated", id, key, n)
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
	if wrong = w.settled(); wrong != "" {
		steps = w.steps()
	}
	return wrong, steps
}

// histories is how many histories the model plays.
func histories(t *testing.T) int {
	text := os.Getenv("STOKER_TEST_HISTORIES")
	if text == "" {
		return 1000
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
	s := newStage(t, sound)
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

// The model finds what it should: each rule of the protocol, broken, shows. `make model` searches
// from the first seed on; else the search begins where it once was short.
func TestTheModelFindsBrokenRules(t *testing.T) {
	for _, scene := range scenes {
		t.Run(string(scene.flaw), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, scene.flaw)
			var steps string
			play := rapid.Custom(func(t *rapid.T) (wrong string) {
				wrong, steps = history(t, s, scene.flaw)
				return wrong
			})
			const limit = 30_000
			from := scene.from
			if os.Getenv("STOKER_TEST_HISTORIES") != "" {
				from = 0
			}
			for seed := from; seed < from+limit; seed++ {
				if wrong := play.Example(seed); wrong != "" {
					t.Logf("seed %d, after %d histories: %s", seed, seed-from+1, wrong)
					if os.Getenv("STOKER_TEST_HISTORIES") != "" {
						t.Log("\n" + steps)
					}
					return
				}
			}
			t.Errorf("%d histories show nothing", limit)
		})
	}
}
