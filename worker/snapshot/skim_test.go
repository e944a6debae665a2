package snapshot

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSkimFindsWhatVerifyFinds: wherever a byte is changed or the file is cut, skimming it is an error
// as reading it is; untouched, both tell the same but for what entries need.
func TestSkimFindsWhatVerifyFinds(t *testing.T) {
	raw := manyBlocks(t)
	var passed int64
	skimmed, err := Skim(t.Context(), bytes.NewReader(raw), func(entries int64) { passed = entries })
	if err != nil {
		t.Fatal(err)
	}
	read, err := Verify(t.Context(), bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(read, skimmed, asWritten); d != "" || passed != read.Entries {
		t.Errorf("%d entries passed, summary (-read +skimmed):\n%s", passed, d)
	}
	if read.Needs.Memory < read.Bytes || skimmed.Needs != (Needs{}) {
		t.Errorf("needs as read %+v, skimmed %+v, of %d bytes", read.Needs, skimmed.Needs, read.Bytes)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		at, bit := random.IntN(len(raw)), byte(1)<<random.IntN(8)
		broken := bytes.Clone(raw)
		broken[at] ^= bit
		if random.IntN(4) == 0 {
			broken = raw[:at]
		}
		// A flipped bit in the version is a newer format, and no damage.
		if _, err := Skim(t.Context(), bytes.NewReader(broken), nil); err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("bit %08b of byte %d flipped, or cut there: %v", bit, at, err)
		}
	}
}
