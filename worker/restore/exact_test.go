package restore_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

// TestLargeAndOddEntriesComeBack: a large set, a large string, keys of 64 KiB and of all byte
// values, a stream with a group, and where the server knows them hashes whose fields expire: equal by
// value and by absolute expiry, carried to another release, and after snapshot, expiry and rollback.
// STOKER_TEST_LARGE=1 makes the set one of a million members, and the string one of 64 MiB.
func TestLargeAndOddEntriesComeBack(t *testing.T) {
	w := verbtest.New(t)
	w.Activate("r1", "r2")
	members, size := 50_000, 4<<20
	if os.Getenv("STOKER_TEST_LARGE") == "1" {
		members, size = 1_000_000, 64<<20
	}
	later := time.Now().Add(time.Hour).UnixMilli()
	var every strings.Builder
	for b := range 256 {
		every.WriteByte(byte(b))
	}
	random := rand.New(rand.NewPCG(1, 2))
	large := make([]byte, size)
	for i := 0; i < len(large); i += 64 { // part of it compresses, as pages do
		large[i] = byte(random.Uint32())
	}
	entries := []tasks.Entry{
		{Key: every.String(), Type: tasks.EntryString, Value: every.String(), ExpiresAt: later + 1},
		{Key: strings.Repeat("k", 64<<10), Type: tasks.EntryHash, Items: []string{every.String(), every.String()}, ExpiresAt: later + 2},
		{Key: "large", Type: tasks.EntryString, Value: string(large), ExpiresAt: later + 3},
	}
	for b := range 256 {
		entries = append(entries, tasks.Entry{Key: "byte:" + string([]byte{byte(b)}), Type: tasks.EntryList, Items: []string{string([]byte{byte(b)})}, ExpiresAt: later + int64(b)})
	}
	var puts []namespace.Put
	for _, e := range entries {
		puts = append(puts, namespace.Put{Entry: e})
	}
	w.Must(w.Cache.Put(t.Context(), "r1", puts))
	const step = 10_000
	for i := 0; i < members; i += step {
		batch := make([]any, step)
		for j := range batch {
			batch[j] = fmt.Sprint("member ", i+j)
		}
		w.Must(w.Client.SAdd(t.Context(), w.Template.Key("r1", "million"), batch...).Err())
	}
	stream := w.Template.Key("r1", "stream")
	w.Must(w.Client.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, Values: []string{every.String(), ""}}).Err())
	w.Must(w.Client.XGroupCreate(t.Context(), stream, "g", "0").Err())

	if w.Fields {
		w.Must(w.Cache.Write(t.Context(), "r1", []tasks.Entry{hashOf("packed "+every.String(), 50, later), hashOf("table", 700, later), hashOf("large", members/10, later)}))
	}

	before := w.Entries("r1")
	if len(before) < len(entries)+2 {
		t.Fatalf("%d entries", len(before))
	}
	begun := time.Now()
	lap := func(what string, n int) {
		t.Logf("%s: %d entries in %v", what, n, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	carried := wantCarried(t, w, before, stream)
	lap("carried", carried)
	w.Must(expire(w))
	lap("archived, verified, removed", len(before))
	w.Verify("r1")
	got, err := restore.New(rooms(w, nil)).Drill(t.Context(), verbtest.NewJob("drill"), drillR1)
	w.Must(err)
	if !got.Good || got.Compared != int64(len(before)) {
		t.Errorf("drill %+v of %d entries", got, len(before))
	}
	lap("drilled", int(got.Compared))
	report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), toR1)
	w.Must(err)
	lap("rolled back", int(report.Entries))
	if w.State("r1") != release.Active {
		t.Errorf("r1 is %s", w.State("r1"))
	}
	sameTexts(t, "come back", before, w.Entries("r1"))
}

// sameTexts compares entries that are too large to be shown.
func sameTexts(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	for key, text := range want {
		if got[key] != text {
			t.Errorf("%.80q: %s different (%d and %d bytes of text)", key, what, len(got[key]), len(text))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries %s of %d", len(got), what, len(want))
	}
}

// wantCarried copies all of r1 to another release and returns how many entries that were. Streams are left
// out, since nobody can look into them for names of the source.
func wantCarried(t *testing.T, w *verbtest.World, want map[string]string, stream string) int {
	t.Helper()
	w.Create("r3")
	copied, left := 0, 0
	w.Must(w.Cache.Copy(t.Context(), "r1", "r3", []string{""}, "", func(s namespace.CopySlice) error {
		copied, left = copied+int(s.Copied), left+len(s.Referring)
		return nil
	}))
	want = maps.Clone(want)
	delete(want, "stream")
	sameTexts(t, "are carried", want, w.Entries("r3"))
	if left != 1 {
		t.Errorf("%d entries were left out, want the stream %s alone", left, stream)
	}
	w.Purge("r3")
	return copied
}
