package tasks

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// On a Cluster an entry and its tags' indexes are on different servers. A replica that takes the place
// of an index's primary may lack what was listed last, and then no invalidation of the tag would find the
// entry, which lives on elsewhere. So a fill notes first, in the entry's own slot, what it is about to
// list. The note is as durable as the entry: it comes before it in what the slot's server sends to its
// replicas. After a failover the workers list again what the notes name (package invalidation).

// listingLife is how long notes of what was listed are kept: far longer than a replica that is
// promoted may be behind.
const listingLife = 5 * time.Minute

// Listing is an entry that a fill has listed, or is about to.
type Listing = Tagged

// ListingKeys returns for each slot of a Cluster the key of the notes that a release has there: a ZSET of
// listings → when each was noted, in Unix milliseconds. They are keys of the release's namespace, so
// whoever may fill it may write them; their names are found by trying. nil: the template keeps a
// release in one slot, where an index lies with its entries.
func ListingKeys(tmpl Template, release string) []string {
	name := func(i int) string { return tmpl.Key(release, listingPrefix+strconv.FormatInt(int64(i), 36)) }
	if slot := SlotOf(name(0)); SlotOf(name(1)) == slot && SlotOf(name(2)) == slot {
		return nil
	}
	keys := make([]string, SlotCount)
	for i, missing := 0, SlotCount; missing > 0; i++ {
		key := name(i)
		if slot := SlotOf(key); keys[slot] == "" {
			keys[slot] = key
			missing--
		}
	}
	return keys
}

// ParseListing reads a note.
func ParseListing(text string) (Listing, error) {
	var note []Bytes
	if err := json.Unmarshal([]byte(text), &note); err != nil || len(note) == 0 {
		return Listing{}, fmt.Errorf("%w: listing %.80q: want a key and its tags", ErrInvalid, text)
	}
	l := Listing{Key: string(note[0])}
	for _, tag := range note[1:] {
		l.Tags = append(l.Tags, string(tag))
	}
	return l, nil
}

// lister notes listings. It remembers the keys of one release's notes: fills are of one release for
// long. It is safe for concurrent use.
type lister struct {
	mu      sync.Mutex
	release string   // guarded by mu, as all below
	keys    []string // nil before the first note as well
}

func (l *lister) keysOf(tmpl Template, release string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.release != release {
		l.release, l.keys = release, ListingKeys(tmpl, release)
	}
	return l.keys
}

// note queues notes of what is about to be listed; now is in Unix milliseconds. There is nothing to note
// but on a Cluster.
func (l *lister) note(ctx context.Context, p redis.Pipeliner, tmpl Template, release string, now int64, entries ...Listing) {
	keys := l.keysOf(tmpl, release)
	if keys == nil {
		return
	}
	for _, e := range entries {
		if len(e.Tags) == 0 {
			continue
		}
		note := []Bytes{Bytes(e.Key)}
		for _, tag := range e.Tags {
			note = append(note, Bytes(tag))
		}
		text, _ := json.Marshal(note) // strings: cannot fail
		key := keys[SlotOf(tmpl.Key(release, e.Key))]
		p.ZRemRangeByScore(ctx, key, "-inf", strconv.FormatInt(now-listingLife.Milliseconds(), 10))
		p.ZAdd(ctx, key, redis.Z{Score: float64(now), Member: text})
		p.PExpire(ctx, key, listingLife)
	}
}
