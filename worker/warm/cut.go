package warm

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// pushSize is how many addresses go into a run's list at a time.
const pushSize = 500

// cutOnce returns the run's batches: those of an earlier try, or freshly cut ones.
func (r *Runner) cutOnce(ctx context.Context, job tasks.Job, rec runRecord, plan *Plan, p tasks.WarmRun) ([]tasks.WarmBatch, error) {
	st, err := rec.load(ctx, "")
	if err != nil {
		return nil, err
	}
	if st.cut != nil {
		return st.cut.batches(p), nil
	}
	c, err := r.cut(ctx, job, rec, plan, p)
	if err != nil {
		return nil, err
	}
	batches := c.batches(p)
	return batches, rec.open(ctx, c, batches)
}

// cut decides how the plan's sources are divided, and lists what visitors want most and what a crawl will visit.
func (r *Runner) cut(ctx context.Context, job tasks.Job, rec runRecord, plan *Plan, p tasks.WarmRun) (cutting, error) {
	var c cutting
	picked, err := plan.pick(p.Sources)
	if err != nil {
		return c, err
	}
	k := cutter{Runner: r, job: job, rec: rec, run: p, keep: plan.Certificate.sample()}
	if k.wants, err = r.wanted(ctx, plan, p.Release); err != nil {
		return c, err
	}
	if k.earlier, k.began, err = r.unfinished(ctx, p); err != nil {
		return c, err
	}
	c.Hot, c.HotTotal, c.HotCounted = k.wants.from, k.wants.list.Total, k.wants.list.Counted
	if p.Sample > 0 && len(k.wants.items) > 0 {
		c.Rest = k.wants.restOf(p.Sample)
	}
	asked := map[string]bool{}
	for _, s := range picked {
		asked[s.Name] = true
		if isDraining(job) {
			return c, tasks.ErrDraining
		}
		one, err := k.cutSource(ctx, s)
		if err != nil {
			return c, fmt.Errorf("plan source %q: %w", s.Name, err)
		}
		c.Sources = append(c.Sources, one)
	}
	for _, name := range plan.names() {
		if !asked[name] {
			c.Left = append(c.Left, name)
		}
	}
	return c, rec.keepWants(ctx, k.wants)
}

// unfinished returns the plan of the run that this one goes on from, and when that began: the
// release's last one, unless that has passed. What it stored and nobody invalidated is still
// right, since the release was live ever since. After a run that passed everything is warmed anew.
func (r *Runner) unfinished(ctx context.Context, p tasks.WarmRun) (*Plan, time.Time, error) {
	none := time.Time{}
	runs, err := r.deps.Queue.ZRevRange(ctx, r.deps.Keys.Runs(p.Release), 0, lastRuns-1).Result()
	if err != nil {
		return nil, none, fmt.Errorf("read runs of release %q: %w", p.Release, err)
	}
	for _, run := range runs {
		if run == p.Run {
			continue
		}
		rec := r.record(run)
		st, err := rec.load(ctx, "")
		if errors.Is(err, tasks.ErrNotFound) || err == nil && (st.status == statusQueued || st.status == statusRefused) {
			continue
		}
		if err != nil || st.status == string(Pass) || st.status == statusRunning {
			return nil, none, err
		}
		f, err := rec.fields(ctx, []string{"started_at"})
		if err != nil {
			return nil, none, err
		}
		plan, err := ParsePlan([]byte(st.plan))
		if err != nil || f.time("started_at").IsZero() {
			return nil, none, nil // of another version: nothing is known of it
		}
		return plan, f.time("started_at"), nil
	}
	return nil, none, nil
}

// cutter cuts one run.
type cutter struct {
	*Runner
	job     tasks.Job
	rec     runRecord
	run     tasks.WarmRun
	wants   *wants
	earlier *Plan     // of the run that this one goes on from; nil when there is none
	began   time.Time // of that run
	keep    int       // sampled entries to keep
}

func (k *cutter) cutSource(ctx context.Context, s Source) (cutSource, error) {
	c := cutSource{Name: s.Name, Kind: s.Kind(), Size: k.cfg.WarmBatch}
	if k.goesOn(s) {
		c.Since = k.began.UnixMicro()
	}
	var err error
	if c.From, err = k.carryFrom(ctx, s, k.run.Release); err != nil {
		return c, err
	}
	src, closeSource, err := k.open(s, k.run.Release, c.From)
	if err != nil {
		return c, err
	}
	defer closeSource()
	switch {
	case s.Crawl != nil:
		c.Listed = true
		l := lister{cutter: k, cut: &c, source: src, all: s.Crawl.Hot}
		return c, l.list(ctx)
	case s.Carry != nil && s.Carry.Hot:
		c.Listed = true
		if c.From != "" {
			c.Total, err = k.pushAll(ctx, s.Name, k.wants.keysOf(k.run.Sample, 0, func(string) bool { return true }))
		}
		c.Size = max(int(c.Total), 1) // each batch would look through all tag indexes
		return c, err
	}
	if counter, ok := src.(source.Counter); ok {
		if c.Total, err = counter.Count(ctx); err != nil {
			return c, err
		}
	}
	if s.Query != nil {
		c.Hot, err = k.listRows(ctx, s, c.Total)
	}
	if k.run.Sample > 0 {
		c.Total = int64(float64(c.Total) * k.run.Sample)
	}
	return c, err
}

// goesOn reports whether the run goes on from the earlier one in this source: it was the same.
func (k *cutter) goesOn(s Source) bool {
	return k.earlier != nil && slices.ContainsFunc(k.earlier.Sources, func(have Source) bool { return reflect.DeepEqual(have, s) })
}

// listRows keeps the keys of the most wanted of a query's n rows, which go first.
func (k *cutter) listRows(ctx context.Context, s Source, n int64) (int64, error) {
	pattern, err := s.Entry.Keys(k.run.Release)
	if err != nil {
		return 0, nil // its keys cannot be asked for: its rows come in the query's own order
	}
	keys := k.wants.keysOf(k.run.Sample, n, func(key string) bool { return len(pattern.Match(key)) > 0 })
	return k.pushAll(ctx, s.Name, keys)
}

// pushAll keeps items in the list of a source and returns how many there are.
func (k *cutter) pushAll(ctx context.Context, name string, items []string) (int64, error) {
	for at := 0; at < len(items); at += pushSize {
		if err := k.rec.push(ctx, name, int64(at), items[at:min(at+pushSize, len(items))]); err != nil {
			return 0, err
		}
	}
	return int64(len(items)), nil
}

// lister keeps the addresses of a crawl in the run's list: first those that nobody wants much, as
// they come, then the wanted ones, the most wanted first. Their batches are cut the other way round.
type lister struct {
	*cutter
	cut     *cutSource
	source  source.Source
	all     bool // what is wanted belongs to the crawl whether it lists it or not
	waiting []string
}

func (l *lister) list(ctx context.Context) error {
	namer, _ := l.source.(source.Namer)
	keysOf := func(path string) []string {
		if namer == nil {
			return nil
		}
		return namer.KeysOf(path)
	}
	rest := l.wants.restOf(l.run.Sample)
	paths := map[*want]string{}
	var n int64
	err := l.source.Keys(ctx, func(path string) error {
		n++
		if one := l.wants.of(path, keysOf(path)); one != nil {
			paths[one] = path
			return nil
		}
		if !source.Picks(rest, path) {
			return nil
		}
		return l.add(ctx, path, keysOf)
	})
	if err != nil {
		return err
	}
	if err := l.flush(ctx, keysOf); err != nil {
		return err
	}
	cold := l.cut.Total
	var mine []*want
	for _, one := range l.wants.items {
		path, listed := paths[one]
		if !listed && l.all && one.Name != "" {
			path, listed = one.Name, true
			n++
		}
		if !listed {
			// Most sites serve all their pages in one way: what a listed path needs tells of others.
			l.nameOther(one, keysOf)
			continue
		}
		paths[one] = path
		mine = append(mine, one)
		l.nameListed(one, keysOf(path))
	}
	picks := l.wants.picker(l.run.Sample, n, mine)
	for _, one := range mine {
		if !picks(one, paths[one]) {
			continue
		}
		if err := l.add(ctx, paths[one], keysOf); err != nil {
			return err
		}
	}
	err = l.flush(ctx, keysOf)
	l.cut.Hot = l.cut.Total - cold
	return err
}

func (l *lister) nameListed(one *want, keys []string) {
	one.Warmed = true
	if len(keys) > 0 {
		l.wants.name(one, keys[0])
	}
}

func (l *lister) nameOther(one *want, keysOf func(string) []string) {
	if one.Name == "" {
		return
	}
	if keys := keysOf(one.Name); len(keys) > 0 {
		l.wants.name(one, keys[0])
	}
}

func (l *lister) add(ctx context.Context, path string, keysOf func(string) []string) error {
	if l.waiting = append(l.waiting, path); len(l.waiting) < pushSize {
		return nil
	}
	if isDraining(l.job) {
		return tasks.ErrDraining
	}
	return l.flush(ctx, keysOf)
}

// flush keeps the waiting addresses, but for those whose entries are warm already.
func (l *lister) flush(ctx context.Context, keysOf func(string) []string) error {
	left, err := l.cold(ctx, keysOf)
	if err != nil {
		return err
	}
	if err := l.rec.push(ctx, l.cut.Name, l.cut.Total, left); err != nil {
		return err
	}
	l.cut.Total += int64(len(left))
	l.waiting = l.waiting[:0]
	l.job.Progress("list "+l.cut.Name, l.cut.Total, 0)
	return l.rec.touch(ctx, l.cut.Name, nil)
}

// cold returns which of the waiting addresses have to be visited.
func (l *lister) cold(ctx context.Context, keysOf func(string) []string) ([]string, error) {
	if l.cut.Since == 0 {
		return l.waiting, nil
	}
	var all []string
	keys := make([][]string, len(l.waiting))
	for i, path := range l.waiting {
		keys[i] = keysOf(path)
		all = append(all, keys[i]...)
	}
	warm, err := l.areWarm(ctx, l.run.Release, all, l.cut.Since)
	if err != nil {
		return nil, err
	}
	var left []string
	for i, path := range l.waiting {
		mine := warm[:len(keys[i])]
		warm = warm[len(keys[i]):]
		if len(mine) == 0 || slices.Contains(mine, false) {
			left = append(left, path)
			continue
		}
		l.cut.Kept++
		l.cut.Sample = pick(l.cut.Sample, entriesOf(keys[i]), l.keep)
	}
	return left, nil
}

func entriesOf(keys []string) []source.Entry {
	all := make([]source.Entry, len(keys))
	for i, key := range keys {
		all[i].Key = key
	}
	return all
}

// areWarm reports of each entry whether it is there, and has as long to live as has passed since a time in µs.
func (r *Runner) areWarm(ctx context.Context, id string, keys []string, since int64) ([]bool, error) {
	found, err := r.deps.Cache.Lookup(ctx, id, keys)
	if err != nil {
		return nil, err
	}
	age := r.now().Sub(time.UnixMicro(since))
	warm := make([]bool, len(keys))
	for i, f := range found {
		warm[i] = f.Exists && (f.TTL < 0 || f.TTL >= age)
	}
	return warm, nil
}

// liveRelease resolves the name of a release to read from, where active means the one that is
// active: "" when there is none yet. One that is not live is refused.
func (r *Runner) liveRelease(ctx context.Context, name, active string) (string, error) {
	if name == active {
		return r.deps.Ledger.Active(ctx)
	}
	rec, err := r.deps.Ledger.Get(ctx, name)
	if err != nil {
		return "", err
	}
	if !rec.State.Live() {
		return "", fmt.Errorf("%w: release %q is %s: its namespace is gone or not kept fresh; name a live one", tasks.ErrRefused, rec.ID, rec.State)
	}
	return rec.ID, nil
}
