package tasks_test

import (
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// TestSlot holds slots against those that the Redis Cluster specification and CLUSTER KEYSLOT give.
func TestSlot(t *testing.T) {
	for key, want := range map[string]int{
		"123456789": 0x31c3, "foo": 12182, "{foo}bar": 12182, "a{foo}{bar}": 12182, "": 0,
		"foo{}{bar}": 8363, "foo{{bar}}zap": 4015,
	} {
		if got := tasks.Slot(key); got != want {
			t.Errorf("%q: got slot %d, want %d", key, got, want)
		}
	}
}

// TestFenceIn: a release has one fence a slot, each in its own.
func TestFenceIn(t *testing.T) {
	keys := tasks.KeysOf("blog")
	for slot := range tasks.Slots {
		if key := keys.FenceIn("r1", slot); tasks.Slot(key) != slot {
			t.Fatalf("%s lies in slot %d, want %d", key, tasks.Slot(key), slot)
		}
	}
}
