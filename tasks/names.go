package tasks

import (
	"fmt"
	"regexp"
	"strings"
)

// Lane is one asynq server's queue: work that may wait never delays work that may not.
type Lane string

// The lanes, most urgent first.
const (
	LaneInvalidate Lane = "invalidate" // applies recorded invalidations
	LaneBulk       Lane = "bulk"       // applies those that need long: prefixes, and tags of very many entries
	LaneRelease    Lane = "release"    // switches and rolls back
	LaneWarm       Lane = "warm"       // fills new namespaces
	LaneRefresh    Lane = "refresh"    // reloads what was invalidated
	LaneUpkeep     Lane = "upkeep"     // snapshots, expiry, pruning
	LaneHealth     Lane = "health"     // checks and measurements
	LaneNotify     Lane = "notify"     // tells people, over the network
)

// Lanes lists every lane, most urgent first.
func Lanes() []Lane {
	return []Lane{LaneInvalidate, LaneBulk, LaneRelease, LaneWarm, LaneRefresh, LaneUpkeep, LaneHealth, LaneNotify}
}

// ParseLane returns the lane with that name, or an error that lists the names there are.
func ParseLane(s string) (Lane, error) {
	for _, l := range Lanes() {
		if string(l) == s {
			return l, nil
		}
	}
	return "", fmt.Errorf("%w: unknown lane %q: use one of %v", ErrInvalid, s, Lanes())
}

// Queue returns the name of the lane's asynq queue. asynq has no key prefix of its own, so the
// name carries the app: several apps can share one queue Redis and one asynq UI.
func (l Lane) Queue(app string) string { return app + "." + string(l) }

// Task types. The lane of each is given by [LaneOf].
const (
	TypeInvalidate     = "cache:invalidate"
	TypeInvalidateBulk = "cache:invalidate-bulk"
	TypeRollback       = "release:rollback"
	TypeActivate       = "release:activate"
	TypeWarmRun        = "warm:run"
	TypeWarmBatch      = "warm:batch"
	TypeRefresh        = "cache:refresh"
	TypeSnapshot       = "namespace:snapshot"
	TypeExpire         = "namespace:expire"
	TypePrune          = "namespace:prune"
	TypeDrill          = "snapshot:drill"
	TypeHealth         = "health:check"
	TypeFreshness      = "health:freshness"
	TypeBaseline       = "release:baseline"
	TypeWatch          = "release:watch"
	TypeNotify         = "notify:send"
)

var laneOf = map[string]Lane{
	TypeInvalidate:     LaneInvalidate,
	TypeInvalidateBulk: LaneBulk,
	TypeRollback:       LaneRelease,
	TypeActivate:       LaneRelease,
	TypeWarmRun:        LaneWarm,
	TypeWarmBatch:      LaneWarm,
	TypeRefresh:        LaneRefresh,
	TypeSnapshot:       LaneUpkeep,
	TypeExpire:         LaneUpkeep,
	TypePrune:          LaneUpkeep,
	TypeDrill:          LaneUpkeep,
	TypeHealth:         LaneHealth,
	TypeFreshness:      LaneHealth,
	TypeBaseline:       LaneHealth,
	TypeWatch:          LaneHealth,
	TypeNotify:         LaneNotify,
}

// LaneOf returns the lane that serves a task type, or an error for a type stoker does not have.
func LaneOf(taskType string) (Lane, error) {
	l, ok := laneOf[taskType]
	if !ok {
		return "", fmt.Errorf("%w: unknown task type %q", ErrInvalid, taskType)
	}
	return l, nil
}

var (
	appPattern     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	releasePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// ValidateApp reports whether app can name a site: it becomes part of queue names and keys.
func ValidateApp(app string) error {
	if !appPattern.MatchString(app) {
		return fmt.Errorf("%w: app %q: use 1 to 32 of a-z, 0-9 and -, not starting with - (STOKER_APP)", ErrInvalid, app)
	}
	return nil
}

// ScratchPrefix begins the names of namespaces that a drill restores into. No release may have
// such an ID, so that no scratch namespace is ever a release's.
const ScratchPrefix = "stoker-drill."

// ValidateNewRelease reports whether id can name a release that does not exist yet.
func ValidateNewRelease(id string) error {
	if strings.HasPrefix(id, ScratchPrefix) {
		return fmt.Errorf("%w: release %q: IDs that begin with %q are kept for drills", ErrInvalid, id, ScratchPrefix)
	}
	return ValidateRelease(id)
}

// ValidateRelease reports whether id can name a release: no character of it may be one that
// a key template uses to end it, and none may be special to Redis or a shell.
func ValidateRelease(id string) error {
	if !releasePattern.MatchString(id) {
		return fmt.Errorf("%w: release %q: use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or digit", ErrInvalid, id)
	}
	return nil
}
