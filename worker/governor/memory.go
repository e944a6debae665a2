package governor

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
)

// Memory is the memory of one server, in bytes.
type Memory struct {
	Used  int64 // that counts towards the limit
	Limit int64 // maxmemory; 0 means none, or that the server does not tell
}

// Headroom is the share of a server's limit that work leaves free, 0 to 0.9, so that nothing that
// is served is evicted for it. 0 leaves the limit to the server: nothing is predicted or refused.
type Headroom float64

// Free returns how many bytes work may still add to the server, 0 or more. limited is false
// when it may add any number.
func (h Headroom) Free(m Memory) (free int64, limited bool) {
	if m.Limit <= 0 || h <= 0 {
		return 0, false
	}
	return max(int64(float64(m.Limit)*(1-float64(h)))-m.Used, 0), true
}

// Room refuses work that adds memory once nothing is free, with an error that wraps
// tasks.ErrRefused.
func (h Headroom) Room(m Memory) error {
	free, limited := h.Free(m)
	if !limited || free > 0 {
		return nil
	}
	return fmt.Errorf("%w: the cache Redis has %s of its %s in use, and work leaves %.0f%% free so that nothing that is served is evicted for it: %s",
		tasks.ErrRefused, size(m.Used), size(m.Limit), 100*float64(h), wayOut)
}

// Fits refuses work that would take need bytes more than the servers have to give, with an
// error that wraps tasks.ErrRefused. Of several servers each is taken to get an equal part.
func (h Headroom) Fits(need int64, servers []Memory) error {
	for _, m := range servers {
		part := need / int64(len(servers))
		free, limited := h.Free(m)
		if !limited || part <= free {
			continue
		}
		each := ""
		if len(servers) > 1 {
			each = fmt.Sprintf(" (of %d servers, each)", len(servers))
		}
		return fmt.Errorf("%w: it takes about %s of memory%s, and the cache Redis has %s (maxmemory %s, %s in use, %.0f%% kept free): %s",
			tasks.ErrRefused, size(part), each, size(free), size(m.Limit), size(m.Used), 100*float64(h), wayOut)
	}
	return nil
}

const wayOut = "raise maxmemory, expire a release, or lower STOKER_MEMORY_HEADROOM"

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
