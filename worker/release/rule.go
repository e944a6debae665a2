package release

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
)

// Rule says how many earlier releases are kept, and how.
type Rule struct {
	Standby  int           // warm in Redis, besides the active one
	Archived int           // as snapshots
	MinAge   time.Duration // nothing is archived or expired sooner after its last move
	Memory   int64         // bytes that the releases on standby may take together; 0 means any
}

// Validate reports a rule that would keep a negative number of anything.
func (r Rule) Validate() error {
	if r.Standby < 0 || r.Archived < 0 || r.MinAge < 0 || r.Memory < 0 {
		return fmt.Errorf("%w: retention of %d standby, %d archived, minimum age %v, memory %d: use 0 or more (STOKER_RETAIN_STANDBY, STOKER_RETAIN_ARCHIVED, STOKER_RETAIN_MIN_AGE, STOKER_RETAIN_MEMORY)",
			tasks.ErrInvalid, r.Standby, r.Archived, r.MinAge, r.Memory)
	}
	return nil
}

// Leaver is a release that the rule gives up.
type Leaver struct {
	Record
	To  State
	Why string
}

// Plan returns which releases the rule gives up now: first those on standby that are to be archived,
// then archived ones that are to expire. Beyond its numbers it keeps the most recently active. Of
// those on standby that stay, it then gives up the oldest until what is left fits its memory,
// by the measured sizes in bytes; the newest stays whatever it takes, since it is what a rollback
// flips to. (A rule of no standby keeps none at all.) Pinned releases never leave, take nobody's
// place and count for no memory; one that moved less than the minimum age ago stays, and counts.
// Releases in other states are not the rule's concern.
func (r Rule) Plan(records []Record, sizes map[string]int64, now time.Time) []Leaver {
	var leavers []Leaver
	stay, leave := r.split(records, Standby, r.Standby, now)
	for _, rec := range leave {
		leavers = append(leavers, Leaver{rec, Archived, fmt.Sprintf("more than %d on standby", r.Standby)})
	}
	leavers = append(leavers, r.overweight(stay, sizes, now)...)
	_, leave = r.split(records, Archived, r.Archived, now)
	for _, rec := range leave {
		leavers = append(leavers, Leaver{rec, Expired, fmt.Sprintf("more than %d archived", r.Archived)})
	}
	return leavers
}

// Weighs returns the releases whose sizes decide what [Rule.Plan] says, none when no size does.
func (r Rule) Weighs(records []Record, now time.Time) []string {
	stay, _ := r.split(records, Standby, r.Standby, now)
	if r.Memory == 0 || len(stay) < 2 {
		return nil
	}
	ids := make([]string, len(stay))
	for i, rec := range stay {
		ids[i] = rec.ID
	}
	return ids
}

// split divides the releases of a state that are not pinned into those that stay, the newest first,
// and those beyond a number that leave.
func (r Rule) split(records []Record, s State, keep int, now time.Time) (stay, leave []Record) {
	var held []Record
	for _, rec := range records {
		if rec.State == s && !rec.Pinned {
			held = append(held, rec)
		}
	}
	slices.SortStableFunc(held, func(a, b Record) int {
		return cmp.Or(b.ActivatedAt.Compare(a.ActivatedAt), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	for i, rec := range held {
		if i < keep || r.young(rec, now) {
			stay = append(stay, rec)
		} else {
			leave = append(leave, rec)
		}
	}
	return stay, leave
}

func (r Rule) young(rec Record, now time.Time) bool { return now.Sub(rec.ChangedAt) < r.MinAge }

// overweight returns the oldest of the releases, given newest first, without which the rest fits the
// rule's memory.
func (r Rule) overweight(stay []Record, sizes map[string]int64, now time.Time) (leave []Leaver) {
	if r.Memory == 0 {
		return nil
	}
	var together int64
	for _, rec := range stay {
		together += sizes[rec.ID]
	}
	for i := len(stay) - 1; i > 0 && together > r.Memory; i-- {
		if r.young(stay[i], now) {
			continue
		}
		leave = append(leave, Leaver{stay[i], Archived, fmt.Sprintf("those on standby take %s together, more than %s", bytesOf(together), bytesOf(r.Memory))})
		together -= sizes[stay[i].ID]
	}
	return leave
}

func bytesOf(n int64) string { return humanize.IBytes(uint64(n)) }
