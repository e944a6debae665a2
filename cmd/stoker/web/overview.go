package web

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphanode/stoker/worker/release"
)

const (
	readLimit  = 2 * time.Second // for each part of a page or a scrape
	mostListed = 20              // pending invalidations on the page
)

// overview is what the first page shows. What could not be read is left out and told of in
// Problems.
type overview struct {
	App      string
	At       time.Time
	Served   *row // nil: none is active, or the releases could not be read
	Releases []row
	Rollback *Readiness
	Log      *LogStatus
	Pending  []Pending
	Lanes    []lane
	Braked   []string // work that goes slower than its pace
	Health   *report
	Problems []string
}

// row is a release as the page lists it.
type row struct {
	release.Record
	Active      bool
	Count       count       // of its namespace; unknown when it is not live
	Certificate certificate // zero without one
	Snapshot    *snapshot   // nil without one
	Verdict     verdict     // zero without one
	Watch       *watch      // nil without one
	Drill       drill       // zero without one
}

// certificate is what the console reads of release.DocCertificate.
type certificate struct {
	Verdict       string   `json:"verdict"`
	Reasons       []string `json:"reasons"`
	Warnings      []string `json:"warnings"`
	Planned       int64    `json:"planned"`
	Coverage      float64  `json:"coverage"`
	Sampled       int      `json:"sampled"`
	SampleMissing int      `json:"sample_missing"`
	SameMinute    float64  `json:"same_minute"`
	Sources       []struct {
		Name        string   `json:"name"`
		Kind        string   `json:"kind"`
		Planned     int64    `json:"planned"`
		Stored      int64    `json:"stored"`
		Invalidated int64    `json:"invalidated"`
		Failed      int64    `json:"failed"`
		Coverage    float64  `json:"coverage"`
		Examples    []string `json:"examples"`
		Failures    []failed `json:"failures"`
	} `json:"sources"`
	Hot *struct {
		From           string  `json:"from"`
		Judged         int     `json:"judged"`
		Coverage       float64 `json:"coverage"`
		Active         string  `json:"active"`
		ActiveCoverage float64 `json:"active_coverage"`
	} `json:"hot"`
}

// Reread is how many of the sampled entries were there.
func (c certificate) Reread() int { return c.Sampled - c.SampleMissing }

// failed are the failures of one kind in a certificate's source.
type failed struct {
	Kind     string   `json:"kind"`
	Count    int64    `json:"count"`
	Examples []string `json:"examples"`
}

// NotStored reports whether any source tells of an entry that it never stored.
func (c certificate) NotStored() bool {
	for _, s := range c.Sources {
		if len(s.Failures) > 0 || len(s.Examples) > 0 {
			return true
		}
	}
	return false
}

// Words is the kind for people.
func (f failed) Words() string { return strings.ReplaceAll(f.Kind, "_", " ") }

// verdict is what the console reads of release.DocVerdict.
type verdict struct {
	Verdict string   `json:"verdict"`
	Reasons []string `json:"reasons"`
}

// watch is what the console reads of release.DocWatch.
type watch struct {
	ActivatedAt time.Time  `json:"activated_at"`
	Planned     int        `json:"planned"`
	Looks       []struct{} `json:"looks"`
	Next        time.Time  `json:"next"` // zero when the watch has ended
	Ended       string     `json:"ended"`
	Rollback    *struct {
		To      string    `json:"to"`
		At      time.Time `json:"at"`
		Outcome string    `json:"outcome"`
		Detail  string    `json:"detail"`
	} `json:"rollback"`
}

// snapshot is what the console reads of release.DocSnapshot.
type snapshot struct {
	Entries    int64     `json:"entries"`
	Bytes      int64     `json:"bytes"`
	Created    time.Time `json:"created"`
	VerifiedAt time.Time `json:"verified_at"`
	DeletedAt  time.Time `json:"deleted_at"`
}

// CanReturn reports whether a rollback to the release is worth asking for.
func (r row) CanReturn() bool {
	return !r.Active && (r.State == release.Standby || r.State == release.Archived && r.Archive())
}

// CanExpire reports whether the release may be taken out of Redis, or its archive deleted.
func (r row) CanExpire() bool {
	return !r.Active && !r.Pinned && (r.State == release.Standby || r.State == release.Archived)
}

// DrillWhy is why its last drill was not good.
func (r row) DrillWhy() string { return redactText(r.Drill.Why) }

// CanServe reports whether the release is ready to be served.
func (r row) CanServe() bool { return r.State == release.Ready }

// Archive reports whether the release has a verified archive that is still there.
func (r row) Archive() bool {
	return r.Snapshot != nil && !r.Snapshot.VerifiedAt.IsZero() && r.Snapshot.DeletedAt.IsZero()
}

// report is what the console reads of a health report.
type report struct {
	At     time.Time `json:"at"`
	Status string    `json:"status"`
	Checks []check   `json:"checks"`
}

type check struct {
	Name   string  `json:"name"`
	Status string  `json:"status"`
	Detail string  `json:"detail"`
	Remedy string  `json:"remedy"`
	Value  float64 `json:"value"`
}

// Shown are the releases that the first page lists: the newest that are still there.
func (o overview) Shown() []row {
	const most = 8
	var shown []row
	for _, r := range o.Releases {
		if (r.State != release.Expired || r.Active) && len(shown) < most {
			shown = append(shown, r)
		}
	}
	return shown
}

// gather reads all parts at once.
func (s *Server) gather(ctx context.Context) overview {
	o := overview{App: s.deps.App, At: s.deps.Now()}
	var parts sync.WaitGroup
	var mu sync.Mutex
	part := func(name string, read func() error) {
		parts.Go(func() {
			if err := read(); err != nil {
				s.deps.Log.WarnContext(ctx, "console page lacks a part", "part", name, "err", err)
				mu.Lock()
				defer mu.Unlock()
				o.Problems = append(o.Problems, name+" could not be read: "+redactText(err.Error()))
			}
		})
	}
	part("Releases", func() (err error) { o.Releases, err = within(ctx, readLimit, s.rows); return err })
	part("Rollback", func() (err error) { o.Rollback, err = within(ctx, readLimit, pointer(s.deps.Rollback)); return err })
	part("Invalidation log", func() (err error) { o.Log, err = within(ctx, readLimit, pointer(s.deps.Status)); return err })
	part("Pending invalidations", func() (err error) {
		o.Pending, err = within(ctx, readLimit, func(ctx context.Context) ([]Pending, error) { return s.deps.Pending(ctx, mostListed) })
		return err
	})
	part("Lanes", func() (err error) { o.Lanes, err = within(ctx, readLimit, s.lanes.read); return err })
	if s.deps.Braked != nil {
		part("Pace of work", func() (err error) { o.Braked, err = within(ctx, readLimit, s.deps.Braked); return err })
	}
	part("Health", func() (err error) { o.Health, err = within(ctx, readLimit, s.report); return err })
	parts.Wait()
	slices.Sort(o.Problems)
	if o.Rollback != nil {
		o.Rollback.Reason = redactText(o.Rollback.Reason) // it may tell of an error
	}
	if i := slices.IndexFunc(o.Releases, func(r row) bool { return r.Active }); i >= 0 {
		o.Served = &o.Releases[i]
	}
	return o
}

// rows reads the releases and, from memory where possible, their sizes.
func (s *Server) rows(ctx context.Context) ([]row, error) {
	records, err := s.deps.Ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	active, err := s.deps.Ledger.Active(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]row, len(records))
	var counted sync.WaitGroup
	for i, r := range records {
		rows[i] = newRow(r, active)
		if r.State.Live() {
			counted.Go(func() { rows[i].Count = s.counts.of(ctx, r.ID) })
		}
	}
	counted.Wait()
	return rows, nil
}

// newRow reads what the page shows of a release's documents. One that is not of the form
// expected is passed over here; the release's own page shows it as it is.
func newRow(r release.Record, active string) row {
	found := row{Record: r, Active: r.ID == active}
	_, _ = r.Doc(release.DocCertificate, &found.Certificate)
	_, _ = r.Doc(release.DocVerdict, &found.Verdict)
	_, _ = r.Doc(release.DocDrill, &found.Drill)
	var seen watch
	if ok, err := r.Doc(release.DocWatch, &seen); ok && err == nil {
		found.Watch = &seen
	}
	var snap snapshot
	if ok, err := r.Doc(release.DocSnapshot, &snap); ok && err == nil {
		found.Snapshot = &snap
	}
	return found
}

// report reads the newest health report, its worst checks first.
func (s *Server) report(ctx context.Context) (*report, error) {
	raw, err := s.deps.Health(ctx)
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read health report: %w", err)
	}
	r.sort()
	return &r, nil
}

// sort puts the worst checks first.
func (r *report) sort() {
	worst := map[string]int{"fail": 0, "warn": 1, "unknown": 2, "ok": 3}
	slices.SortStableFunc(r.Checks, func(a, b check) int { return cmp.Compare(worst[a.Status], worst[b.Status]) })
}

// within returns what read returns, or an error when that takes longer than limit: a Redis
// client may take its own timeouts, whatever the context says.
func within[T any](ctx context.Context, limit time.Duration, read func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		v, err := read(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select { // both may be so
	case r := <-done:
		return r.value, r.err
	default:
		var none T
		return none, fmt.Errorf("no answer within %v", limit)
	}
}

// pointer makes a reading's result one that can be absent.
func pointer[T any](read func(context.Context) (T, error)) func(context.Context) (*T, error) {
	return func(ctx context.Context) (*T, error) {
		v, err := read(ctx)
		if err != nil {
			return nil, err
		}
		return &v, nil
	}
}
