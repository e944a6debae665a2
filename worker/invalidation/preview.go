package invalidation

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
)

// previewed bounds the keys that a preview shows.
const previewed = 10

// Preview counts the entries that targets would remove from one namespace, and names some. An
// entry that several targets name counts once for each.
func (a *Applier) Preview(ctx context.Context, release string, targets []tasks.Target) (int64, []tasks.Bytes, error) {
	var n int64
	var sample []tasks.Bytes
	see := func(logical string) {
		n++
		if len(sample) < previewed {
			sample = append(sample, tasks.Bytes(logical))
		}
	}
	for _, t := range targets {
		var err error
		switch t.Kind {
		case tasks.KindKey:
			err = a.previewKeys(ctx, release, []string{string(t.Name)}, see)
		case tasks.KindTag:
			var members []string
			if members, err = a.cache.ZRange(ctx, a.tmpl.Key(release, tasks.TagIndex(string(t.Name))), 0, -1).Result(); err == nil {
				err = a.previewKeys(ctx, release, members, see)
			}
		case tasks.KindPrefix:
			err = a.previewPrefix(ctx, release, string(t.Name), see)
		}
		if err != nil {
			return n, sample, fmt.Errorf("preview %s in release %q: %w", t, release, err)
		}
	}
	return n, sample, nil
}

func (a *Applier) previewKeys(ctx context.Context, release string, logical []string, see func(string)) error {
	for len(logical) > 0 {
		part := logical[:min(slice, len(logical))]
		logical = logical[len(part):]
		pipe := a.cache.Pipeline()
		for _, l := range part {
			pipe.Exists(ctx, a.tmpl.Key(release, l))
		}
		replies, err := pipe.Exec(ctx)
		if err != nil {
			return err
		}
		for i, r := range replies {
			if r.(interface{ Val() int64 }).Val() == 1 {
				see(part[i])
			}
		}
	}
	return nil
}

func (a *Applier) previewPrefix(ctx context.Context, release, prefix string, see func(string)) error {
	found := map[string]bool{} // SCAN may return a key twice
	it := a.cache.Scan(ctx, 0, a.tmpl.Match(release, prefix), slice).Iterator()
	for it.Next(ctx) {
		if logical, ok := a.tmpl.Logical(release, it.Val()); ok && !found[logical] {
			found[logical] = true
			see(logical)
		}
	}
	return it.Err()
}
