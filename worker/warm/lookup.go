package warm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// Lookup asks the sources of a release's plan for single entries. It is used by one goroutine.
type Lookup struct {
	Release string
	runner  *Runner
	sources []*asked
	closers []func() error
}

// asked is a source of a Lookup.
type asked struct {
	Source
	pattern source.Pattern
	why     error         // it cannot be asked; nil when it can
	finder  source.Finder // nil until it was asked first
}

// Lookup returns what asks the sources of a release's plan: that of its last run, else the worker's
// own. A release without any is [tasks.ErrNotFound]. It opens nothing yet. Close it.
func (r *Runner) Lookup(ctx context.Context, release string) (*Lookup, error) {
	plan, err := r.planOfRelease(ctx, release)
	if err != nil {
		return nil, fmt.Errorf("plan of release %q: %w", release, err)
	}
	l := &Lookup{Release: release, runner: r}
	for _, s := range plan.Sources {
		one := &asked{Source: s}
		one.pattern, one.why = s.keys(release)
		l.sources = append(l.sources, one)
	}
	return l, nil
}

// keys returns the pattern of the source's keys in a release, or why it cannot be asked for one.
func (s Source) keys(release string) (source.Pattern, error) {
	switch {
	case s.Query != nil:
		return s.Entry.Keys(release)
	case s.Crawl != nil && s.Expect != nil:
		return s.Expect.Keys(release)
	case s.Crawl != nil:
		return source.Pattern{}, fmt.Errorf("%w: the plan does not say which entry a page leaves behind: give it an expect with a key", tasks.ErrInvalid)
	}
	if s.Custom != nil {
		return source.Pattern{}, fmt.Errorf("%w: a custom source does not say which keys it has", tasks.ErrInvalid)
	}
	return source.Pattern{}, fmt.Errorf("%w: a carry copies from another release: it has no origin", tasks.ErrInvalid)
}

// lastRuns is how many of a release's runs are looked at for a plan: some never began.
const lastRuns = 10

func (r *Runner) planOfRelease(ctx context.Context, release string) (*Plan, error) {
	runs, err := r.deps.Queue.ZRevRange(ctx, r.deps.Keys.Runs(release), 0, lastRuns-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read runs: %w", err)
	}
	for _, run := range runs {
		st, err := r.record(run).load(ctx, "")
		if errors.Is(err, tasks.ErrNotFound) {
			continue // records are kept for a month
		}
		if err != nil {
			return nil, err
		}
		if st.plan != "" && st.status != statusRefused {
			return ParsePlan([]byte(st.plan))
		}
	}
	if r.cfg.Plan == "" {
		return nil, fmt.Errorf("%w: no run of it has one, and STOKER_PLAN is not set where the worker runs", tasks.ErrNotFound)
	}
	text, err := r.ownPlan()
	if err != nil {
		return nil, err
	}
	return ParsePlan(text)
}

// Unaskable says of each source that cannot be asked for single entries why, in the plan's order.
func (l *Lookup) Unaskable() []string {
	var why []string
	for _, s := range l.sources {
		if s.why != nil {
			why = append(why, fmt.Sprintf("source %q: %v", s.Name, s.why))
		}
	}
	return why
}

// Owners returns the names of the sources that can be asked for a key, in the plan's order: most
// often one. None means that nobody knows where the key comes from.
func (l *Lookup) Owners(key string) []string {
	var names []string
	for _, s := range l.sources {
		if s.why == nil && len(s.pattern.Match(key)) > 0 {
			names = append(names, s.Name)
		}
	}
	return names
}

// Kind returns the kind of one of the plan's sources: "query", "crawl" or "carry".
func (l *Lookup) Kind(source string) string {
	i := slices.IndexFunc(l.sources, func(s *asked) bool { return s.Name == source })
	if i < 0 {
		return ""
	}
	return l.sources[i].Kind()
}

// Found is a part of what a plan's sources know of some keys. Only a chunk to be written by the runner
// holds the origin's own word: a site that was asked may have answered from its cache.
type Found struct {
	Source string // that answered
	source.Chunk
}

// Find asks the keys' owners for their entries as they are now, and calls fn with what they say.
// Each key that has an owner is answered once, as [source.Finder] tells. A key of several owners is
// gone when all of them say so. Keys without an owner are left out. An error means that some origin
// cannot be read now, or is fn's, which ends it.
func (l *Lookup) Find(ctx context.Context, keys []string, fn func(Found) error) error {
	open := map[string]int{} // owners of each key that have not been asked
	for _, key := range keys {
		open[key] = len(l.Owners(key))
	}
	for _, s := range l.sources {
		if s.why != nil {
			continue
		}
		var mine []string
		for key, owners := range open {
			if owners > 0 && len(s.pattern.Match(key)) > 0 {
				mine = append(mine, key)
				open[key]--
			}
		}
		if len(mine) == 0 {
			continue
		}
		err := l.ask(ctx, s, mine, func(c source.Chunk) error { return fn(Found{s.Name, settled(c, open)}) })
		if err != nil {
			return err
		}
	}
	return nil
}

// settled leaves out of a chunk the gone keys that have another owner to ask, and ends the others'.
func settled(c source.Chunk, open map[string]int) source.Chunk {
	c.Gone = slices.DeleteFunc(c.Gone, func(key string) bool { return open[key] > 0 })
	for _, e := range c.Entries {
		open[e.Key] = 0
	}
	for _, f := range c.Failed {
		open[f.Key] = 0
	}
	return c
}

// ask asks one source, which it opens the first time.
func (l *Lookup) ask(ctx context.Context, s *asked, keys []string, fn func(source.Chunk) error) error {
	if s.finder == nil {
		src, closer, err := l.runner.open(s.Source, l.Release, "")
		if err != nil {
			return fmt.Errorf("ask source %q: %w", s.Name, err)
		}
		l.closers = append(l.closers, closer)
		finder, ok := src.(source.Finder)
		if !ok {
			return fmt.Errorf("ask source %q: %w: it has no single entries", s.Name, tasks.ErrInvalid)
		}
		s.finder = finder
	}
	if err := s.finder.Find(ctx, keys, fn); err != nil {
		return fmt.Errorf("ask source %q: %w", s.Name, err)
	}
	return nil
}

// Close ends the connections to the origins.
func (l *Lookup) Close() error {
	var errs []error
	for _, closer := range l.closers {
		errs = append(errs, closer())
	}
	l.closers = nil
	return errors.Join(errs...)
}
