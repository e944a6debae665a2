package snapshot

import (
	"context"
	"fmt"
	"io"
)

// probeName is the object that Probe writes; no archive has its name.
const probeName = "stoker-probe"

// Probe writes an object to a store, reads it back and deletes it: whether archives can be kept
// there, found out before one must be.
func Probe(ctx context.Context, s Store) (err error) {
	draft, err := s.Create(ctx, probeName)
	if err != nil {
		return err
	}
	defer func() { _ = draft.Abort() }() // nothing to drop after Commit
	if _, err := io.WriteString(draft, probeName); err != nil {
		return fmt.Errorf("probe %s: %w", s, err)
	}
	if err := draft.Commit(); err != nil {
		return fmt.Errorf("probe %s: %w", s, err)
	}
	read, err := s.Open(ctx, probeName)
	if err != nil {
		return fmt.Errorf("probe %s: %w", s, err)
	}
	text, err := io.ReadAll(read)
	read.Close()
	switch {
	case err != nil:
		return fmt.Errorf("probe %s: %w", s, err)
	case string(text) != probeName:
		return fmt.Errorf("probe %s: wrote %q, read %q", s, probeName, text)
	}
	return s.Delete(ctx, probeName)
}
