package invalidation

import (
	"testing"

	"github.com/alphanode/stoker/tasks"
)

// TestPreview: it tells what an invalidation then removes, each entry once.
func TestPreview(t *testing.T) {
	previews(newSite(t, "r1"))
}

func previews(s *site) {
	s.Helper()
	s.put("r1", "page:/a", "author:ann")
	s.put("r1", "page:/b", "author:ann", "big")
	s.put("r1", "nav:top")
	s.put("r1", "other")
	targets := []tasks.Target{key("page:/a"), key("missing"), tag("author:ann"), tag("big"), prefix("nav:")}
	got, err := s.apply.Preview(ctx, "r1", targets)
	s.check(err)
	bytes := int64(0)
	for _, k := range []string{"page:/a", "page:/b", "nav:top"} {
		bytes += s.rdb.MemoryUsage(ctx, s.tmpl.Key("r1", k)).Val()
	}
	if got.Release != "r1" || got.Entries != 3 || got.Bytes != bytes || len(got.Sample) != 3 {
		s.Errorf("got %+v, want 3 entries of %d bytes", got, bytes)
	}
	n := s.record(targets...)
	if _, err := s.apply.Sweep(ctx, 0); err != nil {
		s.Fatal(err)
	}
	if removed := s.applied(n).Namespaces["r1"]; removed != got.Entries {
		s.Errorf("removed %d, previewed %d", removed, got.Entries)
	}
	if got, err := s.apply.Preview(ctx, "r1", targets); err != nil || got.Entries != 0 || got.Bytes != 0 {
		s.Errorf("afterwards: %+v, %v", got, err)
	}
}
