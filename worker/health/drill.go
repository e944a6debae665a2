package health

import (
	"errors"
	"fmt"
	"time"

	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// Drills is what is known of the drills with snapshots.
type Drills struct {
	Err      error
	Since    time.Time // verification of the oldest snapshot that still exists; zero without any
	Release  string    // of the last good drill
	LastGood time.Time // zero before the first
	Seconds  float64   // that a rollback would have taken then
	Failed   string    // why the newest drill is not good, "" when it is or there was none
}

// drill is the part of a release's drill that the checks need.
type drill struct {
	Good     bool      `json:"good"`
	Why      string    `json:"why"`
	At       time.Time `json:"at"`
	LastGood time.Time `json:"last_good"`
	Seconds  float64   `json:"rollback_seconds"`
}

// newestDrill finds the last good drill with any release's archive, and whether a later one was
// not good.
func newestDrill(records []release.Record) Drills {
	var s Drills
	var errs []error
	var newest time.Time
	for _, r := range records {
		var d drill
		var a snapshot.Descriptor
		drilled, err := r.Doc(release.DocDrill, &d)
		kept, archiveErr := r.Doc(release.DocSnapshot, &a)
		errs = append(errs, err, archiveErr)
		if kept && r.State != release.Expired && a.DeletedAt.IsZero() && !a.VerifiedAt.IsZero() && (s.Since.IsZero() || a.VerifiedAt.Before(s.Since)) {
			s.Since = a.VerifiedAt
		}
		if !drilled {
			continue
		}
		if d.LastGood.After(s.LastGood) {
			s.Release, s.LastGood, s.Seconds = r.ID, d.LastGood, d.Seconds
		}
		if d.At.After(newest) {
			newest, s.Failed = d.At, ""
			if !d.Good {
				s.Failed = fmt.Sprintf("the drill with %s's archive is not good: %s", r.ID, d.Why)
			}
		}
	}
	s.Err = errors.Join(errs...)
	return s
}

// judgeDrill: a backup counts only once it has been restored. Before the first drill, the oldest
// snapshot's age counts.
func judgeDrill(s Drills, now time.Time, cfg Config) Check {
	c := Check{Name: "drill", Status: OK}
	switch {
	case s.Err != nil:
		return unknown(c, "the state of the drills", s.Err)
	case s.Since.IsZero():
		c.Detail = "no snapshot yet, so nothing to drill with"
		return c
	}
	since := s.LastGood
	if since.IsZero() {
		since = s.Since
		c.Detail = fmt.Sprintf("no good drill yet; the first snapshot is %v old", now.Sub(since).Round(time.Second))
	} else {
		c.Detail = fmt.Sprintf("the last good drill, with %s's archive, was %v ago; a rollback would have taken %.1f s", s.Release, now.Sub(since).Round(time.Second), s.Seconds)
	}
	c.Value = now.Sub(since).Seconds()
	if s.Failed != "" {
		c.Status, c.Detail = Warn, s.Failed+"; "+c.Detail
	}
	if now.Sub(since) > cfg.DrillMaxAge {
		c.Status = Fail
	}
	if c.Status != OK {
		c.Remedy = fmt.Sprintf("expected a good drill at most %v ago: run one (stoker drill --wait), and have the schedule run snapshot:drill", cfg.DrillMaxAge)
	}
	return c
}
