package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// Keeper looks after releases that are not served.
type Keeper interface {
	// MaySnapshot says why a snapshot of that release would be refused now; nil when it would not.
	MaySnapshot(ctx context.Context, id string) error
	// MayDrill says why a drill with that release's archive would be refused now; nil when it would not.
	MayDrill(ctx context.Context, id string) error
	// PlanExpiry says what would be taken out of Redis: that release, or with "" what the retention rule
	// gives up. What is refused is an error that wraps [tasks.ErrRefused].
	PlanExpiry(ctx context.Context, id string) ([]Expiry, error)
	// Pin keeps a release from being expired, or lets it go.
	Pin(ctx context.Context, id string, pinned bool, by tasks.By) error
	// SetNotes replaces a release's notes.
	SetNotes(ctx context.Context, id string, notes release.Notes, by tasks.By) error
}

// Expiry is one release that would be taken out of Redis.
type Expiry struct {
	Release  string
	From, To release.State
	Why      string
	Entries  int64 // that would leave Redis
	Bytes    int64 // of them and what belongs to them, about
	Archive  string
}

// upkeepActions are the actions on releases that are not served.
func (s *Server) upkeepActions() map[string]action {
	return map[string]action{
		"/expire":                 {s.planExpiry, s.expire},
		"/releases/{id}/snapshot": {s.planSnapshot, s.snapshot},
		"/releases/{id}/drill":    {s.planDrill, s.drill},
		"/releases/{id}/pin":      {s.planPin, s.pin},
	}
}

// named reads the release that the address names.
func (s *Server) named(ctx context.Context, r *http.Request) (release.Record, error) {
	id := r.PathValue("id")
	if err := tasks.ValidateRelease(id); err != nil {
		return release.Record{}, err
	}
	return s.deps.Ledger.Get(ctx, id)
}

// planSnapshot plans /releases/{id}/snapshot.
func (s *Server) planSnapshot(ctx context.Context, r *http.Request) (plan, error) {
	rec, err := s.named(ctx, r)
	if err != nil {
		return plan{}, err
	}
	found := newRow(rec, "")
	p := plan{Title: "Snapshot of " + rec.ID, Button: "Write a snapshot", Subject: rec.ID, Seen: string(rec.State), Back: "/releases/" + rec.ID}
	if err := s.deps.Operator.MaySnapshot(ctx, rec.ID); err != nil {
		p.Refused = redactText(err.Error())
		return p, nil
	}
	size := "Its entries are"
	if c := s.counts.of(ctx, rec.ID); c.Known {
		size = fmt.Sprintf("Its %s entries, %s, are", humanize.Comma(c.Entries), humanize.IBytes(uint64(max(c.Bytes, 0))))
	}
	p.Steps = append(p.Steps,
		size+" written to an archive in slices, at a pace that visitors do not notice.",
		"The archive is then read back and checked byte by byte; only then it counts.")
	if found.Archive() {
		p.Steps = append(p.Steps, fmt.Sprintf("It takes the place of the one of %s.", found.Snapshot.Created.UTC().Format("2006-01-02 15:04 UTC")))
	}
	p.Steps = append(p.Steps, "Nothing is removed from Redis.")
	return p, nil
}

func (s *Server) snapshot(ctx context.Context, p plan, by tasks.By) (string, error) {
	return s.enqueue(ctx, tasks.Snapshot{Release: p.Subject, By: by})
}

// planDrill plans /releases/{id}/drill.
func (s *Server) planDrill(ctx context.Context, r *http.Request) (plan, error) {
	rec, err := s.named(ctx, r)
	if err != nil {
		return plan{}, err
	}
	p := plan{Title: "Drill with " + rec.ID, Button: "Drill", Subject: rec.ID, Back: "/releases/" + rec.ID}
	found := newRow(rec, "")
	if err := s.deps.Operator.MayDrill(ctx, rec.ID); err != nil {
		p.Refused = redactText(err.Error())
		return p, nil
	}
	if found.Archive() {
		p.Seen = found.Snapshot.Created.UTC().Format(time.RFC3339)
		p.Steps = append(p.Steps, fmt.Sprintf("Its archive of %s, %s entries, is restored into a namespace of its own, which no visitor sees.",
			found.Snapshot.Created.UTC().Format("2006-01-02 15:04 UTC"), humanize.Comma(found.Snapshot.Entries)))
	}
	p.Steps = append(p.Steps,
		"Every entry is compared with the archive, and the invalidations since are applied: that tells how long a rollback to it takes.",
		"The namespace is removed again. What is served is not touched; Redis needs the memory of one more release meanwhile.")
	return p, nil
}

func (s *Server) drill(ctx context.Context, p plan, by tasks.By) (string, error) {
	return s.enqueue(ctx, tasks.Drill{Release: p.Subject, By: by})
}

// planPin plans /releases/{id}/pin: to pin one that is not, to unpin one that is.
func (s *Server) planPin(ctx context.Context, r *http.Request) (plan, error) {
	rec, err := s.named(ctx, r)
	if err != nil {
		return plan{}, err
	}
	p := plan{Subject: rec.ID, Seen: notPinned, Back: "/releases/" + rec.ID}
	if rec.Pinned {
		p.Seen, p.Title, p.Button = pinned, "Unpin "+rec.ID, "Unpin"
		p.Steps = []string{"The retention rule may archive it, and later delete its archive, as any other release."}
		return p, nil
	}
	p.Title, p.Button = "Pin "+rec.ID, "Pin"
	p.Steps = []string{"The retention rule never archives or deletes it, until somebody unpins it.", "It keeps its place in Redis, or in the store of archives, for as long."}
	return p, nil
}

const (
	pinned    = "pinned"
	notPinned = "not pinned"
)

func (s *Server) pin(ctx context.Context, p plan, by tasks.By) (string, error) {
	return p.Back, s.deps.Operator.Pin(ctx, p.Subject, p.Seen == notPinned, by)
}

// planExpiry plans /expire: of the release that ?release= names, or by the retention rule.
func (s *Server) planExpiry(ctx context.Context, r *http.Request) (plan, error) {
	id := r.URL.Query().Get("release")
	p := plan{Title: "Expire by the retention rule", Button: "Expire them", Subject: id, Back: "/releases"}
	if id != "" {
		if err := tasks.ValidateRelease(id); err != nil {
			return plan{}, err
		}
		p.Title, p.Button, p.Back = "Expire "+id, "Expire "+id, "/releases/"+id
	}
	steps, err := s.deps.Operator.PlanExpiry(ctx, id)
	switch {
	case errors.Is(err, tasks.ErrRefused):
		p.Refused = redactText(err.Error())
		return p, nil
	case err != nil:
		return plan{}, err
	case len(steps) == 0:
		p.Refused = "There is nothing to expire: every release is within the rule, pinned, or in use."
		return p, nil
	}
	var seen []string
	for _, e := range steps {
		seen = append(seen, fmt.Sprintf("%s %s %s", e.Release, e.From, e.To))
		p.Steps = append(p.Steps, e.inWords())
	}
	p.Seen = strings.Join(seen, ", ")
	p.Steps = append(p.Steps, "What is served is never touched: each step looks again before it deletes.")
	return p, nil
}

// inWords says what would happen to a release, and why.
func (e Expiry) inWords() string {
	size := fmt.Sprintf("%s entries, about %s", humanize.Comma(e.Entries), humanize.IBytes(uint64(max(e.Bytes, 0))))
	text := fmt.Sprintf("%s leaves Redis: %s.", e.Release, size)
	switch {
	case e.Archive != "":
		text = fmt.Sprintf("The archive of %s is deleted. It can never come back.", e.Release)
	case e.To == release.Archived:
		text = fmt.Sprintf("%s is written to a verified archive and leaves Redis: %s. A rollback to it then takes a restore.", e.Release, size)
	}
	return text + " Why: " + redactText(e.Why) + "."
}

func (s *Server) expire(ctx context.Context, p plan, by tasks.By) (string, error) {
	return s.enqueue(ctx, tasks.Expire{Release: p.Subject, By: by})
}

// upkeepInWords tells the result of a task of this file in words; "" of any other.
func upkeepInWords(kind string, result json.RawMessage) string {
	var done struct {
		Release           string
		Entries, Compared int64
		Good              bool
		Why               string
		Seconds           float64 `json:"rollback_seconds"`
		Archived, Expired []string
		Deleted           int64
	}
	if json.Unmarshal(result, &done) != nil {
		return ""
	}
	switch kind {
	case tasks.TypeSnapshot:
		return fmt.Sprintf("%s: %s entries are in a verified archive.", done.Release, humanize.Comma(done.Entries))
	case tasks.TypeDrill:
		if !done.Good {
			return fmt.Sprintf("%s would not come back as it was: %s.", done.Release, redactText(done.Why))
		}
		return fmt.Sprintf("%s comes back: %s entries compared, all as in the archive. A rollback to it would take about %s.",
			done.Release, humanize.Comma(done.Compared), short(time.Duration(done.Seconds*float64(time.Second))))
	case tasks.TypeExpire:
		var parts []string
		if len(done.Archived) > 0 {
			parts = append(parts, "Archived "+strings.Join(done.Archived, ", "))
		}
		if len(done.Expired) > 0 {
			parts = append(parts, "Expired "+strings.Join(done.Expired, ", "))
		}
		return strings.Join(append(parts, humanize.Comma(done.Deleted)+" keys left Redis."), ". ")
	}
	return ""
}
