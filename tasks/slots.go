package tasks

import "strings"

// SlotCount is how many hash slots a Redis Cluster has.
const SlotCount = 16384

// SlotOf returns the hash slot of a key: CRC16 (XMODEM) of the key, or of what stands between its
// first { and the next } where that is not empty. (Redis Cluster specification, "Hash tags".)
func SlotOf(key string) int {
	if from := strings.IndexByte(key, '{'); from >= 0 {
		if n := strings.IndexByte(key[from+1:], '}'); n > 0 {
			key = key[from+1 : from+1+n]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^key[i]]
	}
	return int(crc) % SlotCount
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
