package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/source"
)

// The shortest pause before a key that was taken too early is taken again.
const soon = 50 * time.Millisecond

// loading is one load of some keys that were taken.
type loading struct {
	*drain
	fill  *tasks.Filling
	open  map[string]int64 // keys whose end is not known → number
	ended []ended
}

// load loads keys from their sources, and says what became of each.
func (d *drain) load(ctx context.Context, keys []dirty) error {
	l := &loading{drain: d, open: map[string]int64{}}
	for _, k := range keys {
		l.open[k.key] = k.number
	}
	err := l.run(ctx, keys)
	if err != nil {
		l.leave(err)
	}
	if errors.Is(err, tasks.ErrInvalid) {
		err = nil // trying again cannot help these keys; others may have another source
	}
	return errors.Join(err, d.finish(context.WithoutCancel(ctx), l.ended))
}

func (l *loading) run(ctx context.Context, keys []dirty) (err error) {
	var lease []string
	for _, k := range keys {
		switch owners := l.look.Owners(k.key); {
		case len(owners) == 0:
			l.result.Unowned++
			l.done(k.key)
		case !slices.ContainsFunc(owners, l.bySite):
			lease = append(lease, k.key)
		}
	}
	if len(l.open) == 0 {
		return nil
	}
	if l.fill, err = l.r.deps.Fill.Begin(ctx, l.release, lease); err != nil {
		return err
	}
	defer l.fill.End(ctx)
	for _, key := range lease {
		if !l.fill.Leased(key) {
			l.again(key, l.r.rest/4) // the site fills it, perhaps with what it read before the edit
		}
	}
	var ask []string
	for key, number := range l.open {
		if early := number - l.fill.Mark.Number; early > 0 {
			// Its invalidation is pending, or the origin's replica may not have the edit yet.
			l.again(key, min(max(time.Duration(early)*time.Microsecond, soon), l.r.rest))
		} else {
			ask = append(ask, key)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	l.result.Loads += int64(len(ask))
	return l.look.Find(ctx, ask, func(f warm.Found) error { return l.chunk(ctx, f.Chunk) })
}

// bySite reports whether the site itself fills what a source owns: it must find no lease held.
func (l *loading) bySite(owner string) bool { return l.look.Kind(owner) == "crawl" }

// chunk takes what a source said of some keys.
func (l *loading) chunk(ctx context.Context, c source.Chunk) error {
	for _, key := range c.Gone {
		l.result.Gone++
		l.done(key)
	}
	for _, f := range c.Failed {
		l.failed(f.Key, errors.New(f.Error))
	}
	if err := l.remove(ctx, c.Unfit); err != nil {
		return err
	}
	if c.Written == source.BySite {
		return l.filledBySite(ctx, c)
	}
	return l.store(ctx, c.Entries)
}

// remove removes entries that the site has left behind and that nobody must be served.
func (l *loading) remove(ctx context.Context, keys []string) error {
	for _, key := range keys { // each may be in another slot
		if err := l.r.deps.Cache.Unlink(ctx, l.r.deps.Template.Key(l.release, key)).Err(); err != nil {
			return fmt.Errorf("remove what the site must not serve: %w", err)
		}
	}
	return nil
}

// store fills entries. What an edit overtook stays dirty: the edit comes for it, or this one again.
func (l *loading) store(ctx context.Context, entries []source.Entry) error {
	all := make([]tasks.Filled, len(entries))
	for i, e := range entries {
		all[i] = tasks.Filled{Entry: e.Entry, Tags: e.Tags}
	}
	stored, err := l.fill.Store(ctx, all)
	if err != nil {
		return err
	}
	for i, e := range entries {
		if stored[i] {
			l.result.Stored++
			l.done(e.Key)
		} else {
			l.again(e.Key, l.r.rest)
		}
	}
	return nil
}

// filledBySite looks for the entries that the site should have filled when it was visited.
func (l *loading) filledBySite(ctx context.Context, c source.Chunk) error {
	if len(c.Entries) == 0 {
		return nil
	}
	tagged := make([]tasks.Tagged, len(c.Entries))
	found := make([]*redis.IntCmd, len(c.Entries))
	_, err := l.r.deps.Cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, e := range c.Entries {
			tagged[i].Key = e.Key
			found[i] = p.Exists(ctx, l.r.deps.Template.Key(l.release, e.Key))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for what the site filled: %w", err)
	}
	overtaken, err := l.r.deps.Check.Check(ctx, l.release, l.fill.Mark, tagged)
	if err != nil {
		return err
	}
	for i, e := range c.Entries {
		switch {
		case overtaken[i]:
			l.again(e.Key, l.r.rest)
		case found[i].Val() == 1:
			l.result.Stored++
			l.done(e.Key)
		default:
			l.failed(e.Key, errors.New("the page answered, but its entry is not in the namespace"))
		}
	}
	return nil
}

// leave keeps the keys dirty that an error left open, unless they have waited for too long, or
// waiting cannot help.
func (l *loading) leave(err error) {
	for key, number := range l.open {
		if errors.Is(err, tasks.ErrInvalid) || time.Since(time.UnixMicro(number)) > giveUp {
			l.failed(key, err)
		} else {
			l.again(key, l.r.rest)
		}
	}
}

func (l *loading) done(key string) { l.settle(key, 0) }

func (l *loading) again(key string, after time.Duration) {
	l.result.Again++
	l.settle(key, after)
}

func (l *loading) failed(key string, err error) {
	l.result.Failed++
	l.fail(key, err)
	l.settle(key, 0)
}

func (l *loading) settle(key string, again time.Duration) {
	if number, ok := l.open[key]; ok {
		l.ended = append(l.ended, ended{dirty{key, number}, again})
		delete(l.open, key)
	}
}
