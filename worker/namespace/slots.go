package namespace

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
)

// slotCount is how many hash slots a Redis Cluster has.
const slotCount = 16384

// slotOf returns the hash slot of a key: CRC16 (XMODEM) of the key, or of what stands between its
// first { and the next } where that is not empty. (Redis Cluster specification, "Hash tags".)
func slotOf(key string) int {
	if from := strings.IndexByte(key, '{'); from >= 0 {
		if n := strings.IndexByte(key[from+1:], '}'); n > 0 {
			key = key[from+1 : from+1+n]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^key[i]]
	}
	return int(crc) % slotCount
}

// crc16 is the table of the CRC with polynomial 0x1021, highest bit first.
var crc16 = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc & 0x8000
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1021
			}
		}
		table[i] = crc
	}
	return table
}()

// slotTags returns for each slot a short string that hashes to it.
var slotTags = sync.OnceValue(func() (tags [slotCount]string) {
	for i, missing := 0, slotCount; missing > 0; i++ {
		tag := strconv.FormatInt(int64(i), 36)
		if slot := slotOf(tag); tags[slot] == "" {
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
