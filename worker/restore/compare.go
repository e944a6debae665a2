package restore

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// shownKeys is how many keys a report shows.
const shownKeys = 5

// readBatch is how many entries are read in one step of the server.
const readBatch = 200

// expirySlack is by how many milliseconds an expiry may be off: the server rounds.
const expirySlack = 1

// comparison holds a scratch namespace against an archive, block by block.
type comparison struct {
	scratch  string
	cache    Cache
	now      func() time.Time
	compared int64
	expired  int64
	wrong    map[string]struct{} // keys; an archive may hold a key twice, and the later one counts
}

// block compares the entries of one block.
func (c *comparison) block(ctx context.Context, entries []tasks.Entry) error {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	restored := make(map[string]tasks.Entry, len(keys))
	for batch := range slices.Chunk(keys, readBatch) {
		found, err := c.cache.Get(ctx, c.scratch, batch)
		if err != nil {
			return err
		}
		for _, e := range found {
			restored[e.Key] = e
		}
	}
	limit := c.now().Add(clockSkew).UnixMilli()
	for _, e := range entries {
		got, there := restored[e.Key]
		if gone := e.GoneAt(); !there && gone != 0 && gone < limit {
			c.expired++
			continue
		}
		c.compared++
		if there && same(e, got, limit) {
			delete(c.wrong, e.Key)
			continue
		}
		if c.wrong == nil {
			c.wrong = map[string]struct{}{}
		}
		c.wrong[strings.Clone(e.Key)] = struct{}{}
	}
	return nil
}

func (c *comparison) different() int64 { return int64(len(c.wrong)) }

func (c *comparison) examples() (keys []tasks.Bytes) {
	for _, key := range slices.Sorted(maps.Keys(c.wrong))[:min(len(c.wrong), shownKeys)] {
		keys = append(keys, tasks.Bytes(key))
	}
	return keys
}

// same compares by type, value and expiry, whatever the order of what has none. A tag index may
// hold more than the archive's: what is in the archive twice is added up. A hash may lack fields that
// expire before limit, in Unix milliseconds.
func same(want, got tasks.Entry, limit int64) bool {
	if want.Type != got.Type || want.Value != got.Value || !sameExpiry(want.ExpiresAt, got.ExpiresAt) {
		return false
	}
	if len(want.FieldsExpireAt)+len(got.FieldsExpireAt) > 0 {
		return want.Type == tasks.EntryHash && sameFields(want, got, limit)
	}
	_, index := tasks.TagOf(want.Key)
	if !index && len(want.Items) != len(got.Items) {
		return false
	}
	switch want.Type {
	case tasks.EntrySet:
		return slices.Equal(slices.Sorted(slices.Values(want.Items)), slices.Sorted(slices.Values(got.Items)))
	case tasks.EntryHash, tasks.EntryZSet:
		return samePairs(want, got.Items)
	}
	return slices.Equal(want.Items, got.Items)
}

func sameExpiry(a, b int64) bool {
	d := a - b
	return (a == 0) == (b == 0) && -expirySlack <= d && d <= expirySlack
}

// samePairs reports whether all of a hash's fields, or a sorted set's members, are there.
func samePairs(want tasks.Entry, got []string) bool {
	have := make(map[string]string, len(got)/2)
	for pair := range slices.Chunk(got, 2) {
		have[pair[0]] = pair[1]
	}
	for pair := range slices.Chunk(want.Items, 2) {
		value, ok := have[pair[0]]
		if !ok || value != pair[1] && !(want.Type == tasks.EntryZSet && sameScore(value, pair[1])) {
			return false
		}
	}
	return true
}

// sameFields compares hashes of which one at least has fields that expire.
func sameFields(want, got tasks.Entry, limit int64) bool {
	type field struct {
		value  string
		expiry int64
	}
	fieldOf := func(e tasks.Entry, i int) field {
		f := field{value: e.Items[2*i+1]}
		if i < len(e.FieldsExpireAt) {
			f.expiry = e.FieldsExpireAt[i]
		}
		return f
	}
	have := make(map[string]field, len(got.Items)/2)
	for i := range len(got.Items) / 2 {
		have[got.Items[2*i]] = fieldOf(got, i)
	}
	for i := range len(want.Items) / 2 {
		w := fieldOf(want, i)
		g, ok := have[want.Items[2*i]]
		if !ok && w.expiry != 0 && w.expiry < limit {
			continue
		}
		if !ok || g.value != w.value || !sameExpiry(g.expiry, w.expiry) {
			return false
		}
		delete(have, want.Items[2*i])
	}
	return len(have) == 0
}

func sameScore(a, b string) bool {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	return errA == nil && errB == nil && x == y
}
