package invalidation

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed watermark.lua
	watermarkLua string
	//go:embed applied.lua
	appliedLua string

	watermarkScript = redis.NewScript(watermarkLua)
	appliedScript   = redis.NewScript(appliedLua)
)

// watermark is up to where the log is applied, for each live release: what a server of the cache Redis
// notes.
type watermark struct {
	Epoch   string           `json:"epoch"` // of the log
	Numbers map[string]int64 `json:"numbers"`
}

// of returns the number from which a release has to be replayed on a server with this watermark: 0, the
// log's beginning, where it does not know the release. short reports that the log r does not hold all
// that is needed. A server without a watermark is an empty one: it needs nothing.
func (w watermark) of(release string, r reach) (from int64, short bool) {
	if w.Epoch != r.Epoch {
		return 0, w.Epoch != ""
	}
	from, known := w.Numbers[release]
	return from, known && from < r.floor
}

// reach is the log's side of a look at the cache Redis.
type reach struct {
	watermark
	floor int64
	known []string // servers of the cache Redis that lack no removal; none before the first look
}

// reached reads up to where the log is applied in each of the releases. It goes back as far as
// whoever reads from the cache does: a server that takes another's place is a copy of it.
func (l *Log) reached(ctx context.Context, releases []string) (reach, error) {
	keys := []string{l.keys.LogMeta(), l.keys.Pending(), l.keys.CacheServers()}
	for _, id := range releases {
		keys = append(keys, l.keys.Marks(id))
	}
	reply, err := appliedScript.Run(ctx, l.queue, keys, l.cacheLag().Microseconds()).StringSlice()
	if err != nil {
		return reach{}, fmt.Errorf("read how far the log is applied: %w", err)
	}
	if len(reply) != 3+len(releases) {
		return reach{}, fmt.Errorf("read how far the log is applied: %d values of %d releases", len(reply), len(releases))
	}
	r := reach{watermark: watermark{Epoch: reply[0], Numbers: map[string]int64{}}, known: strings.Fields(reply[2])}
	numbers := make([]int64, len(reply))
	for i, text := range reply {
		if i == 0 || i == 2 {
			continue
		}
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return reach{}, fmt.Errorf("read how far the log is applied: %w", err)
		}
	}
	r.floor = numbers[1]
	for i, id := range releases {
		r.Numbers[id] = numbers[3+i]
	}
	return r, nil
}

// server is one server of the cache Redis, as a look found it.
type server struct {
	identity string // "" when it does not tell its process
	watermark
}

// note visits every server of the cache Redis, notes the watermark on those that are known, and
// returns all of them with the watermark that they had.
func (a *Applier) note(ctx context.Context, r reach) ([]server, error) {
	places, err := a.places(ctx)
	if err != nil {
		return nil, err
	}
	note, err := json.Marshal(r.watermark)
	if err != nil {
		return nil, err
	}
	found := make([]server, len(places))
	for i, key := range places {
		on := []string{key}
		if !tasks.Sharded(a.cache) {
			on = append(on, a.log.keys.Followers(""))
		}
		reply, err := watermarkScript.Run(ctx, a.cache, on, strings.Join(r.known, " "), note).StringSlice()
		if err != nil {
			return nil, err
		}
		if len(reply) != 2 {
			return nil, fmt.Errorf("want a server and its watermark, got %q", reply)
		}
		found[i].identity = reply[0]
		// One that cannot be read is worth as much as none: the replay starts at the log's beginning.
		if json.Unmarshal([]byte(reply[1]), &found[i].watermark) != nil {
			found[i].watermark = watermark{}
		}
	}
	return found, nil
}

// places returns the keys of the watermarks: one, or on a Cluster one on every primary.
func (a *Applier) places(ctx context.Context) ([]string, error) {
	cluster, ok := a.cache.(*redis.ClusterClient)
	if !ok {
		return []string{a.log.keys.Watermark(0)}, nil
	}
	shards, err := cluster.ClusterShards(ctx).Result()
	if err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(shards, func(s redis.ClusterShard) bool { return len(s.Slots) == 0 })
	var keys []string
	for n := 0; len(left) > 0; n++ {
		slot, err := a.slots.of(ctx, cluster, a.log.keys, n)
		if err != nil {
			return nil, err
		}
		found := slices.IndexFunc(left, func(s redis.ClusterShard) bool {
			return slices.ContainsFunc(s.Slots, func(r redis.SlotRange) bool { return r.Start <= int64(slot) && int64(slot) <= r.End })
		})
		if found >= 0 {
			keys = append(keys, a.log.keys.Watermark(n))
			left = slices.Delete(left, found, found+1)
		}
	}
	return keys, nil
}

// slots remembers in which slot of a Cluster each watermark lies. It is safe for concurrent use.
type slots struct {
	mu    sync.Mutex
	known []int // guarded by mu
}

const (
	slotBatch  = 256       // watermarks whose slots are asked for at a time
	mostPlaces = 64 * 1024 // some four in each slot: one that owns a slot owns a watermark
)

// of returns the slot of the nth watermark.
func (s *slots) of(ctx context.Context, cluster *redis.ClusterClient, keys tasks.Keys, n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= mostPlaces {
		return 0, fmt.Errorf("a server of the cache Redis owns so few slots that none of %d keys lies in one: give it more or none", mostPlaces)
	}
	for n >= len(s.known) {
		replies := make([]*redis.IntCmd, slotBatch)
		_, err := cluster.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range replies {
				replies[i] = p.ClusterKeySlot(ctx, keys.Watermark(len(s.known)+i))
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		for _, r := range replies {
			s.known = append(s.known, int(r.Val()))
		}
	}
	return s.known[n], nil
}
