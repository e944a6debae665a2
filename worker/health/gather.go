package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Gather asks every question at once, each with its own limit of time, and returns when the last is
// answered or given up.
func (m *Monitor) Gather(ctx context.Context) Sample {
	s := Sample{At: m.now().UTC(), Lanes: make([]Lane, len(tasks.Lanes()))}
	var wg sync.WaitGroup
	wg.Go(func() { s.Queue.Servers, s.Queue.Err = ask(ctx, m.cfg.HealthTimeout, m.queueServers) })
	wg.Go(func() { s.Cache.Servers, s.Cache.Err = ask(ctx, m.cfg.HealthTimeout, m.cacheServers) })
	wg.Go(func() { m.gatherLanes(ctx, s.Lanes) })
	wg.Go(func() { s.Workers.Servers, s.Workers.Err = ask(ctx, m.cfg.HealthTimeout, m.laneServers) })
	wg.Go(func() { s.Invalidations = m.gatherInvalidations(ctx) })
	wg.Go(func() { s.Freshness = m.gatherFreshness(ctx) })
	wg.Go(func() { m.gatherReleases(ctx, &s) })
	wg.Wait()
	return s
}

// ask gives call a limit of time, whether or not it heeds its context: asynq's inspector takes none.
func ask[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := call(ctx)
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("no answer within %v: %w", limit, ctx.Err())
	}
}

func (m *Monitor) queueServers(ctx context.Context) ([]Server, error) {
	return readRedis(ctx, m.d.Queue)
}

func (m *Monitor) cacheServers(ctx context.Context) ([]Server, error) {
	return readRedis(ctx, m.d.Cache)
}

func (m *Monitor) gatherLanes(ctx context.Context, lanes []Lane) {
	queues, err := ask(ctx, m.cfg.HealthTimeout, func(context.Context) ([]string, error) { return m.inspector.Queues() })
	var wg sync.WaitGroup
	for i, name := range tasks.Lanes() {
		lanes[i] = Lane{Name: name, Err: err}
		if err != nil || !slices.Contains(queues, name.Queue(m.d.App)) {
			continue
		}
		wg.Go(func() {
			lanes[i], lanes[i].Err = ask(ctx, m.cfg.HealthTimeout, func(context.Context) (Lane, error) { return m.lane(name) })
			lanes[i].Name = name
		})
	}
	wg.Wait()
}

func (m *Monitor) lane(name tasks.Lane) (Lane, error) {
	q, err := m.inspector.GetQueueInfo(name.Queue(m.d.App))
	if err != nil {
		return Lane{}, err
	}
	return Lane{
		Waiting:  q.Pending,
		Oldest:   q.Latency,
		Retry:    q.Retry,
		Archived: q.Archived,
		Paused:   q.Paused,
	}, nil
}

// laneServers counts the running asynq servers of each lane.
func (m *Monitor) laneServers(context.Context) (map[tasks.Lane]int, error) {
	servers, err := m.inspector.Servers()
	if err != nil {
		return nil, err
	}
	n := make(map[tasks.Lane]int)
	for _, s := range servers {
		for _, lane := range tasks.Lanes() {
			if _, ok := s.Queues[lane.Queue(m.d.App)]; ok && s.Status == "active" {
				n[lane]++
			}
		}
	}
	return n, nil
}

func (m *Monitor) gatherInvalidations(ctx context.Context) Invalidations {
	st, err := ask(ctx, m.cfg.HealthTimeout, m.d.Log.Status)
	i := Invalidations{Pending: st.Pending, Oldest: st.OldestPending, Loss: st.Loss, Err: err}
	i.Failover, i.FailoverErr = ask(ctx, m.cfg.HealthTimeout, m.d.Log.Failover)
	i.Lag, i.LagErr = ask(ctx, m.cfg.HealthTimeout, m.d.Log.Lag)
	return i
}

// gatherReleases reads the ledger once for all that is asked of it, and counts the active
// release's entries when the last count is old.
func (m *Monitor) gatherReleases(ctx context.Context, s *Sample) {
	previous, err := ask(ctx, m.cfg.HealthTimeout, m.previousFacts)
	if err == nil {
		s.Previous = previous
	}
	records, err := ask(ctx, m.cfg.HealthTimeout, m.d.Ledger.List)
	if err != nil {
		s.Active.Err, s.Snapshots.Err, s.Drills.Err, s.Rollback.Err = err, err, err, err
		return
	}
	s.Snapshots = newestSnapshot(records)
	s.Drills = newestDrill(records)
	s.Rollback.First = len(records) < 2
	if m.d.Rollback != nil && !s.Rollback.First {
		s.Rollback.Known = true
		s.Rollback.Detail, s.Rollback.Err = ask(ctx, m.cfg.HealthTimeout, m.d.Rollback)
	}
	s.Active = activeOf(records)
	if s.Active.Release != "" && m.d.Count != nil {
		m.count(ctx, s)
	}
}

// count fills in the active release's entries: the earlier count while that is young and of the same
// release, a new one otherwise.
func (m *Monitor) count(ctx context.Context, s *Sample) {
	a := &s.Active
	if p := s.Previous; p != nil && p.Release == a.Release && s.At.Sub(p.CountedAt) < m.cfg.HealthCountEvery {
		a.Entries, a.CountedAt = p.Entries, p.CountedAt
		return
	}
	a.Entries, a.CountErr = ask(ctx, m.cfg.HealthCountTimeout, func(ctx context.Context) (int64, error) {
		return m.d.Count(ctx, a.Release)
	})
	if a.CountErr == nil {
		a.CountedAt = s.At
	}
}

// activeOf finds the active release and what its certificate promises.
func activeOf(records []release.Record) Active {
	i := slices.IndexFunc(records, func(r release.Record) bool { return r.State == release.Active })
	if i < 0 {
		return Active{}
	}
	a := Active{Release: records[i].ID}
	var cert certificate
	a.Certified, a.Err = records[i].Doc(release.DocCertificate, &cert)
	a.Expected = cert.Entries
	return a
}

// certificate is the part of a release's certificate that the checks need.
type certificate struct {
	Entries int64 `json:"entries"`
}

// newestSnapshot finds the newest verified snapshot that still exists, and the archived releases
// that have none.
func newestSnapshot(records []release.Record) Snapshots {
	var s Snapshots
	var errs []error
	for _, r := range records {
		if r.State == release.Expired {
			continue
		}
		var d snapshot.Descriptor
		ok, err := r.Doc(release.DocSnapshot, &d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		verified := ok && !d.VerifiedAt.IsZero() && d.DeletedAt.IsZero()
		if verified && d.VerifiedAt.After(s.VerifiedAt) {
			s.Release, s.VerifiedAt = r.ID, d.VerifiedAt
		}
		if !verified && r.State == release.Archived {
			s.Missing = append(s.Missing, r.ID)
		}
	}
	s.Err = errors.Join(errs...)
	return s
}

// facts keeps of a sample what the next one is compared with.
func (s Sample) facts() Facts {
	f := Facts{Evicted: make(map[string]int64), Release: s.Active.Release, Entries: s.Active.Entries, CountedAt: s.Active.CountedAt}
	for _, server := range slices.Concat(s.Queue.Servers, s.Cache.Servers) {
		if n, ok := server.number("evicted_keys"); ok {
			f.Evicted[cmp.Or(server.Info["run_id"], "?")] = n
		}
	}
	return f
}
