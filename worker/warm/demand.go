package warm

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// maxMissing is how many missing entries a certificate names.
const maxMissing = 5

// HotFigures say how much of what visitors ask for most would be found in the cache: the predicted hit
// rate. They are of the items of the hot list that the cache is for: those that a crawl visits, and those
// that the release or the active one has an entry of. Every share is weighed with the requests.
type HotFigures struct {
	From    string  `json:"from"`    // where the list comes from
	Items   int     `json:"items"`   // of the list
	Judged  int     `json:"judged"`  // of them, those that the cache is for
	Traffic float64 `json:"traffic"` // share of all requests that was for the judged items
	Counted bool    `json:"counted"` // false: only the order is known, so all items weigh the same

	Coverage float64       `json:"coverage"`          // share of the judged requests whose entry the release has
	Edited   float64       `json:"edited"`            // and of those whose entry an edit removed meanwhile
	Missing  []tasks.Bytes `json:"missing,omitempty"` // the most wanted entries that it lacks

	Active         string  `json:"active,omitempty"` // the release that is compared with; "" when there is none
	ActiveCoverage float64 `json:"active_coverage"`  // share of the judged requests whose entry that has
}

// hotFigures looks for the entries that the hot list needs; nil without a list.
func (r *Runner) hotFigures(ctx context.Context, rec runRecord, c cutting, id string, mark tasks.Mark) (*HotFigures, bool, error) {
	if c.Hot == "" {
		return nil, false, nil
	}
	items, err := rec.wants(ctx)
	if err != nil {
		return nil, false, err
	}
	h := &HotFigures{From: c.Hot, Items: len(items), Counted: c.HotCounted}
	if h.Active, err = r.deps.Ledger.Active(ctx); err != nil {
		return nil, false, err
	}
	if h.Active == id {
		h.Active = ""
	}
	var keys []string
	var known []want
	for _, one := range items {
		if one.Key != "" {
			keys, known = append(keys, string(one.Key)), append(known, one)
		}
	}
	there, err := r.exist(ctx, id, keys)
	if err != nil {
		return nil, false, err
	}
	active, err := r.exist(ctx, h.Active, keys)
	if err != nil {
		return nil, false, err
	}
	unclear, err := r.weigh(ctx, id, mark, h, c.HotTotal, known, there, active)
	return h, unclear, err
}

// weigh fills in the shares. unclear says that tags were invalidated since the mark: whether
// they are why an entry is missing is not known.
func (r *Runner) weigh(ctx context.Context, id string, mark tasks.Mark, h *HotFigures, total float64, known []want, there, active []bool) (unclear bool, err error) {
	var all, found, before, edited float64
	var missing []want
	for i, one := range known {
		if !one.Warmed && !active[i] && !there[i] {
			continue // no page of the cache's
		}
		h.Judged++
		all += one.Weight
		if active[i] {
			before += one.Weight
		}
		if there[i] {
			found += one.Weight
		} else {
			missing = append(missing, one)
		}
	}
	if all == 0 {
		return false, nil
	}
	if len(missing) > 0 && mark.Epoch != "" && r.deps.Log.Fresh(ctx, mark) == nil {
		if edited, missing, err = r.editedOf(ctx, id, mark, missing); err != nil {
			return false, err
		}
		if unclear, err = r.tagsSince(ctx, mark); err != nil {
			return false, err
		}
	}
	for _, one := range missing[:min(maxMissing, len(missing))] {
		h.Missing = append(h.Missing, one.Key)
	}
	h.Coverage, h.Edited, h.ActiveCoverage = found/all, edited/all, before/all
	h.Traffic = all / max(total, all)
	return unclear, nil
}

// editedOf returns the weight of the missing items that were invalidated since the mark, and the others.
func (r *Runner) editedOf(ctx context.Context, id string, mark tasks.Mark, missing []want) (weight float64, left []want, err error) {
	entries := make([]tasks.Tagged, len(missing))
	for i, one := range missing {
		entries[i].Key = string(one.Key)
	}
	stale, err := r.deps.Check.Check(ctx, id, mark, entries)
	if err != nil {
		return 0, nil, err
	}
	for i, one := range missing {
		if stale[i] {
			weight += one.Weight
		} else {
			left = append(left, one)
		}
	}
	return weight, left, nil
}

// exist reports of each key whether the release has an entry of it; a release of "" has none.
func (r *Runner) exist(ctx context.Context, id string, keys []string) ([]bool, error) {
	there := make([]bool, len(keys))
	if id == "" || len(keys) == 0 {
		return there, nil
	}
	found, err := r.deps.Cache.Lookup(ctx, id, keys)
	if err != nil {
		return nil, fmt.Errorf("look up entries of release %q: %w", id, err)
	}
	for i, f := range found {
		there[i] = f.Exists
	}
	return there, nil
}

// shortfall says why the figures are too low for a demand, "" when they are not. A plan without a demand
// for them wants as much as the active release has, less what its coverage may lack; and nothing where
// uses are not counted.
func (h HotFigures) shortfall(d Demand) string {
	slack := 1 - d.coverage()
	got := h.Coverage + h.Edited + 1e-9
	switch demanded := d.Hot.Or(0); {
	case h.Judged == 0:
		return ""
	case got < demanded:
		return fmt.Sprintf("%s of what visitors ask for most would be found, below %s%s", percent(h.Coverage), percent(demanded), h.lacks())
	case d.Hot == "" && h.Counted && h.Active != "" && got < h.ActiveCoverage-slack:
		return fmt.Sprintf("%s of what visitors ask for most would be found, where %s has %s%s", percent(h.Coverage), h.Active, percent(h.ActiveCoverage), h.lacks())
	}
	return ""
}

func (h HotFigures) lacks() string {
	if len(h.Missing) == 0 {
		return ""
	}
	return fmt.Sprintf(": it lacks %s", h.Missing)
}
