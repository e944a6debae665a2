package redistest

import (
	"testing"
	"time"
)

// Eventually waits until done reports true, asking often, and fails the test with what was
// waited for when ten seconds pass first. For conditions that no signal tells of.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited ten seconds for %s", what)
		}
	}
}
