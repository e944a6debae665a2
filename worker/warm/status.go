package warm

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// RunStatus says how far a run has come.
type RunStatus struct {
	Run         string         `json:"run"`
	Release     string         `json:"release"`
	Status      string         `json:"status"` // queued, running, pass, fail, inconclusive, refused or abandoned
	Error       string         `json:"error,omitempty"`
	CreatedAt   time.Time      `json:"created_at,omitzero"`
	StartedAt   time.Time      `json:"started_at,omitzero"`
	FinishedAt  time.Time      `json:"finished_at,omitzero"`
	Done        int64          `json:"done"`         // entries, of all sources
	Total       int64          `json:"total"`        // entries; 0 until every source knows its own
	OpenBatches int64          `json:"open_batches"` // not yet finished
	Sources     []SourceStatus `json:"sources,omitempty"`
	Certificate *Certificate   `json:"certificate,omitempty"`
}

// SourceStatus is one source's part of a RunStatus.
type SourceStatus struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Total int64  `json:"total"` // 0 means unknown
	Figures
	// Failures are the failed of the batches that are done, by kind, the commonest first, each with one example.
	Failures []Failures `json:"failures,omitempty"`
}

// Failed says how many entries have failed so far, by kind: "12 redirect, 3 empty"; "" for none.
func (s RunStatus) Failed() string {
	var all failures
	for _, one := range s.Sources {
		for _, f := range one.Failures {
			all.add(f)
		}
	}
	return byKind(all.sorted())
}

// Over reports whether the run has ended.
func (s RunStatus) Over() bool { return s.Status != statusQueued && s.Status != statusRunning }

// Status reads how far a run has come; it reads a few fields, whatever the run's size.
func Status(ctx context.Context, queue redis.UniversalClient, keys tasks.Keys, run string) (RunStatus, error) {
	rec := runRecord{queue, keys, run}
	st, err := rec.load(ctx, "")
	if err != nil {
		return RunStatus{}, err
	}
	s := RunStatus{Run: run, Release: st.release, Status: st.status}
	names := []string{"created_at", "started_at", "finished_at", "error", "certificate"}
	if st.cut != nil {
		for _, c := range st.cut.Sources {
			sum := "sum:" + c.Name + ":"
			names = append(names, sum+"planned", sum+"stored", sum+"invalidated", sum+"failed", "part:"+c.Name)
			for _, kind := range source.Kinds() {
				names = append(names, sum+"failed:"+string(kind), sum+"example:"+string(kind))
			}
		}
	}
	f, err := rec.fields(ctx, names)
	if err != nil {
		return s, err
	}
	s.CreatedAt, s.StartedAt, s.FinishedAt = f.time("created_at"), f.time("started_at"), f.time("finished_at")
	s.Error = f["error"]
	if raw := f["certificate"]; raw != "" {
		s.Certificate = new(Certificate)
		if err := json.Unmarshal([]byte(raw), s.Certificate); err != nil {
			return s, fmt.Errorf("read run %q: certificate: %w", run, err)
		}
	}
	if st.cut != nil {
		s.count(*st.cut, f)
	}
	s.OpenBatches, err = queue.SCard(ctx, keys.RunOpen(run)).Result()
	return s, err
}

// count fills in the sources' figures and their sums.
func (s *RunStatus) count(c cutting, f fields) {
	known := true
	for _, cut := range c.Sources {
		one := SourceStatus{Name: cut.Name, Kind: cut.Kind, Total: cut.Total, Figures: f.figures(cut.Name), Failures: f.failures(cut.Name)}
		one.Figures.add(Figures{Planned: cut.Kept, Stored: cut.Kept})
		if one.Total > 0 {
			one.Total += cut.Kept
		}
		if s.Over() {
			one.Total = one.Planned
		}
		known = known && (one.Total > 0 || cut.Listed || s.Over())
		s.Done += one.Planned
		s.Total += max(one.Total, one.Planned)
		s.Sources = append(s.Sources, one)
	}
	if !known {
		s.Total = 0
	}
}

// fields are some of a record's fields; "" for those it lacks.
type fields map[string]string

func (r runRecord) fields(ctx context.Context, names []string) (fields, error) {
	values, err := r.queue.HMGet(ctx, r.key(), names...).Result()
	if err != nil {
		return nil, fmt.Errorf("read run %q: %w", r.run, err)
	}
	f := fields{}
	for i, v := range values {
		f[names[i]], _ = v.(string)
	}
	return f, nil
}

func (f fields) number(name string) int64 {
	n, _ := strconv.ParseInt(f[name], 10, 64)
	return n
}

func (f fields) time(name string) time.Time {
	if f[name] == "" {
		return time.Time{}
	}
	return time.UnixMicro(f.number(name)).UTC()
}

// failures returns a source's, of its finished batches.
func (f fields) failures(name string) []Failures {
	var all failures
	sum := "sum:" + name + ":"
	for _, kind := range source.Kinds() {
		if n := f.number(sum + "failed:" + string(kind)); n > 0 {
			all.add(Failures{kind, n, []string{f[sum+"example:"+string(kind)]}})
		}
	}
	return all.sorted()
}

// figures returns a source's: of its finished batches, and of the one that reads the rest so far.
func (f fields) figures(source string) Figures {
	sum := "sum:" + source + ":"
	done := Figures{f.number(sum + "planned"), f.number(sum + "stored"), f.number(sum + "invalidated"), f.number(sum + "failed")}
	var part Figures
	if json.Unmarshal([]byte(f["part:"+source]), &part) == nil {
		done.add(part)
	}
	return done
}
