package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// memory is a source in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

func salvageAll(t *testing.T, raw []byte) (Salvaged, []tasks.Entry) {
	t.Helper()
	var got []tasks.Entry
	s, err := Salvage(t.Context(), memory{bytes.NewReader(raw)}, func(b Block) error {
		got = append(got, b.Entries...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, got
}

// TestSalvageKeepsWhatIsWhole: with any one byte changed, at most one block is lost, and what
// comes back is what was written.
func TestSalvageKeepsWhatIsWhole(t *testing.T) {
	raw := manyBlocks(t)
	at := frames(raw)
	if s, got := salvageAll(t, raw); len(got) != len(testEntries) || s.Lost != nil {
		t.Fatalf("undamaged: %+v", s)
	}
	for i := range raw {
		raw[i] ^= 0x41
		s, got := salvageAll(t, raw)
		inBlock := i >= at[1] && i < at[4]
		if s.Blocks < 2 || !inBlock && s.Blocks != 3 {
			t.Errorf("byte %d changed: %+v", i, s)
		}
		if inBlock && (len(s.Lost) != 1 || s.Lost[0].Offset > int64(i) || s.Lost[0].Entries+s.Entries != int64(len(testEntries))) {
			t.Errorf("byte %d changed: lost %+v", i, s.Lost)
		}
		for _, e := range got {
			found := false
			for _, want := range testEntries {
				found = found || fmt.Sprint(want) == fmt.Sprint(e)
			}
			if !found {
				t.Fatalf("byte %d changed: %+v was never written", i, e)
			}
		}
		raw[i] ^= 0x41
	}
	for n := range raw {
		s, _ := salvageAll(t, raw[:n])
		if want := max(0, len(framesWithin(at, n))-2); s.Blocks != min(want, 3) {
			t.Errorf("cut at %d: %d blocks, want %d", n, s.Blocks, min(want, 3))
		}
	}
}

// framesWithin returns the frames' ends (and the first's beginning) that a cut leaves.
func framesWithin(at []int, n int) (kept []int) {
	for _, end := range at {
		if end <= n {
			kept = append(kept, end)
		}
	}
	return kept
}

// TestFlippedBitsOfALargeArchive flips bits at random places, as many as STOKER_TEST_FLIPS says.
func TestFlippedBitsOfALargeArchive(t *testing.T) {
	flips := 200
	if text := os.Getenv("STOKER_TEST_FLIPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("STOKER_TEST_FLIPS %q: want a number", text)
		}
		flips = n
	}
	seed := rand.Uint64()
	t.Logf("seed %d, %d flips", seed, flips)
	random := rand.New(rand.NewPCG(seed, 0))
	var entries []tasks.Entry
	for i := range 3000 {
		value := make([]byte, 700)
		for j := range value {
			value[j] = byte(random.Uint32() >> 3)
		}
		entries = append(entries, tasks.Entry{Key: fmt.Sprint("post:", i), Type: tasks.EntryString, Value: string(value)})
	}
	raw, _ := archive(t, entries...)
	for range flips {
		i, bit := random.IntN(len(raw)), random.IntN(8)
		raw[i] ^= 1 << bit
		if _, err := Verify(t.Context(), bytes.NewReader(raw)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d of byte %d of %d flipped: %v", bit, i, len(raw), err)
		}
		raw[i] ^= 1 << bit
	}
}
