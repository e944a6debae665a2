package release

import (
	"fmt"
	"slices"

	"github.com/alphanode/stoker/tasks"
)

// State is where a release stands in its life.
type State string

// The states, in the order of a release's life.
const (
	New       State = "new"       // registered; may be filled
	Warming   State = "warming"   // a warm run is under way
	Ready     State = "ready"     // warm, with a passed certificate
	Active    State = "active"    // served
	Standby   State = "standby"   // was active; still kept fresh, so a rollback is a flip
	Restoring State = "restoring" // coming back from its archive
	Archived  State = "archived"  // a verified snapshot exists, the keys are gone (or going)
	Expired   State = "expired"   // both are gone; the record stays
)

// States lists every state in the order of a release's life.
func States() []State {
	return []State{New, Warming, Ready, Active, Standby, Restoring, Archived, Expired}
}

// moves holds every move that [Ledger.Move] makes. Moves to and from active are flips.
var moves = map[State][]State{
	New:       {Warming, Standby, Expired}, // standby: adopted, its namespace exists already
	Warming:   {Ready, New},
	Ready:     {Warming, New, Expired},
	Standby:   {Archived, Expired},
	Archived:  {Restoring, Expired},
	Restoring: {Standby, Archived},
}

// flips holds the states from which a release may become active.
var flips = []State{New, Ready, Standby}

// Live reports whether a release in this state receives invalidations.
func (s State) Live() bool { return s != Archived && s != Expired && s != "" }

// Validate reports a state that stoker does not have.
func (s State) Validate() error {
	if !slices.Contains(States(), s) {
		return fmt.Errorf("%w: state %q, and this stoker has none of that name: upgrade this worker", tasks.ErrNewer, s)
	}
	return nil
}

// May reports whether a release may move from s to next other than by a flip.
func (s State) May(next State) bool { return slices.Contains(moves[s], next) }
