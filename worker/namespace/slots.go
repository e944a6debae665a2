package namespace

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"

	"github.com/alphanode/stoker/tasks"
)

// slotCount is how many hash slots a Redis Cluster has.
const slotCount = tasks.SlotCount

// slotTags returns for each slot a short string that hashes to it.
var slotTags = sync.OnceValue(func() (tags [slotCount]string) {
	for i, missing := 0, slotCount; missing > 0; i++ {
		tag := strconv.FormatInt(int64(i), 36)
		if slot := tasks.SlotOf(tag); tags[slot] == "" {
			tags[slot] = tag
			missing--
		}
	}
	return tags
})

// slotSet is a set of hash slots.
type slotSet [slotCount / 64]uint64

func (s *slotSet) add(slot int) { s[slot/64] |= 1 << (slot % 64) }

func (s *slotSet) has(slot int) bool { return s[slot/64]>>(slot%64)&1 == 1 }

func (s *slotSet) size() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// within reports whether all of the slots are in other as well.
func (s *slotSet) within(other *slotSet) bool {
	for i, word := range s {
		if word&^other[i] != 0 {
			return false
		}
	}
	return true
}

// String writes the slots as the server does, "0-5460,5462", "" for none.
func (s *slotSet) String() string {
	var b strings.Builder
	for slot := 0; slot < slotCount; slot++ {
		if !s.has(slot) {
			continue
		}
		from := slot
		for slot+1 < slotCount && s.has(slot+1) {
			slot++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(from))
		if slot > from {
			b.WriteString("-" + strconv.Itoa(slot))
		}
	}
	return b.String()
}

// addRange adds what String writes between its commas.
func (s *slotSet) addRange(text string) error {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || from < 0 || to < from || to >= slotCount {
		return fmt.Errorf("slots %q, want a range in 0-%d", text, slotCount-1)
	}
	for slot := from; slot <= to; slot++ {
		s.add(slot)
	}
	return nil
}
