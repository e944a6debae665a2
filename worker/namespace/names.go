package namespace

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

// maxIndexes is how many tag indexes are remembered by name, so that they need not be looked for again.
const maxIndexes = 100_000

// indexNames are those of a release's tag indexes: those that one SCAN over the server finds, and those
// that come into being meanwhile, which a watch tells. They spare another SCAN. It may be nil, and then
// knows nothing.
type indexNames struct {
	cache   *Cache
	release string
	watch   *watch
	keys    map[string]bool // as the server has them; nil when there were too many
	whole   bool            // the SCAN has come to its end
}

// indexNames begins to collect; the SCAN comes after it. It is to be closed.
func (c *Cache) indexNames(ctx context.Context, release string) *indexNames {
	w := c.watch(ctx, c.tmpl.Prefix(release)+tasks.TagPrefix())
	if w == nil {
		return nil
	}
	return &indexNames{cache: c, release: release, watch: w, keys: map[string]bool{}}
}

func (x *indexNames) close() {
	if x != nil {
		x.watch.close()
	}
}

// saw adds what a step of the SCAN has found: tag indexes, and other keys of the release.
func (x *indexNames) saw(keys []string) {
	if x == nil || x.keys == nil {
		return
	}
	prefix := x.cache.tmpl.Prefix(x.release) + tasks.TagPrefix()
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) {
			x.keys[key] = true
		}
	}
	if len(x.keys) > maxIndexes {
		x.keys = nil
	}
}

// scanned says that the SCAN has come to its end.
func (x *indexNames) scanned() {
	if x != nil {
		x.whole = true
	}
}

// named returns every tag index that there is, as the server names them, some that are gone perhaps
// among them; ok is false where one may be missing, as before the SCAN's end.
func (x *indexNames) named(ctx context.Context) (keys []string, ok bool) {
	if x == nil || !x.whole {
		return nil, false
	}
	changed, ok := x.watch.changed(ctx)
	x.saw(changed)
	return slices.Collect(maps.Keys(x.keys)), ok && x.keys != nil
}
