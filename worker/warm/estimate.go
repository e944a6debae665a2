package warm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm/source"
)

const (
	// weighed is how many entries an estimate of memory rests on at most.
	weighed = 200
	// entryOverhead and tagOverhead are what the cache Redis's tables take for an entry with an expiry and
	// for its place in a tag's index, in bytes; slack is what its allocator rounds up.
	entryOverhead = 120
	tagOverhead   = 220
	slack         = 1.1
)

// memory is about what an entry takes in the cache Redis.
func memory(e source.Entry) int64 {
	bytes := e.Size() + entryOverhead
	for _, tag := range e.Tags {
		bytes += len(e.Key) + tagOverhead + len(tag)
	}
	return int64(slack * float64(bytes))
}

// estimate says what a run of the source would take, as far as it can be measured. counted is how
// long it took to name its keys.
func (v *surveyor) estimate(ctx context.Context, src source.Source, counted time.Duration) error {
	if v.found.Count == 0 {
		return nil
	}
	switch v.source.Kind() {
	case "query":
		v.found.Requests = 1
		if page := v.source.Query.Page; page != nil {
			v.found.Requests = v.found.Count/int64(page.Size) + 1
		}
		v.found.Basis = append(v.found.Basis, fmt.Sprintf("reading all its rows took %v just now", counted.Round(time.Millisecond)))
	case "crawl":
		v.found.Requests = v.found.Count
	}
	if err := v.estimateMemory(ctx, src); err != nil {
		return err
	}
	return v.estimateTime(ctx)
}

// errWeighed ends a walk that has weighed enough.
var errWeighed = errors.New("weighed")

// estimateMemory weighs some entries: rows as they are now, others as a release has them.
func (v *surveyor) estimateMemory(ctx context.Context, src source.Source) error {
	var n, sum int64
	var basis string
	if v.source.Query != nil || v.source.Custom != nil {
		err := src.Walk(ctx, source.Part{}, "", func(c source.Chunk) error {
			for _, e := range c.Entries {
				n, sum = n+1, sum+memory(e)
			}
			if n >= weighed {
				return errWeighed
			}
			return nil
		})
		if err != nil && !errors.Is(err, errWeighed) {
			return err
		}
		basis = fmt.Sprintf("memory: its first %d entries as they are now", n)
	} else {
		from, keys, err := v.toWeigh(ctx, src)
		if err != nil {
			return err
		}
		entries, err := v.deps.Cache.Get(ctx, from, keys)
		if err != nil {
			return err
		}
		for _, e := range entries {
			n, sum = n+1, sum+memory(source.Entry{Entry: e})
		}
		basis = fmt.Sprintf("memory: %d entries as release %s has them", n, from)
	}
	if n == 0 {
		v.found.Unknown = append(v.found.Unknown, "memory: no release that is active has an entry of it to weigh")
		return nil
	}
	v.found.Bytes = sum / n * v.found.Count
	v.found.Basis = append(v.found.Basis, basis)
	return nil
}

// toWeigh returns entries that a release has of what the source will bring, as far as their keys are known.
func (v *surveyor) toWeigh(ctx context.Context, src source.Source) (from string, keys []string, err error) {
	if from = v.found.From; from == "" {
		if from, err = v.deps.Ledger.Active(ctx); err != nil || from == "" {
			return v.release, nil, err
		}
	}
	namer, _ := src.(source.Namer)
	for _, shown := range append(v.hotNames(), v.cold...) {
		if namer == nil {
			keys = append(keys, shown)
			continue
		}
		keys = append(keys, namer.KeysOf(shown)...)
	}
	return from, keys[:min(weighed, len(keys))], nil
}

func (v *surveyor) hotNames() []string {
	var names []string
	for _, h := range v.hot[:min(weighed, len(v.hot))] {
		names = append(names, h.key)
	}
	return names
}

// estimateTime goes by the newest run of a source of this name.
func (v *surveyor) estimateTime(ctx context.Context) error {
	records, err := v.deps.Ledger.List(ctx)
	if err != nil {
		return err
	}
	for _, rec := range records { // newest first
		var c Certificate
		if ok, err := rec.Doc(release.DocCertificate, &c); !ok || err != nil {
			continue
		}
		for _, s := range c.Sources {
			if visited := s.Planned - s.Kept; s.Name == v.source.Name && s.Kind == v.source.Kind() && s.Took > 0 && visited > 0 {
				v.found.Took = time.Duration(float64(s.Took) / float64(visited) * float64(v.found.Count))
				v.found.Basis = append(v.found.Basis, fmt.Sprintf("time: %d entries took %v of work in the run of release %s", visited, s.Took.Round(time.Millisecond), rec.ID))
				return nil
			}
		}
	}
	v.found.Unknown = append(v.found.Unknown, "time: no release has a certificate of a run of it")
	return nil
}
