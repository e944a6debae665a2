package release

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Rule says how many earlier releases are kept, and how.
type Rule struct {
	Standby  int           // warm in Redis, besides the active one
	Archived int           // as snapshots
	MinAge   time.Duration // nothing is archived or expired sooner after its last move
}

// Validate reports a rule that would keep a negative number of releases.
func (r Rule) Validate() error {
	if r.Standby < 0 || r.Archived < 0 || r.MinAge < 0 {
		return fmt.Errorf("%w: retention of %d standby, %d archived, minimum age %v: use 0 or more (STOKER_RETAIN_STANDBY, STOKER_RETAIN_ARCHIVED, STOKER_RETAIN_MIN_AGE)", tasks.ErrInvalid, r.Standby, r.Archived, r.MinAge)
	}
	return nil
}

// Plan returns which standby releases to archive and which archived ones to expire now: those
// beyond the rule's numbers, the most recently active kept first. Pinned releases never leave
// and take nobody's place; releases in other states are not the rule's concern.
func (r Rule) Plan(records []Record, now time.Time) (archive, expire []Record) {
	beyond := func(s State, keep int) (leave []Record) {
		var held []Record
		for _, rec := range records {
			if rec.State == s && !rec.Pinned {
				held = append(held, rec)
			}
		}
		slices.SortStableFunc(held, func(a, b Record) int {
			return cmp.Or(b.ActivatedAt.Compare(a.ActivatedAt), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		for _, rec := range held[min(keep, len(held)):] {
			if now.Sub(rec.ChangedAt) >= r.MinAge {
				leave = append(leave, rec)
			}
		}
		return leave
	}
	return beyond(Standby, r.Standby), beyond(Archived, r.Archived)
}
