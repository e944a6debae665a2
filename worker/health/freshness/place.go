package freshness

import (
	"slices"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// place is where entries are looked at.
type place struct {
	release string
	state   release.State
	archive *snapshot.Descriptor // nil for a live namespace
}

// archiveEvery is how often an archive is read for a sample. All of it must be read for that, maybe
// over a network, and it does not change: only edits that nobody announced make it worse.
const archiveEvery = 6 * time.Hour

// placesOf returns every live namespace and, when no release is on standby, the archive of the one
// that was active last: the next best to go back to.
func placesOf(records []release.Record) []place {
	var places []place
	var target *place
	var newest release.Record
	standby := false
	for _, r := range records {
		if r.State.Live() {
			places = append(places, place{release: r.ID, state: r.State})
			standby = standby || r.State == release.Standby
			continue
		}
		var d snapshot.Descriptor
		if ok, err := r.Doc(release.DocSnapshot, &d); r.State != release.Archived || !ok || err != nil || d.VerifiedAt.IsZero() || !d.DeletedAt.IsZero() {
			continue
		}
		if target == nil || newer(r, newest) {
			target, newest = &place{release: r.ID, state: r.State, archive: &d}, r
		}
	}
	if !standby && target != nil {
		places = append(places, *target)
	}
	return places
}

func newer(a, b release.Record) bool {
	if !a.ActivatedAt.Equal(b.ActivatedAt) {
		return a.ActivatedAt.After(b.ActivatedAt)
	}
	return a.CreatedAt.After(b.CreatedAt)
}

// archiveName names the place's archive, "" for a live namespace.
func (p place) archiveName() string {
	if p.archive == nil {
		return ""
	}
	return p.archive.Name
}

// archiveMark is the mark that the place's archive was taken at.
func (p place) archiveMark() tasks.Mark {
	return tasks.Mark{Number: p.archive.Mark, Epoch: p.archive.Epoch}
}

// room is how many entries may be sampled: none when only suspects are to be looked at, or when
// the archive was sampled lately.
func (l *looking) room(p tasks.Freshness, history []Report) int {
	if p.Confirm {
		return 0
	}
	if l.archive != nil {
		for _, r := range history {
			lately := l.at.Sub(r.At) < archiveEvery
			if lately && slices.ContainsFunc(r.Places, func(n Result) bool { return n.Archive == l.archive.Name && n.Sampled > 0 }) {
				return 0
			}
		}
	}
	return l.cfg.FreshnessSample
}
