package tasks

import (
	"strconv"
	"strings"
	"sync"
)

// Slots is how many hash slots the keys of a Redis Cluster are divided among.
const Slots = 16384

// Slot returns the hash slot of a key, 0 to [Slots] − 1: the CRC-16 of the key or, where there
// is something between its first { and the next }, of that alone (Redis Cluster specification,
// "Key distribution model" and "Hash tags").
func Slot(key string) int {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if tag, _, ok := strings.Cut(key[open+1:], "}"); ok && tag != "" {
			key = tag
		}
	}
	return int(crc16(key) % Slots)
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, from 0, nothing reflected.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return crc
}

// slotTag returns a number whose text lies in the slot.
func slotTag(slot int) string { return strconv.Itoa(slotTags()[slot]) }

// slotTags finds a number for each slot; that takes some hundredths of a second, once.
var slotTags = sync.OnceValue(func() *[Slots]int {
	var tags [Slots]int
	for n, found := 1, 0; found < Slots; n++ {
		if at := &tags[Slot(strconv.Itoa(n))]; *at == 0 {
			*at = n
			found++
		}
	}
	return &tags
})
