package tasks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Invalidation is one call: what left the origin's truth behind, who says so, and why.
type Invalidation struct {
	Targets []Target `json:"targets"`
	// Refresh has what is removed reloaded from the sources of each live release's plan.
	Refresh bool `json:"refresh,omitempty"`
	By
}

// Validate reports a call without targets, with too many, or with one that names nothing.
func (i Invalidation) Validate() error {
	switch {
	case len(i.Targets) == 0:
		return fmt.Errorf("%w: invalidate nothing: name a key, a tag or a prefix", ErrInvalid)
	case len(i.Targets) > MaxTargets:
		return fmt.Errorf("%w: %d targets in one call: at most %d; use a tag, or several calls", ErrInvalid, len(i.Targets), MaxTargets)
	}
	for _, t := range i.Targets {
		if err := t.Validate(); err != nil {
			return err
		}
	}
	return i.By.Validate()
}

// bulky reports whether a call needs a walk over a namespace.
func (i Invalidation) bulky() bool {
	for _, t := range i.Targets {
		if t.Kind == KindPrefix {
			return true
		}
	}
	return false
}

// Record is what the log keeps of a group of calls until they are applied everywhere. It takes as
// many numbers as it has calls: the record's own is that of its first call, and marks never lie
// between a record's numbers.
type Record struct {
	ID    string // unique
	Calls []Invalidation
}

// recordWire is a record as JSON. Calls of one process mostly share who asks, and a target is one
// string, so that a record of many calls stays small.
type recordWire struct {
	V     int        `json:"v"`
	ID    string     `json:"id"`
	By    []By       `json:"by"`
	Calls []callWire `json:"calls"`
}

type callWire struct {
	By      int      `json:"by"` // index in the record's By
	Targets []string `json:"targets"`
	Refresh bool     `json:"refresh,omitempty"`
}

// Encode returns the record as the log keeps it.
func (r Record) Encode() ([]byte, error) {
	w := recordWire{V: Records.For(1), ID: r.ID, Calls: make([]callWire, len(r.Calls))}
	known := map[By]int{}
	for i, c := range r.Calls {
		w.Calls[i] = callWire{indexOf(&w.By, known, c.By), encodeTargets(c.Targets), c.Refresh}
	}
	return json.Marshal(w)
}

// indexOf returns by's place in list, where it is added when it is new.
func indexOf(list *[]By, known map[By]int, by By) int {
	n, ok := known[by]
	if !ok {
		n = len(*list)
		known[by], *list = n, append(*list, by)
	}
	return n
}

// DecodeRecord reads a member of the pending records. One of a newer version is [ErrNewer].
func DecodeRecord(body string) (Record, error) {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal([]byte(body), &head); err != nil {
		return Record{}, fmt.Errorf("read record: %w: %v", ErrInvalid, err)
	}
	if err := Records.Check(head.V); err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	var w recordWire
	if err := json.Unmarshal([]byte(body), &w); err != nil {
		return Record{}, fmt.Errorf("read record: %w: %v", ErrInvalid, err)
	}
	r := Record{ID: w.ID, Calls: make([]Invalidation, len(w.Calls))}
	for i, c := range w.Calls {
		if c.By < 0 || c.By >= len(w.By) {
			return Record{}, fmt.Errorf("read record: %w: call %d is by number %d of %d", ErrInvalid, i, c.By, len(w.By))
		}
		targets, err := decodeTargets(c.Targets)
		if err != nil {
			return Record{}, fmt.Errorf("read record: call %d: %w", i, err)
		}
		r.Calls[i] = Invalidation{Targets: targets, Refresh: c.Refresh, By: w.By[c.By]}
	}
	return r, nil
}

// Targets returns the targets of all calls, each once.
func (r Record) Targets() []Target {
	if len(r.Calls) == 1 && len(r.Calls[0].Targets) == 1 {
		return r.Calls[0].Targets
	}
	seen := make(map[Target]bool, len(r.Calls))
	all := make([]Target, 0, len(r.Calls))
	for _, c := range r.Calls {
		for _, t := range c.Targets {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}

// encodeTargets writes targets as strings: the log's members where they are printable, with a
// capital for the kind and the name in base64 where they are not.
func encodeTargets(targets []Target) []string {
	all := make([]string, len(targets))
	for i, t := range targets {
		if printable(string(t.Name)) {
			all[i] = t.Member()
		} else {
			all[i] = strings.ToUpper(string(t.Kind[:1])) + ":" + base64.StdEncoding.EncodeToString([]byte(t.Name))
		}
	}
	return all
}

func decodeTargets(texts []string) ([]Target, error) {
	all := make([]Target, len(texts))
	for i, text := range texts {
		if len(text) > 2 && text[0] >= 'A' && text[0] <= 'Z' {
			raw, err := base64.StdEncoding.DecodeString(text[2:])
			if err != nil {
				return nil, fmt.Errorf("%w: target %q: %v", ErrInvalid, text, err)
			}
			text = strings.ToLower(text[:2]) + string(raw)
		}
		t, err := ParseMember(text)
		if err != nil {
			return nil, err
		}
		all[i] = t
	}
	return all, nil
}
