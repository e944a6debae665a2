package web

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/alphanode/stoker/tasks"
)

const (
	feedSearched = 2000 // newest calls that a search looks at
	feedShown    = 100  // of them, at most
)

// feed is what the page of invalidations shows.
type feed struct {
	Query   string
	Pending []Pending
	Applied []applied
	Newest  int // calls that were searched
}

// applied is one applied call as a row.
type applied struct{ tasks.Applied }

// Removed returns the entries removed from each release, by its name.
func (a applied) Removed() []removed {
	var all []removed
	for _, id := range slices.Sorted(maps.Keys(a.Namespaces)) {
		all = append(all, removed{id, a.Namespaces[id]})
	}
	return all
}

type removed struct {
	Release string
	Entries int64
}

// showFeed answers /invalidations.
func (s *Server) showFeed(w http.ResponseWriter, r *http.Request) {
	query := strings.TrimSpace(r.URL.Query().Get("q"))
	f, err := within(r.Context(), readLimit, func(ctx context.Context) (feed, error) { return s.feed(ctx, query) })
	if err != nil {
		s.deps.Log.WarnContext(r.Context(), "console cannot read invalidations", "err", err)
		s.render(w, r, http.StatusServiceUnavailable, s.pages.message, "The invalidations could not be read", redactText(err.Error()))
		return
	}
	s.render(w, r, http.StatusOK, s.pages.feed, "Invalidations", f)
}

func (s *Server) feed(ctx context.Context, query string) (feed, error) {
	pending, err := s.deps.Pending(ctx, mostListed)
	if err != nil {
		return feed{}, err
	}
	newest, err := s.deps.Recent(ctx, feedSearched)
	if err != nil {
		return feed{}, err
	}
	f := feed{Query: query, Newest: len(newest)}
	for _, p := range pending {
		if matches(query, p.By, p.Sample) {
			f.Pending = append(f.Pending, p)
		}
	}
	for _, a := range newest {
		if len(f.Applied) == feedShown {
			break
		}
		if matches(query, a.By, a.Sample) {
			f.Applied = append(f.Applied, applied{a})
		}
	}
	return f, nil
}

// matches reports whether who asked, why or one of the shown targets holds the query.
func matches(query string, by tasks.By, sample []tasks.Target) bool {
	holds := func(text string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(query)) }
	return query == "" || holds(by.Actor) || holds(by.Reason) ||
		slices.ContainsFunc(sample, func(t tasks.Target) bool { return holds(t.String()) })
}
