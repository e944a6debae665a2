package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Archiving is an archive on its way into a store. What was written up to a checkpoint outlives the
// process that wrote it: [Resume] goes on from there. It belongs to one goroutine.
type Archiving struct {
	*Writer
	draft Draft
	name  string
}

// Checkpoint is what [Resume] needs to go on with an archive. It holds no secrets, and grows with the
// archive, by some 80 bytes for each mebibyte of entries.
type Checkpoint struct {
	Name   string          `json:"name"`
	Header Header          `json:"header"`
	Fields bool            `json:"fields,omitempty"` // of the header
	Writer writerState     `json:"writer"`
	Draft  json.RawMessage `json:"draft"`
}

// Begin begins an archive in a store. Nothing is to be seen of it before Commit.
func Begin(ctx context.Context, s Store, name string, h Header) (*Archiving, error) {
	draft, err := s.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	w, err := NewWriter(draft, h)
	if err != nil {
		return nil, errors.Join(err, draft.Abort())
	}
	return &Archiving{w, draft, name}, nil
}

// Resume goes on with an archive behind a checkpoint. When that is not possible any more, the error
// wraps tasks.ErrNotFound.
func Resume(ctx context.Context, s Store, c Checkpoint) (*Archiving, error) {
	draft, err := s.Resume(ctx, c.Name, c.Draft)
	if err != nil {
		return nil, err
	}
	h := c.Header
	h.Fields = c.Fields
	w, err := resumeWriter(draft, h, c.Writer)
	if err != nil {
		return nil, errors.Join(err, draft.Abort())
	}
	return &Archiving{w, draft, c.Name}, nil
}

// Entries returns how many entries were written so far.
func (a *Archiving) Entries() int64 { return a.footer.Entries }

// Due reports whether another checkpoint is worth its cost.
func (a *Archiving) Due() bool { return a.draft.Due() }

// Checkpoint returns what [Resume] needs to go on behind the entry written last; ok is false where that
// is not possible.
func (a *Archiving) Checkpoint() (c Checkpoint, ok bool, err error) {
	state, err := a.state()
	if err != nil {
		return Checkpoint{}, false, err
	}
	at, err := a.draft.Checkpoint()
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("checkpoint of archive %q: %w", a.name, err)
	}
	return Checkpoint{a.name, a.header, a.header.Fields, state, at}, at != nil, nil
}

// Commit ends the archive and publishes it.
func (a *Archiving) Commit() (Summary, error) {
	s, err := a.Close()
	if err != nil {
		return Summary{}, err
	}
	return s, a.draft.Commit()
}

// Abort drops the archive. After Commit or Leave it does nothing.
func (a *Archiving) Abort() error { return a.draft.Abort() }

// Leave ends the writing and keeps what was written up to the last checkpoint, for [Resume].
func (a *Archiving) Leave() error { return a.draft.Leave() }
