package tasks

import "fmt"

// Pace is how much of the cache Redis's time one process's work on whole namespaces may take.
// Payloads name one where the worker's own (STOKER_PACE) is not meant; "" means that one.
type Pace string

// The paces.
const (
	PaceGentle Pace = "gentle" // about a tenth
	PaceNormal Pace = "normal" // about a third
	PaceFull   Pace = "full"   // all that is left over between visitors' commands
)

// Paces lists the paces, gentlest first.
func Paces() []Pace { return []Pace{PaceGentle, PaceNormal, PaceFull} }

// Validate reports a pace that does not exist.
func (p Pace) Validate() error {
	for _, known := range Paces() {
		if p == known {
			return nil
		}
	}
	return fmt.Errorf("%w: unknown pace %q: use one of %v", ErrInvalid, string(p), Paces())
}

// validateOptional reports a pace that was named and does not exist.
func (p Pace) validateOptional() error {
	if p == "" {
		return nil
	}
	return p.Validate()
}

// PaceOf returns the pace that a task is to work at, "" for the worker's own. A rollback that names
// none is at full: until it ends, visitors are served what was to be taken back.
func PaceOf(p Payload) Pace {
	switch p := p.(type) {
	case Rollback:
		if p.Pace == "" {
			return PaceFull
		}
		return p.Pace
	case WarmRun:
		return p.Pace
	case WarmBatch:
		return p.Pace
	case Snapshot:
		return p.Pace
	case Drill:
		return p.Pace
	case Expire:
		return p.Pace
	}
	return ""
}
