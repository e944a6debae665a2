package tasks

import "fmt"

// A Format is something that outlives the process that wrote it, and that a process of another
// release of stoker may read. Its versions count from 1. Whoever reads one reads every version up to its
// own, and refuses a newer one, untouched, with [ErrNewer]; whoever writes one writes the lowest version that
// can say it, so that as much as possible stays readable for processes from before an upgrade, and after one
// was taken back.
//
// A new field, a new value or a new meaning raises the version, but where the format's rule says that readers
// leave alone what they do not know. deploy/formats.md lists every key and file with its version or its rule;
// tests hold that list, and the fields of each version, against the code.
type Format struct {
	name string
	last int
}

// The formats that have versions. That of archives is package snapshot's.
var (
	// Payloads are the bodies of tasks. Each begins with {"v":<version>. An unknown field is an error.
	Payloads = NewFormat("payload", 1)
	// Records are what the log keeps of calls until they are applied. Each begins with {"v":<version>, by
	// which a worker leaves those alone that it cannot read.
	Records = NewFormat("record of invalidations", 1)
	// Logs are the invalidation log itself: its two sets and how a mark is held against them. The version is
	// a field of [Keys.LogMeta], and 1 where it is missing. It also stands in check.lua and since.lua, which hold
	// everything for invalidated in a log of another version.
	Logs = NewFormat("invalidation log", 1)
	// Ledgers are the records of releases. The version is a field of each, and 1 where it is missing. Unknown
	// fields, documents and fields of documents are left alone.
	Ledgers = NewFormat("release record", 1)
	// Cursors are how far tasks have come. Each begins with {"v":<version>; without one it is of version 1.
	Cursors = NewFormat("cursor", 1)
	// Runs are the records of warm runs. The version is a field of each, and 1 where it is missing.
	Runs = NewFormat("warm run", 1)
)

// next makes a build that is one version ahead in every format, for the tests of upgrades: set by the linker,
// -ldflags "-X github.com/alphanode/stoker/tasks.next=1".
var next string

// NewFormat returns a format whose versions are 1 to last. The name is for people, in the singular.
func NewFormat(name string, last int) Format {
	if next != "" {
		last++
	}
	return Format{name, last}
}

// Last returns the newest version that this process reads.
func (f Format) Last() int { return f.last }

// For returns the version to write something in that can be said from version first on.
func (f Format) For(first int) int {
	if next != "" {
		return f.last
	}
	return first
}

// Check refuses a version that this process does not read: a newer one with [ErrNewer], one that never was
// with [ErrInvalid].
func (f Format) Check(v int) error {
	switch {
	case v < 1:
		return fmt.Errorf("%w: %s of version %d: versions count from 1", ErrInvalid, f.name, v)
	case v > f.last:
		return fmt.Errorf("%w: %s of version %d, and this stoker reads up to version %d: upgrade this worker", ErrNewer, f.name, v, f.last)
	}
	return nil
}
