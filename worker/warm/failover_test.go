package warm

import (
	"context"
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// promoted is a cache Redis where a replica takes the primary's place when a batch asks whether all is replicated,
// once: lose takes away what it lacks.
type promoted struct {
	Cache
	name string
	lose func()
}

func (p *promoted) Servers(context.Context) (string, error) { return p.name, nil }

func (p *promoted) Replicated(context.Context) (string, error) {
	if p.name == "a" {
		p.name = "b"
		p.lose()
	}
	return p.name, nil
}

// What a server lacks that was promoted before a batch's mark closes is written again, a tag's index as well.
func TestFailoverBeforeTheEnd(t *testing.T) {
	g := newRig(t)
	g.deps.Cache = &promoted{Cache: g.cache, name: "a", lose: func() {
		for _, key := range []string{"post:a7", tasks.TagIndex("post:a8"), "asset:7", tasks.TagIndex("asset")} {
			if err := g.client.Del(t.Context(), "site:r1:"+key).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}}
	s := g.warm(g.start("run1", "r1", g.plan()))
	if s.Status != string(Pass) {
		t.Errorf("certificate %+v", s.Certificate)
	}
	for _, key := range []string{"post:a7", tasks.TagIndex("post:a8"), "asset:7", tasks.TagIndex("asset")} {
		if g.client.Exists(t.Context(), "site:r1:"+key).Val() == 0 {
			t.Errorf("%s is missing", key)
		}
	}
}
