package freshness

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// looking is one look at one place.
type looking struct {
	*Monitor
	place
	at    time.Time
	known map[string]Suspect // of this place, by key
	row   Result
}

// held is an entry as its place holds it.
type held struct {
	text    string // its value; "" of an archive's suspect, whose print is enough
	print   string // "" until it is needed
	typ     string
	expires int64
	tags    []Tag // known of an archive's entries only
}

// look looks at the suspects that are due and, as far as there is room, at entries at random.
func (l *looking) look(ctx context.Context, room int) error {
	l.row = Result{Release: l.release, State: l.state, Archive: l.archiveName()}
	mark, err := l.d.Log.Mark(ctx)
	if err != nil {
		return err
	}
	due := l.due()
	entries, sampled, err := l.read(ctx, due, max(0, room-len(due)))
	if err != nil {
		return err
	}
	l.row.Sampled = len(sampled)
	keys := slices.Sorted(maps.Keys(entries))
	answers, err := l.d.Origin.Ask(ctx, l.release, slices.DeleteFunc(keys, func(k string) bool { return entries[k].typ != tasks.EntryString }))
	if err != nil {
		return err
	}
	return l.judge(ctx, mark, due, sampled, entries, answers)
}

// due returns the suspects to look at now, by key: as many as one look may read, the longest due first.
func (l *looking) due() map[string]Suspect {
	var list []Suspect
	for _, s := range l.known {
		if !s.due(l.gaps).After(l.at) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Suspect) int {
		return cmp.Or(a.due(l.gaps).Compare(b.due(l.gaps)), strings.Compare(string(a.Key), string(b.Key)))
	})
	due := map[string]Suspect{}
	for _, s := range list[:min(l.cfg.FreshnessSample, len(list))] {
		due[string(s.Key)] = s
	}
	return due
}

// read reads the entries that are due and a random n besides. What has gone is left out.
func (l *looking) read(ctx context.Context, due map[string]Suspect, n int) (entries map[string]held, sampled []string, err error) {
	if l.archive != nil {
		return l.readArchive(ctx, due, n)
	}
	if n > 0 {
		if sampled, err = l.d.Cache.Sample(ctx, l.release, n); err != nil {
			return nil, nil, err
		}
	}
	keys := slices.AppendSeq(slices.Clone(sampled), maps.Keys(due))
	slices.Sort(keys)
	found, err := l.d.Cache.Get(ctx, l.release, slices.Compact(keys))
	if err != nil {
		return nil, nil, err
	}
	entries = make(map[string]held, len(found))
	for _, e := range found {
		entries[e.Key] = held{text: e.Value, typ: e.Type, expires: e.ExpiresAt}
	}
	return entries, sampled, nil
}

// judge compares what the place holds with what the origin says, and notes the suspects.
func (l *looking) judge(ctx context.Context, mark tasks.Mark, due map[string]Suspect, sampled []string, entries map[string]held, answers map[string]Answer) error {
	seen := map[string]sight{}
	for key, h := range entries {
		a, asked := answers[key]
		s := sight{mark: mark, unknown: a.Failed}
		if asked && !a.Failed && !a.Gone {
			s.differs, s.print = h.differs(a)
		}
		seen[key] = s
	}
	if err := l.explain(ctx, mark, due, entries, answers, seen); err != nil {
		return err
	}
	for _, key := range sampled {
		l.count(key, entries, answers, seen)
	}
	return l.note(ctx, due, entries, seen)
}

// explain finds the tags of what differs, and whether an invalidation has overtaken it.
func (l *looking) explain(ctx context.Context, mark tasks.Mark, due map[string]Suspect, entries map[string]held, answers map[string]Answer, seen map[string]sight) error {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(seen)), func(k string) bool { return !seen[k].differs })
	tags, err := l.tagsOf(ctx, keys, entries)
	if err != nil {
		return err
	}
	since := map[tasks.Mark][]tasks.Tagged{}
	for _, key := range keys {
		s := seen[key]
		s.tags = tags[key]
		seen[key] = s
		t := tasks.Tagged{Key: key, Tags: slices.Clone(answers[key].Tags)}
		for _, tag := range s.tags {
			t.Tags = append(t.Tags, string(tag.Name))
		}
		from := mark
		if old, ok := due[key]; ok {
			from = old.Mark
		}
		if l.archive != nil {
			from = l.archiveMark()
		}
		since[from] = append(since[from], t)
	}
	for from, list := range since {
		overtaken, err := l.d.Log.Check(ctx, from, list)
		if err != nil {
			return err
		}
		for i, t := range list {
			s := seen[t.Key]
			s.overtaken = overtaken[i]
			seen[t.Key] = s
		}
	}
	return nil
}

// tagsOf returns the tags whose indexes list entries of the place.
func (l *looking) tagsOf(ctx context.Context, keys []string, entries map[string]held) (map[string][]Tag, error) {
	tags := map[string][]Tag{}
	if l.archive != nil {
		for _, key := range keys {
			tags[key] = entries[key].tags
		}
		return tags, nil
	}
	found, err := l.d.Cache.TagsOf(ctx, l.release, keys, l.at)
	for key, list := range found {
		for _, t := range list {
			tags[key] = append(tags[key], Tag{tasks.Bytes(t.Tag), t.Entries})
		}
	}
	return tags, err
}

// count counts a sampled entry in the place's row.
func (l *looking) count(key string, entries map[string]held, answers map[string]Answer, seen map[string]sight) {
	h, there := entries[key]
	a, asked := answers[key]
	s := seen[key]
	old, suspected := l.known[key]
	switch {
	case !there || s.overtaken:
		l.row.Overtaken++
	case h.typ != tasks.EntryString || !asked || a.Failed || a.Gone:
		l.row.NotComparable++
		if a.Gone {
			l.row.Gone++
		}
	case suspected && s.differs && !old.confirmed(): // it was counted when it was found
	default:
		l.row.Compared++
		if suspected && s.differs {
			l.row.Confirmed++ // a stale entry met again
		}
	}
}

// note takes what was seen into the suspects, and stores those that changed.
func (l *looking) note(ctx context.Context, due map[string]Suspect, entries map[string]held, seen map[string]sight) error {
	if l.known == nil {
		l.known = map[string]Suspect{}
	}
	var changed []Suspect
	var gone []string
	for key, old := range due {
		s, stays := old.after(seen[key], l.at, l.gaps) // the zero sight of one that is gone
		if !stays {
			delete(l.known, key)
			gone = append(gone, field(l.release, key))
			continue
		}
		if s.confirmed() && !old.confirmed() {
			l.row.Confirmed++
			l.d.Logger.WarnContext(ctx, "stale entry", "release", l.release, "key", s.Key.String(), "since", s.Since)
		}
		l.known[key] = s
		changed = append(changed, s)
	}
	for key, s := range seen {
		if _, already := l.known[key]; already || !s.differs || s.overtaken {
			continue
		}
		fresh := Suspect{Release: l.release, Archive: l.archiveName(), Key: tasks.Bytes(key), Expires: entries[key].expires}.anew(s, l.at)
		l.known[key] = fresh
		changed = append(changed, fresh)
	}
	return l.store(ctx, changed, gone)
}

// next returns when the next suspect that is not confirmed is due, zero without any.
func (l *looking) next() time.Time {
	var next time.Time
	for _, s := range l.known {
		if !s.confirmed() {
			next = earliest(next, s.due(l.gaps))
		}
	}
	return next
}
