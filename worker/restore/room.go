package restore

import (
	"context"
	"fmt"

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
	if err := r.Headroom.Fits(s.Memory, servers); err != nil {
		return fmt.Errorf("restoring %q: %w", d.Release, err)
	}
	if err := r.takesFields(ctx, d, s); err != nil {
		return err
	}
	if s.Dumps == 0 {
		return nil
	}
	takes, err := r.Server.DumpVersion(ctx)
	if err != nil || takes == 0 || takesDump(takes, s.DumpVersion) {
		return err
	}
	return fmt.Errorf("%w: %d entries of its archive, %s for one, are of types that only travel between like servers: their payload has version %d (written by server %q), this cache Redis writes version %d and does not take it: restore on a server like that one, as new or newer, or warm a new release of that build",
		tasks.ErrRefused, s.Dumps, s.firstDump, s.DumpVersion, d.Server, takes)
}

// What Valkey numbers differently from Redis: from 9 on, its versions of DUMP payloads begin at 80, and it
// takes none of those that Redis has given since they parted.
const (
	firstForeignDump = 12
	firstValkeyDump  = 80
)

// takesDump reports whether a server whose own payloads have one version takes those of another.
func takesDump(server, payload int) bool {
	foreign := server >= firstValkeyDump && firstForeignDump <= payload && payload < firstValkeyDump
	return payload <= server && !foreign
}

// takesFields refuses hashes with fields that expire where the cache Redis does not know such: they
// would outlive their time.
func (r *Restorer) takesFields(ctx context.Context, d snapshot.Descriptor, s survey) error {
	if s.Fields == 0 {
		return nil
	}
	knows, err := r.Cache.FieldExpiries(ctx)
	if err != nil || knows {
		return err
	}
	return fmt.Errorf("%w: %d hashes of its archive, %s for one, have fields that expire by themselves (written by server %q), which this cache Redis does not know: restore on Redis 7.4, Valkey 9 or later, or warm a new release of that build",
		tasks.ErrRefused, s.Fields, s.firstFields, d.Server)
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
