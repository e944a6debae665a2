package invalidation

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

//go:embed listed.lua
var listedLua string

var listedScript = redis.NewScript(tasks.CompanionLua + listedLua)

// previewed bounds the keys that a preview shows.
const previewed = 10

// Preview is what targets would remove from one namespace.
type Preview struct {
	Release string        `json:"release"`
	Entries int64         `json:"entries"` // each counts once, however many targets name it
	Bytes   int64         `json:"bytes"`   // of the server's memory, as MEMORY USAGE tells it
	Sample  []tasks.Bytes `json:"sample,omitempty"`
}

// Preview says what targets would remove from one namespace. It keeps the keys of what it finds in
// memory.
func (a *Applier) Preview(ctx context.Context, release string, targets []tasks.Target) (Preview, error) {
	p := previewing{a: a, Preview: Preview{Release: release}, seen: map[string]bool{}}
	for _, t := range targets {
		if err := p.target(ctx, t); err != nil {
			return Preview{}, fmt.Errorf("preview %s in release %q: %w", t, release, err)
		}
	}
	return p.Preview, nil
}

// previewing is a preview under way.
type previewing struct {
	Preview
	a    *Applier
	seen map[string]bool // logical keys
}

func (p *previewing) target(ctx context.Context, t tasks.Target) error {
	switch t.Kind {
	case tasks.KindTag:
		return p.tag(ctx, string(t.Name))
	case tasks.KindPrefix:
		return p.prefix(ctx, string(t.Name))
	}
	return p.keys(ctx, []string{string(t.Name)})
}

func (p *previewing) tag(ctx context.Context, tag string) error {
	for cursor := "0"; ; {
		found, next, err := p.a.listed(ctx, p.Release, tag, cursor)
		if err != nil {
			return err
		}
		if err := p.keys(ctx, found); err != nil {
			return err
		}
		if cursor = next; cursor == "0" {
			return nil
		}
	}
}

// listed names the entries of one slice that a removal by tag would take; on a Cluster also those that
// are not there.
func (a *Applier) listed(ctx context.Context, release, tag, cursor string) (logical []string, next string, err error) {
	if tasks.Sharded(a.cache) {
		found, err := a.members(ctx, []string{a.index(release, tag)}, []string{cursor})
		if err != nil {
			return nil, "", err
		}
		return found[0].names, found[0].cursor, nil
	}
	reply, err := listedScript.Run(ctx, a.cache, []string{a.index(release, tag)},
		a.tmpl.Prefix(release), a.tmpl.Suffix(), cursor, slice, tag, a.tmpl.Prefix(release)+tasks.CompanionKey("")).StringSlice()
	if err != nil {
		return nil, "", err
	}
	return reply[1:], reply[0], nil
}

func (p *previewing) prefix(ctx context.Context, prefix string) error {
	all, err := tasks.Primaries(ctx, p.a.cache)
	if err != nil {
		return err
	}
	for _, server := range all {
		if err := p.prefixOn(ctx, server, prefix); err != nil {
			return err
		}
	}
	return nil
}

func (p *previewing) prefixOn(ctx context.Context, server redis.Cmdable, prefix string) error {
	var page []string
	it := server.Scan(ctx, 0, p.a.tmpl.Match(p.Release, prefix), slice).Iterator()
	for it.Next(ctx) {
		if logical, ok := p.a.tmpl.Logical(p.Release, it.Val()); ok {
			if page = append(page, logical); len(page) == slice {
				if err := p.keys(ctx, page); err != nil {
					return err
				}
				page = page[:0]
			}
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return p.keys(ctx, page)
}

// keys adds the entries that are there to the preview.
func (p *previewing) keys(ctx context.Context, logical []string) error {
	for from := 0; from < len(logical); from += slice {
		part := logical[from:min(from+slice, len(logical))]
		pipe := p.a.cache.Pipeline()
		sizes := make([]*redis.IntCmd, len(part))
		for i, l := range part {
			sizes[i] = pipe.MemoryUsage(ctx, p.a.tmpl.Key(p.Release, l))
		}
		if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
			return err
		}
		for i, size := range sizes {
			bytes, err := size.Result()
			if err == redis.Nil || p.seen[part[i]] {
				continue // it is not there, or counted
			}
			if err != nil {
				return err
			}
			p.seen[part[i]] = true
			p.Entries++
			p.Bytes += bytes
			if len(p.Sample) < previewed {
				p.Sample = append(p.Sample, tasks.Bytes(part[i]))
			}
		}
	}
	return nil
}
