package freshness

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// A suspect is looked at again a minute after it was seen first, and four minutes after that.
const (
	firstGap  = time.Minute
	secondGap = 4 * time.Minute
)

// Suspect is an entry that differed from the origin.
type Suspect struct {
	Release string      `json:"release"`
	Archive string      `json:"archive,omitempty"` // where it was seen; "" in the namespace
	Key     tasks.Bytes `json:"key"`
	Print   string      `json:"print"`                // of the value that differed
	Expires int64       `json:"expires_ms,omitempty"` // Unix milliseconds; of an archive's entry
	Mark    tasks.Mark  `json:"mark"`                 // taken before the entry was read last
	Tags    []Tag       `json:"tags,omitempty"`       // whose indexes list it
	Since   time.Time   `json:"since"`                // when it was seen first
	At      time.Time   `json:"at"`                   // when it was looked at last
	Looks   int         `json:"looks"`                // how often it still differed
	Stale   time.Time   `json:"stale,omitzero"`       // when it was confirmed
}

// Tag is a tag with how many entries its index lists.
type Tag struct {
	Name    tasks.Bytes `json:"name"`
	Entries int64       `json:"entries"`
}

// confirmed reports whether the suspect counts as stale.
func (s Suspect) confirmed() bool { return !s.Stale.IsZero() }

// due returns when to look at the suspect again. One that is confirmed is looked at every time.
func (s Suspect) due(gaps []time.Duration) time.Time {
	if s.confirmed() {
		return s.At
	}
	return s.At.Add(gaps[s.Looks])
}

// sight is what looking at an entry showed.
type sight struct {
	unknown   bool // the origin could not be read
	differs   bool // false: gone, equal, or not comparable (any more)
	overtaken bool // by an invalidation since the entry was looked at last
	print     string
	tags      []Tag
	mark      tasks.Mark // taken before this look
}

// after returns the suspect as it is after a look at it, false when it is none any longer.
func (s Suspect) after(seen sight, now time.Time, gaps []time.Duration) (Suspect, bool) {
	switch {
	case seen.unknown:
		return s, true
	case !seen.differs, s.Archive != "" && seen.overtaken:
		return s, false
	case seen.overtaken || seen.print != s.Print:
		return s.anew(seen, now), true
	}
	s.Mark, s.At = seen.mark, now
	if len(seen.tags) > 0 {
		s.Tags = seen.tags
	}
	if !s.confirmed() {
		if s.Looks++; s.Looks == len(gaps) {
			s.Stale = now
		}
	}
	return s, true
}

// anew returns a suspect that was seen for the first time.
func (s Suspect) anew(seen sight, now time.Time) Suspect {
	s.Print, s.Mark, s.Tags = seen.print, seen.mark, seen.tags
	s.Since, s.At, s.Looks, s.Stale = now, now, 0, time.Time{}
	return s
}

// field is the suspect's name in the hash; no release ID holds a NUL.
func field(release, key string) string { return release + "\x00" + key }

// suspects reads all suspects, by release and key.
func (m *Monitor) suspects(ctx context.Context) (map[string]map[string]Suspect, error) {
	raw, err := m.d.Queue.HGetAll(ctx, m.d.Keys.Suspects()).Result()
	if err != nil {
		return nil, fmt.Errorf("read suspects: %w", err)
	}
	all := map[string]map[string]Suspect{}
	for name, text := range raw {
		var s Suspect
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return nil, fmt.Errorf("read suspect %+q: %w", name, err)
		}
		if all[s.Release] == nil {
			all[s.Release] = map[string]Suspect{}
		}
		all[s.Release][string(s.Key)] = s
	}
	return all, nil
}

// forgetElsewhere drops the suspects of places that are not looked at any more: expired, archived
// (what its archive holds is looked at anew), or restored from it.
func (m *Monitor) forgetElsewhere(ctx context.Context, known map[string]map[string]Suspect, places []place) error {
	where := map[string]string{}
	for _, p := range places {
		where[p.release] = p.archiveName()
	}
	var gone []string
	for id, suspects := range known {
		archive, looked := where[id]
		for key, s := range suspects {
			if !looked || s.Archive != archive {
				gone = append(gone, field(id, key))
				delete(suspects, key)
			}
		}
	}
	return m.store(ctx, nil, gone)
}

// store writes suspects and removes others.
func (m *Monitor) store(ctx context.Context, changed []Suspect, gone []string) error {
	if len(changed)+len(gone) == 0 {
		return nil
	}
	_, err := m.d.Queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, s := range changed {
			text, err := json.Marshal(s)
			if err != nil {
				return err
			}
			p.HSet(ctx, m.d.Keys.Suspects(), field(s.Release, string(s.Key)), text)
		}
		if len(gone) > 0 {
			p.HDel(ctx, m.d.Keys.Suspects(), gone...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store suspects: %w", err)
	}
	return nil
}

// smallest returns the tag with the fewest entries among those that list all of some suspects; false
// when there is none. Its invalidation is the least that removes them all.
func smallest(suspects []Suspect) (Tag, bool) {
	lists := map[tasks.Bytes]int{}
	var best Tag
	found := false
	for _, s := range suspects {
		for _, t := range s.Tags {
			if lists[t.Name]++; lists[t.Name] < len(suspects) {
				continue
			}
			if !found || t.Entries < best.Entries || t.Entries == best.Entries && strings.Compare(string(t.Name), string(best.Name)) < 0 {
				best, found = t, true
			}
		}
	}
	return best, found
}
