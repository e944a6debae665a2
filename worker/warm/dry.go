package warm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/carry"
	"github.com/alphanode/stoker/worker/warm/source"
)

// sampleKeys is how many keys of each source a dry run shows.
const sampleKeys = 10

// Survey is what a dry run found in one source. Its estimates are made of what was measured, now or
// in an earlier run; what they rest on, and what is not known, is said in words.
type Survey struct {
	Name  string        `json:"name"`
	Kind  string        `json:"kind"`
	From  string        `json:"from,omitempty"` // of a carry: the release
	Count int64         `json:"count"`          // keys of a query or carry, addresses of a crawl, which the run would visit
	Hot   int64         `json:"hot,omitempty"`  // of them, those that visitors want most: they go first
	Keys  []tasks.Bytes `json:"keys"`           // the first few that it would visit

	Bytes    int64         `json:"bytes,omitempty"`    // of the cache's memory, about; 0 when it is not known
	Took     time.Duration `json:"took_ns,omitempty"`  // of work: batches side by side take less; 0 when it is not known
	Requests int64         `json:"requests,omitempty"` // to the origin: pages, or statements of a query
	Basis    []string      `json:"basis,omitempty"`    // what the estimates rest on
	Unknown  []string      `json:"unknown,omitempty"`  // what is not known, and why

	Refused string `json:"refused,omitempty"` // of a carry: why it would be
}

// DryRun reads the plan's sources for a release and counts what a run would warm that takes share
// of it, in (0, 1); 0 means all. It writes nothing. Its use of the database, the site's sitemap and the
// carried namespace is real.
func (r *Runner) DryRun(ctx context.Context, plan *Plan, release string, sources []string, share float64) ([]Survey, error) {
	if err := tasks.ValidateRelease(release); err != nil {
		return nil, err
	}
	picked, err := plan.pick(sources)
	if err != nil {
		return nil, err
	}
	w, err := r.wanted(ctx, plan, release)
	noList := ""
	if err != nil { // the log may be on the workers' machines only
		w, noList = noWants(), fmt.Sprintf("the order, and which entries a sample takes: %v", err)
	}
	var all []Survey
	for _, s := range picked {
		v := surveyor{Runner: r, source: s, release: release, share: share, wants: w}
		one, err := v.survey(ctx)
		if err != nil {
			return all, fmt.Errorf("dry run of source %q: %w", s.Name, err)
		}
		if noList != "" {
			one.Unknown = append(one.Unknown, noList)
		}
		all = append(all, one)
	}
	return all, nil
}

// surveyor looks at one source.
type surveyor struct {
	*Runner
	source  Source
	release string
	share   float64
	wants   *wants
	found   Survey
	all     int64 // keys, taken or not
	hot     []hotKey
	cold    []string // the first few
}

// hotKey is a key that the run would visit among the first.
type hotKey struct {
	key  string
	want *want
}

func (v *surveyor) survey(ctx context.Context) (Survey, error) {
	s := v.source
	v.found = Survey{Name: s.Name, Kind: s.Kind()}
	var err error
	if v.found.From, err = v.carryFrom(ctx, s, v.release); err != nil {
		return v.found, err
	}
	if s.Carry != nil && !s.Carry.Hot {
		return v.surveyCarry(ctx)
	}
	src, closeSource, err := v.open(s, v.release, v.found.From)
	if err != nil {
		return v.found, err
	}
	defer closeSource()
	began := v.now()
	if err := v.count(ctx, src); err != nil {
		return v.found, err
	}
	v.pick()
	v.show()
	return v.found, v.estimate(ctx, src, v.now().Sub(began))
}

// count counts the keys that the run would visit.
func (v *surveyor) count(ctx context.Context, src source.Source) error {
	namer, _ := src.(source.Namer)
	listed := map[*want]bool{}
	onlyHot := v.source.Carry != nil && v.source.Carry.Hot
	if !onlyHot {
		err := src.Keys(ctx, func(key string) error {
			keys := []string{key}
			if namer != nil {
				keys = namer.KeysOf(key)
			}
			one := v.wants.of(key, keys)
			if one != nil {
				listed[one] = true
			}
			v.add(key, one)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !v.source.hot() || onlyHot && v.found.From == "" {
		return nil
	}
	for _, one := range v.wants.items {
		name := one.Name
		if onlyHot {
			name = string(one.Key)
		}
		if !listed[one] && name != "" {
			v.add(name, one)
		}
	}
	return nil
}

// add counts a key if the run takes it; of what is wanted that is known when all is counted.
func (v *surveyor) add(key string, one *want) {
	v.all++
	switch {
	case one != nil:
		v.hot = append(v.hot, hotKey{key, one})
	case source.Picks(v.wants.restOf(v.share), key):
		v.found.Count++
		if len(v.cold) < sampleKeys {
			v.cold = append(v.cold, key)
		}
	}
}

// pick leaves of what is wanted what the run takes, and counts it.
func (v *surveyor) pick() {
	mine := make([]*want, len(v.hot))
	for i, h := range v.hot {
		mine[i] = h.want
	}
	picks := v.wants.picker(v.share, v.all, mine)
	v.hot = slices.DeleteFunc(v.hot, func(h hotKey) bool { return !picks(h.want, h.key) })
	v.found.Hot = int64(len(v.hot))
	v.found.Count += v.found.Hot
}

// show picks the keys to show: the first that the run would visit.
func (v *surveyor) show() {
	slices.SortStableFunc(v.hot, func(a, b hotKey) int { return cmp.Compare(b.want.Weight, a.want.Weight) })
	for _, h := range v.hot[:min(sampleKeys, len(v.hot))] {
		v.found.Keys = append(v.found.Keys, tasks.Bytes(h.key))
	}
	for _, key := range v.cold[:min(sampleKeys-len(v.found.Keys), len(v.cold))] {
		v.found.Keys = append(v.found.Keys, tasks.Bytes(key))
	}
}

// surveyCarry counts what a carry would copy, and predicts the memory for it.
func (v *surveyor) surveyCarry(ctx context.Context) (Survey, error) {
	src, err := v.carry(ctx, v.source, v.release)
	if err != nil {
		return v.found, err
	}
	e, err := src.Count(ctx)
	if err != nil {
		return v.found, err
	}
	v.found.Count, v.found.Bytes = e.Entries, e.Bytes
	switch {
	case v.found.From == "":
		v.found.Basis = append(v.found.Basis, "no other release is active: there is nothing to carry from")
		return v.found, nil
	case e.Entries == 0:
		v.found.Basis = append(v.found.Basis, fmt.Sprintf("release %s has no entry of its families", v.found.From))
		return v.found, nil
	}
	v.found.Basis = append(v.found.Basis, fmt.Sprintf("memory: a part of its entries, weighed as release %s has them", v.found.From))
	for _, key := range e.Sample {
		v.found.Keys = append(v.found.Keys, tasks.Bytes(key))
	}
	if v.share > 0 {
		v.found.Unknown = append(v.found.Unknown, "which of them a sample carries: the first slice that holds any")
	}
	if err := v.estimateTime(ctx); err != nil || v.deps.Room == nil {
		return v.found, err
	}
	if err := v.fit(ctx, []*carry.Source{src}); errors.Is(err, tasks.ErrRefused) {
		v.found.Refused = err.Error()
	} else if err != nil {
		return v.found, err
	}
	return v.found, nil
}
