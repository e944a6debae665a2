package tasks

import (
	"fmt"
	"strings"
)

// Kind says what a [Target] names.
type Kind string

// The kinds of target.
const (
	KindKey    Kind = "key"
	KindTag    Kind = "tag"
	KindPrefix Kind = "prefix" // of logical keys
)

// Target is what an invalidation names.
type Target struct {
	Kind Kind  `json:"kind"`
	Name Bytes `json:"name"`
}

// Validate refuses what names nothing (an empty prefix would name everything) and what
// reaches into stoker's own part of a namespace.
func (t Target) Validate() error {
	switch t.Kind {
	case KindKey, KindTag, KindPrefix:
	default:
		return fmt.Errorf("%w: target kind %q: use key, tag or prefix", ErrInvalid, t.Kind)
	}
	switch {
	case t.Name == "":
		return fmt.Errorf("%w: empty %s: name what to invalidate (a whole release leaves by `stoker expire --release ID`)", ErrInvalid, t.Kind)
	case len(t.Name) > MaxTargetLen:
		return fmt.Errorf("%w: %s of %d bytes: at most %d", ErrInvalid, t.Kind, len(t.Name), MaxTargetLen)
	case t.Kind != KindTag && strings.HasPrefix(string(t.Name), Reserved):
		return fmt.Errorf("%w: %s %s: logical keys that begin with %s are reserved", ErrInvalid, t.Kind, t.Name, Reserved)
	}
	return nil
}

// Member is the target as the log's member: one letter for the kind, a colon, the name.
func (t Target) Member() string { return string(t.Kind[:1]) + ":" + string(t.Name) }

// ParseMember is the inverse of [Target.Member].
func ParseMember(m string) (Target, error) {
	if len(m) > 2 && m[1] == ':' {
		for _, k := range []Kind{KindKey, KindTag, KindPrefix} {
			if m[0] == k[0] {
				return Target{k, Bytes(m[2:])}, nil
			}
		}
	}
	return Target{}, fmt.Errorf("%w: log member %+q names no key, tag or prefix", ErrInvalid, m)
}
