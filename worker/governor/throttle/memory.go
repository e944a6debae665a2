package throttle

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

// ReadMemory returns a server's memory; its Limit is 0 when it has none or will not tell.
func ReadMemory(ctx context.Context, c redis.Cmdable) (governor.Memory, error) {
	info, err := c.Info(ctx, "memory").Result()
	var refused redis.Error
	if errors.As(err, &refused) {
		return governor.Memory{}, nil
	}
	if err != nil {
		return governor.Memory{}, fmt.Errorf("read the cache Redis's memory: %w", err)
	}
	var m governor.Memory
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, _ := strconv.ParseInt(value, 10, 64) // other fields are not numbers
		switch name {
		case "used_memory":
			m.Used += n
		case "mem_not_counted_for_evict": // buffers of replicas and of the AOF
			m.Used -= n
		case "maxmemory":
			m.Limit = n
		}
	}
	return m, nil
}

// Memory returns the memory of every server that holds keys.
func Memory(ctx context.Context, cache redis.UniversalClient) ([]governor.Memory, error) {
	found, err := tasks.Primaries(ctx, cache)
	if err != nil {
		return nil, fmt.Errorf("read the cache Redis's memory: %w", err)
	}
	var all []governor.Memory
	for _, c := range found {
		m, err := ReadMemory(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// Room tells whether the cache Redis has room for what a work would add, as it is now.
type Room struct {
	Cache    redis.UniversalClient
	Headroom governor.Headroom
}

// Limited reports whether any of the servers has a limit that work keeps below.
func (r Room) Limited(ctx context.Context) (bool, error) {
	all, err := Memory(ctx, r.Cache)
	for _, m := range all {
		if _, limited := r.Headroom.Free(m); limited {
			return true, err
		}
	}
	return false, err
}

// Fits refuses with tasks.ErrRefused what takes so many bytes more than there is room for. Of several
// servers each is taken to get an equal part.
func (r Room) Fits(ctx context.Context, bytes int64) error {
	all, err := Memory(ctx, r.Cache)
	if err != nil {
		return err
	}
	return r.Headroom.Fits(bytes, all)
}
