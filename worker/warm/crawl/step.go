package crawl

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

const (
	chunkPages = 25 // pages a chunk
	ahead      = 2  // chunks that wait to be taken: a killed worker visits these again at most
)

// step is a chunk on its way.
type step struct {
	s    *Source
	all  []*visit
	err  error          // nothing could be visited
	done sync.WaitGroup // of all visits
	next string
}

// visitAhead begins the visits of items, chunk by chunk, and hands over each chunk when all of its visits
// have begun. It returns when all have ended.
func (s *Source) visitAhead(ctx context.Context, part source.Part, items []string, start int, steps chan<- *step) {
	crew := s.crew(ctx, (len(items)-start)*len(s.dress))
	defer crew.done()
	for start < len(items) {
		end := min(start+chunkPages, len(items))
		taken := slices.DeleteFunc(slices.Clone(items[start:end]), func(path string) bool { return !part.Takes(path) })
		st := &step{s: s, next: strconv.Itoa(end)}
		if st.all, st.err = s.visits(ctx, taken); st.err == nil {
			st.begin(crew)
		}
		select {
		case steps <- st:
		case <-ctx.Done():
			return
		}
		if st.err != nil {
			return
		}
		start = end
	}
}

// begin begins the step's visits. It returns when all have begun.
func (st *step) begin(c *crew) {
	st.done.Add(len(st.all))
	for _, v := range st.all {
		c.work <- job{v, st}
	}
}

// run visits all of the step's pages.
func (st *step) run(ctx context.Context) error {
	crew := st.s.crew(ctx, len(st.all))
	defer crew.done()
	st.begin(crew)
	return st.wait()
}

// wait returns when all visits have ended. Its error is about more than one page.
func (st *step) wait() error {
	if st.err != nil {
		return st.err
	}
	st.done.Wait()
	for _, v := range st.all {
		if err := v.endsWalk(); err != nil {
			return err
		}
	}
	return nil
}

// chunk returns what the visits found.
func (st *step) chunk() (source.Chunk, error) {
	c := source.Chunk{Written: source.BySite, Next: st.next}
	if err := st.wait(); err != nil {
		return c, err
	}
	by := map[string]*visit{}
	for _, v := range st.all {
		if v.err == nil {
			by[v.key] = v
			c.Entries = append(c.Entries, source.Entry{Entry: tasks.Entry{Key: v.key}})
		}
	}
	for _, v := range st.all {
		var r *refusal
		if !errors.As(v.err, &r) {
			continue
		}
		c.Failed = append(c.Failed, source.Failure{Key: v.name(), Error: r.text, Kind: r.kind})
		if by[v.first] == nil && st.s.leftUnfit(v, r) {
			c.Unfit = append(c.Unfit, v.first)
		}
	}
	c.Again = func(ctx context.Context, keys []string) { st.s.again(ctx, by, keys) }
	return c, nil
}

// leftUnfit reports whether a visit that does not count has left an entry behind that must not be served.
func (s *Source) leftUnfit(v *visit, r *refusal) bool {
	return s.exist != nil && v.first != "" && v.unfit(r)
}

// again visits pages once more, by the keys of their entries. Whether it helped shows in the namespace.
func (s *Source) again(ctx context.Context, by map[string]*visit, keys []string) {
	st := &step{s: s}
	for _, key := range keys {
		if v, ok := by[key]; ok {
			st.all = append(st.all, &visit{item: v.item, dress: v.dress, key: key, first: v.first, renew: s.spec.Bypass != nil})
		}
	}
	_ = st.run(ctx)
}
