package restore

import (
	"container/heap"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

const (
	sampleSize = 2000
	// tolerated is the share of the sample that may be missing without a reason: a cache that
	// evicts may lose entries at any time.
	tolerated = 0.01
	// clockSkew is how far this machine's clock may differ from a server's.
	clockSkew = time.Minute
)

// prove holds the namespace against a sample of the archive: what is missing must have
// expired, or have been invalidated since the snapshot, by its key, a prefix or a tag.
func (t *run) prove(ctx context.Context, d snapshot.Descriptor, sampled []tasks.Entry) error {
	missing, err := t.missing(ctx, d.Release, sampled)
	if err != nil {
		return err
	}
	lost, err := t.unexplained(ctx, d, missing)
	if err != nil {
		return err
	}
	if float64(len(lost)) > tolerated*float64(len(sampled)) {
		return fmt.Errorf("prove: %d of %d entries looked up are missing, %s for one, though neither expired nor invalidated: is the cache Redis evicting or short of memory?",
			len(lost), len(sampled), tasks.Bytes(lost[0]))
	}
	return nil
}

// missing returns the keys of entries that should be there and are not.
func (t *run) missing(ctx context.Context, id string, entries []tasks.Entry) ([]string, error) {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	found, err := t.Cache.Lookup(ctx, id, keys)
	if err != nil {
		return nil, err
	}
	if len(found) != len(keys) {
		return nil, fmt.Errorf("look up %d entries: %d answers", len(keys), len(found))
	}
	var missing []string
	limit := t.Now().Add(clockSkew).UnixMilli()
	for i, e := range entries {
		if !found[i].Exists && (e.ExpiresAt == 0 || e.ExpiresAt > limit) {
			missing = append(missing, e.Key)
		}
	}
	return missing, nil
}

// unexplained returns those of the missing keys that no invalidation since the snapshot named.
func (t *run) unexplained(ctx context.Context, d snapshot.Descriptor, missing []string) ([]string, error) {
	if len(missing) == 0 {
		return nil, nil
	}
	tags, err := t.tagsOf(ctx, d, missing)
	if err != nil {
		return nil, err
	}
	tagged := make([]tasks.Tagged, len(missing))
	for i, key := range missing {
		tagged[i] = tasks.Tagged{Key: key, Tags: tags[key]}
	}
	invalidated, err := t.Log.Check(ctx, markOf(d), tagged)
	if err != nil {
		return nil, err
	}
	var lost []string
	for i, key := range missing {
		if !invalidated[i] {
			lost = append(lost, key)
		}
	}
	return lost, nil
}

// tagsOf reads the keys' tags from the archive's tag indexes. The tag of an index that is
// itself missing is the one it lists.
func (t *run) tagsOf(ctx context.Context, d snapshot.Descriptor, keys []string) (map[string][]string, error) {
	tags := make(map[string][]string, len(keys))
	for _, key := range keys {
		tags[key] = nil
		if tag, ok := tasks.TagOf(key); ok {
			tags[key] = []string{tag}
		}
	}
	err := t.blocks(ctx, d, func(b snapshot.Block) error {
		for _, e := range b.Entries {
			tag, ok := tasks.TagOf(e.Key)
			if !ok || e.Type != tasks.EntryZSet {
				continue
			}
			tag = strings.Clone(tag)
			for i := 0; i < len(e.Items); i += 2 {
				if _, wanted := tags[e.Items[i]]; wanted {
					tags[e.Items[i]] = append(tags[e.Items[i]], tag)
				}
			}
		}
		return nil
	})
	return tags, err
}

// sample keeps the entries whose keys have the smallest hashes: the same ones on every try, a
// fair choice of all, each once.
type sample struct {
	heap sampleHeap
	seen map[uint64]struct{}
}

type sampled struct {
	hash  uint64
	entry tasks.Entry // key and expiry only
}

func (s *sample) add(entries []tasks.Entry) {
	if s.seen == nil {
		s.seen = make(map[uint64]struct{}, sampleSize+1)
	}
	for _, e := range entries {
		h := xxhash.Sum64String(e.Key)
		if _, again := s.seen[h]; again || len(s.heap) == sampleSize && h > s.heap[0].hash {
			continue
		}
		s.seen[h] = struct{}{}
		// A clone: the key is part of its block's text, all of which it would keep.
		heap.Push(&s.heap, sampled{h, tasks.Entry{Key: strings.Clone(e.Key), ExpiresAt: e.GoneAt()}})
		if len(s.heap) > sampleSize {
			delete(s.seen, heap.Pop(&s.heap).(sampled).hash)
		}
	}
}

func (s *sample) entries() []tasks.Entry {
	out := make([]tasks.Entry, len(s.heap))
	for i, it := range s.heap {
		out[i] = it.entry
	}
	return out
}

// sampleHeap has the largest hash on top.
type sampleHeap []sampled

func (h sampleHeap) Len() int           { return len(h) }
func (h sampleHeap) Less(i, j int) bool { return h[i].hash > h[j].hash }
func (h sampleHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sampleHeap) Push(x any)        { *h = append(*h, x.(sampled)) }
func (h *sampleHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
