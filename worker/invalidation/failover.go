package invalidation

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Failover says how a cache Redis that was another one than before, a promoted replica or a server that was
// started again, was made to lack no removal.
type Failover struct {
	At      time.Time `json:"at"`            // when it was made good
	From    time.Time `json:"from,omitzero"` // since when the log was replayed; zero: from its beginning
	Targets int64     `json:"targets"`       // that were replayed, in all live releases
	Removed int64     `json:"removed"`       // entries that had come back
	// Relisted is how many members of tag indexes, on a Cluster, had been lost.
	Relisted int64 `json:"relisted,omitempty"`
	// Short: the log does not reach back to what the server still had, so that what was invalidated
	// before may have come back for good.
	Short bool `json:"short,omitempty"`
}

// Look compares the servers of the cache Redis with those that are known to lack no removal. On a server
// that is new, it replays the log from the watermark that the server has, in every live release; this is
// how an invalidation that a failover undoes is done again. It returns the number of entries that were
// removed so. It is safe in any number of processes at once, and doing it again is harmless.
func (a *Applier) Look(ctx context.Context) (removed int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look at the cache Redis: %w", err)
		}
	}()
	live, err := a.live(ctx)
	if err != nil {
		return 0, err
	}
	r, err := a.log.reached(ctx, live)
	if err != nil {
		return 0, err
	}
	servers, err := a.note(ctx, r)
	if err != nil {
		return 0, err
	}
	seen, fresh := compare(servers, r.known)
	switch {
	case len(seen) == 0, len(fresh) == 0 && len(seen) == len(r.known):
		return 0, nil
	case len(fresh) == 0, len(r.known) == 0: // a server has left, or nobody has looked yet
		return 0, a.log.know(ctx, seen, nil)
	}
	done, err := a.redo(ctx, live, fresh, r)
	if err != nil {
		return int(done.Removed), err
	}
	return int(done.Removed), a.log.know(ctx, seen, &done)
}

// compare returns the servers that tell who they are, and those of them that are not known.
func compare(servers []server, known []string) (seen []string, fresh []server) {
	for _, s := range servers {
		if s.identity == "" {
			continue
		}
		seen = append(seen, s.identity)
		if !slices.Contains(known, s.identity) {
			fresh = append(fresh, s)
		}
	}
	slices.Sort(seen)
	return slices.Compact(seen), fresh
}

// redo replays the log in every live release from the oldest watermark of the servers on, once the tags'
// indexes list again what they had listed.
func (a *Applier) redo(ctx context.Context, live []string, servers []server, r reach) (done Failover, err error) {
	if done.Relisted, err = a.relist(ctx, live); err != nil {
		return done, err
	}
	oldest := int64(math.MaxInt64)
	for _, id := range live {
		from := int64(math.MaxInt64)
		for _, s := range servers {
			number, short := s.of(id, r)
			from, done.Short = min(from, number), done.Short || short
		}
		oldest = min(oldest, from)
		replayed, err := a.ReplayRest(ctx, id, Mark{Number: from, Epoch: r.Epoch})
		done.Targets += replayed.Targets
		done.Removed += replayed.Removed
		if err != nil {
			return done, err
		}
	}
	if oldest > 0 && len(live) > 0 {
		done.From = time.UnixMicro(oldest).UTC()
	}
	done.At = time.Now().UTC()
	return done, nil
}

// know notes which servers of the cache Redis lack no removal, and what it took.
func (l *Log) know(ctx context.Context, servers []string, f *Failover) error {
	values := []any{"servers", strings.Join(servers, " ")}
	if f != nil {
		text, err := json.Marshal(f)
		if err != nil {
			return err
		}
		values = append(values, "failover", text)
	}
	return l.queue.HSet(ctx, l.keys.CacheServers(), values...).Err()
}

// Failover returns the last failover or restart of the cache Redis that was made good, nil when there was
// none.
func (l *Log) Failover(ctx context.Context) (*Failover, error) {
	text, err := l.queue.HGet(ctx, l.keys.CacheServers(), "failover").Result()
	if err == redis.Nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cache Redis's last failover: %w", err)
	}
	var f Failover
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, fmt.Errorf("read the cache Redis's last failover: %w", err)
	}
	return &f, nil
}
