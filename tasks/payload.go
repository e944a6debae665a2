package tasks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what one call may carry.
const (
	MaxTargets   = 10_000   // targets of one invalidation
	MaxTargetLen = 64 << 10 // bytes of one key, tag or prefix
	MaxReasonLen = 1_000    // bytes of a reason, an actor or a note's line
)

// A Payload is the body of a task: JSON, versioned ([Payloads]), free of secrets, validated on both ends.
type Payload interface {
	TaskType() string
	Validate() error
}

// By says who asked for something and why. It is recorded with every move.
type By struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
}

// Validate implements the limits on what a person may write.
func (b By) Validate() error {
	for name, s := range map[string]string{"actor": b.Actor, "reason": b.Reason} {
		switch {
		case len(s) > MaxReasonLen:
			return fmt.Errorf("%w: %s of %d bytes: at most %d", ErrInvalid, name, len(s), MaxReasonLen)
		case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
			return fmt.Errorf("%w: %s %+q holds control characters: use plain text", ErrInvalid, name, s)
		}
	}
	if b.Actor == "" {
		return fmt.Errorf("%w: no actor: say who asks", ErrInvalid)
	}
	return nil
}

// maxNumbers is how many records one task may name.
const maxNumbers = 1000

// Invalidate is the task that applies some records of the log. The log holds the targets; Sample
// shows a few of them to whoever watches the queue.
type Invalidate struct {
	V       int      `json:"v"`
	Numbers []int64  `json:"numbers"`
	Targets int      `json:"targets"`
	Sample  []Target `json:"sample,omitempty"`
}

// TaskType implements [Payload].
func (Invalidate) TaskType() string { return TypeInvalidate }

// Validate implements [Payload].
func (p Invalidate) Validate() error {
	if len(p.Numbers) == 0 || len(p.Numbers) > maxNumbers {
		return fmt.Errorf("%w: %d numbers of invalidations: use 1 to %d", ErrInvalid, len(p.Numbers), maxNumbers)
	}
	for _, n := range p.Numbers {
		if n <= 0 {
			return fmt.Errorf("%w: invalidation number %d", ErrInvalid, n)
		}
	}
	return nil
}

// InvalidateBulk is the task that applies one record which needs long: one with a prefix, or with
// a tag of very many entries.
type InvalidateBulk struct {
	V       int      `json:"v"`
	Number  int64    `json:"number"`
	Targets int      `json:"targets"`
	Sample  []Target `json:"sample,omitempty"`
}

// TaskType implements [Payload].
func (InvalidateBulk) TaskType() string { return TypeInvalidateBulk }

// Validate implements [Payload].
func (p InvalidateBulk) Validate() error {
	if p.Number <= 0 {
		return fmt.Errorf("%w: invalidation number %d", ErrInvalid, p.Number)
	}
	return nil
}

// Rollback brings back an earlier release.
type Rollback struct {
	V       int    `json:"v"`
	To      string `json:"to,omitempty"`      // "" means the release that was active before this one
	Salvage bool   `json:"salvage,omitempty"` // of a damaged archive, bring back what is whole
	From    string `json:"from,omitempty"`    // only while this release is active: what a watch asks for
	Pace    Pace   `json:"pace,omitempty"`    // "" means full: visitors wait for it
	By
}

// TaskType implements [Payload].
func (Rollback) TaskType() string { return TypeRollback }

// Validate implements [Payload].
func (p Rollback) Validate() error {
	if p.From != "" {
		if err := ValidateRelease(p.From); err != nil {
			return err
		}
	}
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return validateOptional(p.To, p.By)
}

// Activate makes a ready release the active one.
type Activate struct {
	V       int    `json:"v"`
	Release string `json:"release"`
	Force   bool   `json:"force,omitempty"` // without a passed certificate; recorded
	// AutoRollback lets the watch that follows roll back by itself.
	AutoRollback bool `json:"auto_rollback,omitempty"`
	By
}

// TaskType implements [Payload].
func (Activate) TaskType() string { return TypeActivate }

// Validate implements [Payload].
func (p Activate) Validate() error { return validateRelease(p.Release, p.By) }

// WarmRun starts (or resumes) one warm run. The run's record holds the plan.
type WarmRun struct {
	V       int      `json:"v"`
	Run     string   `json:"run"`
	Release string   `json:"release"`
	Sources []string `json:"sources,omitempty"` // empty means all of the plan's
	Sample  float64  `json:"sample,omitempty"`  // share of the entries, (0, 1]; 0 means all
	Pace    Pace     `json:"pace,omitempty"`    // of its batches too; "" means the worker's own
	By
}

// TaskType implements [Payload].
func (WarmRun) TaskType() string { return TypeWarmRun }

// Validate implements [Payload].
func (p WarmRun) Validate() error {
	if p.Sample < 0 || p.Sample > 1 {
		return fmt.Errorf("%w: sample %v: use a share above 0%% and up to 100%%", ErrInvalid, p.Sample)
	}
	if p.Run == "" {
		return fmt.Errorf("%w: warm without a run", ErrInvalid)
	}
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return validateRelease(p.Release, p.By)
}

// WarmBatch warms one batch of a run: the part [From, To) of a source's list, or the whole
// source where both are 0.
type WarmBatch struct {
	V       int    `json:"v"`
	Run     string `json:"run"`
	Release string `json:"release"`
	Source  string `json:"source"`
	From    int    `json:"from"`
	To      int    `json:"to"`
	Pace    Pace   `json:"pace,omitempty"` // "" means the worker's own
}

// TaskType implements [Payload].
func (WarmBatch) TaskType() string { return TypeWarmBatch }

// Validate implements [Payload].
func (p WarmBatch) Validate() error {
	if p.Run == "" || p.Source == "" || p.From < 0 || p.To < p.From {
		return fmt.Errorf("%w: batch [%d, %d) of source %q in run %q", ErrInvalid, p.From, p.To, p.Source, p.Run)
	}
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return ValidateRelease(p.Release)
}

// ID names the batch within its run.
func (p WarmBatch) ID() string { return fmt.Sprintf("%s[%d:%d]", p.Source, p.From, p.To) }

// Refresh reloads the dirty keys of a release.
type Refresh struct {
	V       int    `json:"v"`
	Release string `json:"release"`
}

// TaskType implements [Payload].
func (Refresh) TaskType() string { return TypeRefresh }

// Validate implements [Payload].
func (p Refresh) Validate() error { return ValidateRelease(p.Release) }

// Snapshot writes a release's namespace to an archive and verifies it.
type Snapshot struct {
	V       int    `json:"v"`
	Release string `json:"release"`
	Pace    Pace   `json:"pace,omitempty"` // "" means the worker's own
	By
}

// TaskType implements [Payload].
func (Snapshot) TaskType() string { return TypeSnapshot }

// Validate implements [Payload].
func (p Snapshot) Validate() error {
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return validateRelease(p.Release, p.By)
}

// Drill restores an archive into a scratch namespace, compares, and drops it again.
type Drill struct {
	V       int    `json:"v"`
	Release string `json:"release,omitempty"` // whose archive; "" means the newest there is
	Pace    Pace   `json:"pace,omitempty"`    // "" means the worker's own
	By
}

// TaskType implements [Payload].
func (Drill) TaskType() string { return TypeDrill }

// Validate implements [Payload].
func (p Drill) Validate() error {
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return validateOptional(p.Release, p.By)
}

// Expire removes namespaces: the one named, or those that the retention rule gives up.
type Expire struct {
	V          int    `json:"v"`
	Release    string `json:"release,omitempty"`     // "" means by the rule
	NoSnapshot bool   `json:"no_snapshot,omitempty"` // for a named release only: it cannot come back
	Pace       Pace   `json:"pace,omitempty"`        // "" means the worker's own
	By
}

// TaskType implements [Payload].
func (Expire) TaskType() string { return TypeExpire }

// Validate implements [Payload].
func (p Expire) Validate() error {
	if p.NoSnapshot && p.Release == "" {
		return fmt.Errorf("%w: expiring without a snapshot needs the release's name: add --release ID", ErrInvalid)
	}
	if err := p.Pace.validateOptional(); err != nil {
		return err
	}
	return validateOptional(p.Release, p.By)
}

// Prune drops dead members of tag indexes, old records and cursors.
type Prune struct {
	V int `json:"v"`
	By
}

// TaskType implements [Payload].
func (Prune) TaskType() string { return TypePrune }

// Validate implements [Payload].
func (p Prune) Validate() error { return p.By.Validate() }

// Health runs the periodic checks.
type Health struct {
	V int `json:"v"`
	By
}

// TaskType implements [Payload].
func (Health) TaskType() string { return TypeHealth }

// Validate implements [Payload].
func (p Health) Validate() error { return p.By.Validate() }

// Freshness compares a sample of the entries with their origin.
type Freshness struct {
	V       int  `json:"v"`
	Confirm bool `json:"confirm,omitempty"` // only look again at the entries under suspicion
	By
}

// TaskType implements [Payload].
func (Freshness) TaskType() string { return TypeFreshness }

// Validate implements [Payload].
func (p Freshness) Validate() error { return p.By.Validate() }

// Baseline measures how the site behaves under a release, for later comparison.
type Baseline struct {
	V       int    `json:"v"`
	Release string `json:"release"`
	By
}

// TaskType implements [Payload].
func (Baseline) TaskType() string { return TypeBaseline }

// Validate implements [Payload].
func (p Baseline) Validate() error { return validateRelease(p.Release, p.By) }

// Watch takes one look at a release after its switch: it measures, compares with the baseline
// before it, and asks for the next look.
type Watch struct {
	V       int    `json:"v"`
	Release string `json:"release"`
	Before  string `json:"before,omitempty"` // the release to compare with
	Look    int    `json:"look,omitempty"`   // 0 is the first
	// Activated is the switch that is watched, in Unix microseconds; 0 means the last one.
	Activated int64 `json:"activated,omitempty"`
	// AutoRollback lets the watch roll back by itself, whatever STOKER_WATCH_ROLLBACK says.
	AutoRollback bool `json:"auto_rollback,omitempty"`
	By
}

// TaskType implements [Payload].
func (Watch) TaskType() string { return TypeWatch }

// Validate implements [Payload].
func (p Watch) Validate() error {
	if p.Look < 0 || p.Look > 0 && p.Activated <= 0 {
		return fmt.Errorf("%w: look %d at a switch at %d", ErrInvalid, p.Look, p.Activated)
	}
	return validateRelease(p.Release, p.By)
}

// The events that people are told of.
const (
	EventWorse           = "watch.worse"        // the site is worse after a switch
	EventRolledBack      = "rollback.done"      // the watch rolled back by itself
	EventNotRolledBack   = "rollback.refused"   // it wanted to, and may or could not
	EventCertificate     = "certificate.failed" // a warm run's certificate did not pass
	EventHealthFailed    = "health.failed"
	EventHealthRecovered = "health.recovered"
	EventTest            = "test" // somebody tries whether messages arrive
)

// Notify is the task that tells people of an event. What receives it is the worker's own setting:
// the payload names no address and holds no secret.
type Notify struct {
	V       int       `json:"v"`
	Event   string    `json:"event"`
	At      time.Time `json:"at"`
	App     string    `json:"app"`
	Release string    `json:"release,omitempty"`
	Title   string    `json:"title"`           // one line
	Lines   []string  `json:"lines,omitempty"` // what there is to know, and what to do
}

// TaskType implements [Payload].
func (Notify) TaskType() string { return TypeNotify }

// Validate implements [Payload].
func (p Notify) Validate() error {
	const maxLines = 50
	if p.Event == "" || p.Title == "" || p.At.IsZero() {
		return fmt.Errorf("%w: a message needs an event, a title and a time", ErrInvalid)
	}
	if len(p.Lines) > maxLines {
		return fmt.Errorf("%w: a message of %d lines: at most %d", ErrInvalid, len(p.Lines), maxLines)
	}
	for _, s := range append([]string{p.Event, p.Title}, p.Lines...) {
		if len(s) > 4*MaxReasonLen || !utf8.ValidString(s) {
			return fmt.Errorf("%w: a message's line of %d bytes: at most %d, in UTF-8", ErrInvalid, len(s), 4*MaxReasonLen)
		}
	}
	return validateOptional(p.Release, By{Actor: "stoker"})
}

func validateRelease(id string, by By) error {
	if err := ValidateRelease(id); err != nil {
		return err
	}
	return by.Validate()
}

func validateOptional(id string, by By) error {
	if id == "" {
		return by.Validate()
	}
	return validateRelease(id, by)
}

// Encode returns a payload's JSON, in the lowest version that can say it.
func Encode(p Payload) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.TaskType(), err)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.TaskType(), err)
	}
	// Every payload begins with its version, which no caller has to set.
	return bytes.Replace(raw, []byte(`{"v":0`), fmt.Appendf(nil, `{"v":%d`, Payloads.For(1)), 1), nil
}

// Decode reads a task's payload into p, which points to the struct of the task's type. Unknown
// fields are an error at a version that is known: they are a typing error or another program's payload. One
// of a newer version is [ErrNewer].
func Decode(raw []byte, p Payload) error {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fmt.Errorf("decode %s: %w: %v", p.TaskType(), ErrInvalid, err)
	}
	if err := Payloads.Check(head.V); err != nil {
		return fmt.Errorf("decode %s: %w", p.TaskType(), err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p); err != nil {
		return fmt.Errorf("decode %s: %w: %v", p.TaskType(), ErrInvalid, err)
	}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("decode %s: %w", p.TaskType(), err)
	}
	return nil
}

// String shows a target to a person.
func (t Target) String() string { return string(t.Kind) + " " + t.Name.String() }
