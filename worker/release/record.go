package release

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
)

// Doc names a document that a room writes about a release and the ledger keeps.
type Doc string

// The documents.
const (
	DocBaseline    Doc = "baseline"    // how the site behaved under it (package health)
	DocCertificate Doc = "certificate" // the verdict of its last warm run (package warm)
	DocVerdict     Doc = "verdict"     // after the switch against before (package health)
	DocWatch       Doc = "watch"       // the looks since the last switch to it (package health)
	DocSnapshot    Doc = "snapshot"    // its newest verified archive (package snapshot)
	DocPurge       Doc = "purge"       // what the last expiry deleted: a [Purge]
	DocRestore     Doc = "restore"     // the last rollback to it (package restore)
	DocDrill       Doc = "drill"       // the last drill with its archive (package restore)
)

const docPrefix = "doc:"

// Purge is the document about the deleting of a release's keys (DocPurge). One without FinishedAt
// stands for keys that may still be there.
type Purge struct {
	Task       string    `json:"task,omitempty"`
	Deleted    int64     `json:"deleted"` // keys, by the try that finished
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// Servers names the servers of the cache Redis that were proved to have no key of it any more. While they
	// are the same, nothing that was deleted has come back.
	Servers string `json:"servers,omitempty"`
}

// Purged returns what is known of the deleting of the release's keys, the zero value where nothing is.
func (r Record) Purged() (p Purge, err error) {
	_, err = r.Doc(DocPurge, &p)
	return p, err
}

// Notes is what a colleague needs to know of a release, in its author's words.
type Notes struct {
	Owner        string   `json:"owner,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	Expected     string   `json:"expected,omitempty"` // the result hoped for
	RollbackNote string   `json:"rollback_note,omitempty"`
	Revision     string   `json:"revision,omitempty"` // of the site's repository
	Files        []string `json:"files,omitempty"`    // touched since the release before
	Commands     []string `json:"commands,omitempty"` // used
}

// MaxNoteLines is how many files, and how many commands, notes may name.
const MaxNoteLines = 1000

// Validate holds the limits on notes: plain text, a bounded number of lines.
func (n Notes) Validate() error {
	if len(n.Files) > MaxNoteLines || len(n.Commands) > MaxNoteLines {
		return fmt.Errorf("%w: notes of %d files and %d commands: at most %d each", tasks.ErrInvalid, len(n.Files), len(n.Commands), MaxNoteLines)
	}
	lines := append([]string{n.Owner, n.Reason, n.Expected, n.RollbackNote, n.Revision}, n.Files...)
	for _, line := range append(lines, n.Commands...) {
		if len(line) > tasks.MaxReasonLen {
			return fmt.Errorf("%w: note %.40q… of %d bytes: at most %d", tasks.ErrInvalid, line, len(line), tasks.MaxReasonLen)
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("%w: note %+q holds control characters: use plain text", tasks.ErrInvalid, line)
		}
	}
	return nil
}

// Record is what the ledger holds of one release.
type Record struct {
	ID          string    `json:"id"`
	State       State     `json:"state"`
	CreatedAt   time.Time `json:"created_at"`
	ChangedAt   time.Time `json:"changed_at"`            // of the last move
	ActivatedAt time.Time `json:"activated_at,omitzero"` // of the last flip to it
	Template    string    `json:"template"`              // the key template its namespace was made with
	Pinned      bool      `json:"pinned,omitempty"`      // never expired
	Run         string    `json:"run,omitempty"`         // the warm run under way
	Notes       `json:"notes"`
	Docs        map[Doc]json.RawMessage `json:"docs,omitempty"`
}

// Doc decodes a document into v; false when the release has none of that name.
func (r Record) Doc(d Doc, v any) (bool, error) {
	raw, ok := r.Docs[d]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("read %s of release %q: %w", d, r.ID, err)
	}
	return true, nil
}

// Move is one line of a release's history.
type Move struct {
	At   time.Time `json:"at"`
	From State     `json:"from,omitempty"`
	To   State     `json:"to"`
	Note string    `json:"note,omitempty"`
	tasks.By
}

// parseRecord reads a release's hash. Fields that it does not know are left alone.
func parseRecord(id string, fields map[string]string) (Record, error) {
	r := Record{ID: id, Docs: map[Doc]json.RawMessage{}}
	if version, ok := fields["version"]; ok { // else it was written before records had versions
		if err := newer(id, version); err != nil {
			return Record{}, err
		}
	}
	for name, value := range fields {
		var err error
		switch name {
		case "state":
			r.State = State(value)
		case "created_at":
			r.CreatedAt, err = parseTime(value)
		case "changed_at":
			r.ChangedAt, err = parseTime(value)
		case "activated_at":
			r.ActivatedAt, err = parseTime(value)
		case "template":
			r.Template = value
		case "pinned":
			r.Pinned = value == "1"
		case "run":
			r.Run = value
		case "notes":
			err = json.Unmarshal([]byte(value), &r.Notes)
		default:
			if d, ok := strings.CutPrefix(name, docPrefix); ok {
				r.Docs[Doc(d)] = json.RawMessage(value)
			}
		}
		if err != nil {
			return Record{}, fmt.Errorf("read release %q: field %s: %w", id, name, err)
		}
	}
	return r, r.State.Validate()
}

// parseTime reads Unix microseconds.
func parseTime(s string) (time.Time, error) {
	us, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(us).UTC(), nil
}

// parseMove reads one line of a history: {"at": Unix microseconds, …}.
func parseMove(line string) (Move, error) {
	var raw struct {
		Move
		At int64 `json:"at"`
	}
	if err := json.Unmarshal([]byte(line), &raw); err != nil {
		return Move{}, fmt.Errorf("read history %q: %w", line, err)
	}
	raw.Move.At = time.UnixMicro(raw.At).UTC()
	return raw.Move, nil
}
