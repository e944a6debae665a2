package restore

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Server answers what a restore asks of the cache Redis.
type Server interface {
	// Memory returns the memory of each server that holds keys.
	Memory(ctx context.Context) ([]governor.Memory, error)
	// DumpVersion returns the newest version of DUMP payloads that it takes, 0 when unknown.
	DumpVersion(ctx context.Context) (int, error)
}

// fits refuses an archive that the cache Redis has no room for, or cannot read.
func (r *Restorer) fits(ctx context.Context, d snapshot.Descriptor, s survey) error {
	servers, err := r.Server.Memory(ctx)
	if err != nil {
		return err
	}
	if err := r.Headroom.Fits(s.footprint, servers); err != nil {
		return fmt.Errorf("restoring %q: %w", d.Release, err)
	}
	if err := r.takesFields(ctx, d, s); err != nil {
		return err
	}
	if s.dumps == 0 {
		return nil
	}
	takes, err := r.Server.DumpVersion(ctx)
	if err != nil || takes == 0 || s.dumpVersion <= takes {
		return err
	}
	return fmt.Errorf("%w: %d entries of its archive, %s for one, are of types that only travel between like servers: their payload has version %d (written by server %q), this cache Redis takes up to %d: restore on a server as new as that, or warm a new release of that build",
		tasks.ErrRefused, s.dumps, s.firstDump, s.dumpVersion, d.Server, takes)
}

// takesFields refuses hashes with fields that expire where the cache Redis does not know such: they
// would outlive their time.
func (r *Restorer) takesFields(ctx context.Context, d snapshot.Descriptor, s survey) error {
	if s.fields == 0 {
		return nil
	}
	knows, err := r.Cache.FieldExpiries(ctx)
	if err != nil || knows {
		return err
	}
	return fmt.Errorf("%w: %d hashes of its archive, %s for one, have fields that expire by themselves (written by server %q), which this cache Redis does not know: restore on Redis 7.4, Valkey 9 or later, or warm a new release of that build",
		tasks.ErrRefused, s.fields, s.firstFields, d.Server)
}

// What Redis adds to the bytes of an entry, on a 64-bit machine.
const (
	keyOverhead    = 24 + 8 + 16 + 8 // the dictionary's entry and slot, the object, the key's header
	expiryOverhead = 24 + 8          // the same in the dictionary of expiries
	itemOverhead   = 24 + 8 + 8      // a member of a table: entry, slot, header
	scoreOverhead  = 40              // a member's node in a skip list
	fieldOverhead  = 32              // the expiry of a field in a table
	packedOverhead = 4               // an item of a packed list
	packedField    = 12              // the expiry of a field in a packed hash
	packedBytes    = 64              // bytes of an item up to which a collection is packed, by default
)

// packedItems are the items up to which a collection is packed, by default. (Sets of few are from
// Redis 7.2 on; here they are not, to be on the safe side.)
var packedItems = map[string]int{tasks.EntryHash: 512, tasks.EntryZSet: 128}

// footprint estimates the bytes of memory that an entry takes in a Redis with default settings.
func footprint(e tasks.Entry, prefix int) int64 {
	n := keyOverhead + class(prefix+len(e.Key)+2)
	if e.ExpiresAt != 0 {
		n += expiryOverhead
	}
	if e.Type == tasks.EntryString || e.Type == tasks.EntryDump {
		return n + class(len(e.Value)+4)
	}
	longest, sum := 0, 0
	for _, it := range e.Items {
		longest, sum = max(longest, len(it)), sum+len(it)
	}
	width := 1
	if e.Type == tasks.EntryHash || e.Type == tasks.EntryZSet {
		width = 2
	}
	if e.Type == tasks.EntryList || len(e.Items)/width <= packedItems[e.Type] && longest <= packedBytes {
		return n + class(sum+packedOverhead*len(e.Items)+packedField*len(e.FieldsExpireAt)+16)
	}
	n += int64(fieldOverhead * len(e.FieldsExpireAt))
	for i, it := range e.Items {
		switch {
		case e.Type == tasks.EntryZSet && i%2 == 1:
			n += scoreOverhead
		case i%width == 0:
			n += itemOverhead + class(len(it)+2)
		default:
			n += class(len(it) + 2)
		}
	}
	return n
}

// class rounds a size up to what the allocator gives: a quarter of the power of two below it.
func class(n int) int64 {
	if n <= 16 {
		return 16
	}
	step := max(16, 1<<(bits.Len(uint(n-1))-3))
	return int64((n + step - 1) / step * step)
}

// RedisServer is the Server behind a client.
type RedisServer struct {
	Client redis.UniversalClient
	Keys   tasks.Keys
}

var _ Server = RedisServer{}

// Memory implements [Server].
func (s RedisServer) Memory(ctx context.Context) ([]governor.Memory, error) {
	return throttle.Memory(ctx, s.Client)
}

// DumpVersion implements [Server]: what it writes itself is the newest that it takes.
func (s RedisServer) DumpVersion(ctx context.Context) (int, error) {
	key := s.Keys.DumpProbe()
	var dump *redis.StringCmd
	_, err := s.Client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, key, "1", 0)
		dump = p.Dump(ctx, key)
		p.Del(ctx, key)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("find the cache Redis's version of DUMP: %w", err)
	}
	return snapshot.DumpVersion(dump.Val()), nil
}
