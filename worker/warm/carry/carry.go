// Package carry is the source that takes entries over from another release's namespace, inside
// the cache server. It takes only the families that the plan names: what is not named is
// rebuilt. An entry whose value holds the other release's prefix would still point there, so it
// stays behind and is reported as failed.
package carry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Cache is what a carry needs of the namespaces.
type Cache interface {
	// Copy copies the entries of the families from src to dst in slices, from a cursor on.
	Copy(ctx context.Context, src, dst string, families []string, cursor string, fn func(namespace.CopySlice) error) error
	// UsageOf counts the entries of the families and estimates their memory; EstimateOf estimates both.
	UsageOf(ctx context.Context, release string, families []string) (namespace.Usage, error)
	EstimateOf(ctx context.Context, release string, families []string) (namespace.Usage, error)
	// Read reads a namespace in slices.
	Read(ctx context.Context, release string, fn func(entries []tasks.Entry) error) error
	// CopyKeys copies entries by their keys.
	CopyKeys(ctx context.Context, src, dst string, keys []string, fn func(namespace.CopySlice) error) error
}

var _ Cache = (*namespace.Cache)(nil)

// Source copies the families of one spec.
type Source struct {
	cache    Cache
	from, to string
	families []string
}

var _ source.Source = (*Source)(nil)

// New returns the source that carries families from one release to another. An empty from has
// nothing to carry: the first release has none before it.
func New(cache Cache, from, to string, families []string) (*Source, error) {
	if from == to {
		return nil, fmt.Errorf("%w: carry from %q to itself: name another release", tasks.ErrInvalid, from)
	}
	return &Source{cache, from, to, families}, nil
}

// Estimate is what a carry will take.
type Estimate struct {
	Entries int64
	Bytes   int64    // of the server's memory
	Sample  []string // some of the entries' keys
}

// copyOverhead is what a copy takes in the server's tables besides what MEMORY USAGE tells of its
// original: a place in each of the two, and the entry of its expiry, in bytes.
const copyOverhead = 16 + 16 + 24

// Count tells what the carry takes in a destination that has none of its entries; it counts them.
func (s *Source) Count(ctx context.Context) (Estimate, error) {
	return s.usage(ctx, s.from, s.cache.UsageOf)
}

// Estimate does so about, in a time that does not grow with the cache.
func (s *Source) Estimate(ctx context.Context) (Estimate, error) {
	return s.usage(ctx, s.from, s.cache.EstimateOf)
}

// Carried tells about what the destination has of the families already.
func (s *Source) Carried(ctx context.Context) (Estimate, error) {
	return s.usage(ctx, s.to, s.cache.EstimateOf)
}

func (s *Source) usage(ctx context.Context, release string, of func(context.Context, string, []string) (namespace.Usage, error)) (Estimate, error) {
	if release == "" {
		return Estimate{}, nil
	}
	u, err := of(ctx, release, s.families)
	return Estimate{u.Entries, u.Bytes + copyOverhead*u.Entries, u.Sample}, err
}

// Keys implements [source.Source].
func (s *Source) Keys(ctx context.Context, fn func(key string) error) error {
	if s.from == "" {
		return nil
	}
	return s.cache.Read(ctx, s.from, func(entries []tasks.Entry) error {
		for _, e := range entries {
			if !s.holds(e.Key) {
				continue
			}
			if err := fn(e.Key); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Source) holds(key string) bool {
	if len(s.families) == 0 {
		return true
	}
	for _, f := range s.families {
		if strings.HasPrefix(key, f) {
			return true
		}
	}
	return false
}

// errEnough ends the walk of a sampled run.
var errEnough = errors.New("enough")

// Walk implements [source.Source]. Next is the copy's cursor; one that nobody can read is the beginning.
// A copy inside the server cannot choose single keys, so a sampled run carries the first slice that
// holds any. Where the part names keys, those are carried that belong to the families, and Next is the
// number of them that are done.
func (s *Source) Walk(ctx context.Context, part source.Part, from string, fn func(source.Chunk) error) error {
	if s.from == "" {
		return nil
	}
	if part.Items != nil {
		return part.Walk(ctx, itemsAtATime, from, func(keys []string) (source.Chunk, error) {
			return s.carry(ctx, slices.DeleteFunc(keys, func(key string) bool { return !s.holds(key) }))
		}, fn)
	}
	sampled := part.Share > 0 && part.Share < 1
	err := s.cache.Copy(ctx, s.from, s.to, s.families, from, func(slice namespace.CopySlice) error {
		c := s.chunk(slice)
		if err := fn(c); err != nil {
			return err
		}
		if sampled && len(c.Entries)+int(c.Kept) > 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// itemsAtATime is how many keys a chunk has: each goes through all tag indexes of both namespaces.
const itemsAtATime = 10_000

// carry copies entries by their keys.
func (s *Source) carry(ctx context.Context, keys []string) (source.Chunk, error) {
	all := source.Chunk{Written: source.ByServer}
	if len(keys) == 0 {
		return all, nil
	}
	err := s.cache.CopyKeys(ctx, s.from, s.to, keys, func(slice namespace.CopySlice) error {
		c := s.chunk(slice)
		all.Entries, all.Failed, all.Kept = append(all.Entries, c.Entries...), append(all.Failed, c.Failed...), all.Kept+c.Kept
		return nil
	})
	return all, err
}

func (s *Source) chunk(slice namespace.CopySlice) source.Chunk {
	c := source.Chunk{Written: source.ByServer, Kept: slice.Existed, Next: slice.Next}
	for _, key := range slice.Keys {
		c.Entries = append(c.Entries, source.Entry{Entry: tasks.Entry{Key: key}})
	}
	for _, key := range slice.Referring {
		c.Failed = append(c.Failed, source.Failure{Key: key, Error: fmt.Sprintf("its value names keys of release %q, so a copy would point back there: let the site rebuild it", s.from)})
	}
	return c
}
