package redistest

import (
	"testing"
	"time"
)

// patience is far more than anything takes that is not broken, also on a busy machine.
const patience = time.Minute

// Eventually waits until done reports true, asking often, and fails the test with what was
// waited for when a minute passes first. For conditions that no signal tells of.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
