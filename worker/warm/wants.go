package warm

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/warm/hot"
	"github.com/alphanode/stoker/worker/warm/source"
)

// wants is a run's hot list: what visitors want most, with the entry that each needs as far as the
// run's sources tell. A plan without a hot list has an empty one.
type wants struct {
	list   hot.List
	from   string // where the list comes from, in a person's words; "" without one
	items  []*want
	byName map[string]*want
	byKey  map[string]*want
}

// want is an item of the list: a part of the run's record.
type want struct {
	Name   string      `json:"name,omitempty"` // a path; "" where the item is a key
	Key    tasks.Bytes `json:"key,omitempty"`  // of the entry that it needs; "" when nobody tells
	Weight float64     `json:"weight"`
	Warmed bool        `json:"warmed,omitempty"` // a crawl of the run visits it
}

// noWants is the list of a plan without one.
func noWants() *wants { return &wants{byName: map[string]*want{}, byKey: map[string]*want{}} }

// wanted reads a plan's hot list for a release.
func (r *Runner) wanted(ctx context.Context, plan *Plan, release string) (*wants, error) {
	w := noWants()
	var err error
	switch spec := plan.Hot; {
	case spec == nil:
		return w, nil
	case spec.AccessLog != "":
		w.from = "access log"
		w.list, err = hot.ReadLog(ctx, spec.AccessLog, spec.Size())
	default:
		w.from, w.list, err = r.mostUsed(ctx, *spec)
	}
	if err != nil {
		return nil, fmt.Errorf("hot list: %w", err)
	}
	namer, err := plan.Hot.Namer(release)
	if err != nil {
		return nil, err
	}
	for _, it := range w.list.Items {
		one := &want{Weight: it.Weight}
		if w.list.Paths {
			one.Name = it.Name
			w.byName[it.Name] = one
			w.name(one, namer.Key(it.Name, release))
		} else {
			w.name(one, it.Name)
		}
		w.items = append(w.items, one)
	}
	return w, nil
}

// mostUsed lists the most used keys of a release's namespace.
func (r *Runner) mostUsed(ctx context.Context, spec hot.Spec) (from string, list hot.List, err error) {
	id, err := r.liveRelease(ctx, spec.KeysOf, hot.Active)
	if err != nil || id == "" {
		return noKeys, list, err
	}
	top := hot.NewTop(spec.Size())
	err = r.deps.Cache.Uses(ctx, id, func(counted bool, uses []namespace.Use) error {
		list.Counted = counted
		for _, u := range uses {
			weight := 1 / (1 + u.Idle.Seconds())
			if counted {
				weight = hot.Uses(u.Freq, lfuFactor)
			}
			top.Add(hot.Item{Name: u.Key, Weight: weight})
			list.Total += weight
		}
		return nil
	})
	list.Items = top.Items()
	if !list.Counted { // the order is known, and no more
		list.Total = float64(len(list.Items))
		for i := range list.Items {
			list.Items[i].Weight = 1
		}
	}
	return "keys of " + id, list, err
}

// noKeys is where the hot list of the first release comes from.
const noKeys = "no release's keys"

// lfuFactor is the server's lfu-log-factor unless somebody has set another.
const lfuFactor = 10

// name says which entry an item needs, once.
func (w *wants) name(one *want, key string) {
	if one.Key == "" && key != "" {
		one.Key = tasks.Bytes(key)
		w.byKey[key] = one
	}
}

// of returns the item that a visit of the path, which leaves these entries behind, is wanted
// for; nil when nobody wants it much.
func (w *wants) of(path string, keys []string) *want {
	if one := w.byName[path]; one != nil {
		return one
	}
	for _, key := range keys {
		if one := w.byKey[key]; one != nil {
			return one
		}
	}
	return nil
}

// restOf returns which share a sampled run takes of what is not listed: half of the sample is there to
// see everything, and half to see what visitors want.
func (w *wants) restOf(share float64) float64 {
	if len(w.items) == 0 || share >= 1 {
		return share
	}
	return share / 2
}

// picker returns what picks, for a sampled run, those of a source's wanted items whose visitors its half
// of the sample is for: each by its weight among them, none less likely than what nobody wants, and
// all together no more than share of the source's n items. An n of 0 is not known.
func (w *wants) picker(share float64, n int64, mine []*want) func(one *want, key string) bool {
	var sum float64
	for _, one := range mine {
		sum += one.Weight
	}
	rest, count := w.restOf(share), float64(len(mine))
	half := min(1, rest*max(float64(n), count)/max(count, 1))
	return func(one *want, key string) bool {
		if share <= 0 || share >= 1 {
			return true
		}
		return source.Picks(max(rest, source.ShareOf(half, one.Weight*count/sum)), key)
	}
}

// keysOf returns the keys of the list that a source of n items can have, the most wanted first, those that
// a sampled run takes.
func (w *wants) keysOf(share float64, n int64, has func(key string) bool) []string {
	var mine []*want
	for _, one := range w.items {
		if key := string(one.Key); key != "" && has(key) {
			mine = append(mine, one)
		}
	}
	picks := w.picker(share, n, mine)
	var keys []string
	for _, one := range mine {
		if key := string(one.Key); picks(one, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// hotList is where a run's record keeps its hot list: no source has such a name.
const hotList = "#hot"

// keepWants keeps the list for the certificate.
func (r runRecord) keepWants(ctx context.Context, w *wants) error {
	texts := make([]string, len(w.items))
	for i, one := range w.items {
		raw, err := json.Marshal(one)
		if err != nil {
			return err
		}
		texts[i] = string(raw)
	}
	for at := 0; at < len(texts); at += pushSize {
		if err := r.push(ctx, hotList, int64(at), texts[at:min(at+pushSize, len(texts))]); err != nil {
			return err
		}
	}
	return nil
}

// wants reads the list that the run's record keeps.
func (r runRecord) wants(ctx context.Context) ([]want, error) {
	texts, err := r.queue.LRange(ctx, r.keys.RunURLs(r.run, hotList), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read hot list of run %q: %w", r.run, err)
	}
	all := make([]want, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &all[i]); err != nil {
			return nil, fmt.Errorf("read hot list of run %q: item %s: %w", r.run, strconv.Itoa(i), err)
		}
	}
	return all, nil
}
