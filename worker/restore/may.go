package restore

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/worker/release"
)

// May says at once whether a rollback to a release ("" for the one active before) would be
// refused, so that nobody has to wait for a task to hear it. It changes nothing; the archive's
// bytes are read only by the rollback itself.
func (r *Restorer) May(ctx context.Context, to string) error {
	var rec release.Record
	var err error
	if to != "" {
		rec, err = r.Ledger.Get(ctx, to)
	} else {
		rec, err = r.lastActive(ctx)
	}
	if err != nil {
		return err
	}
	if err := r.mayReturn(rec); err != nil {
		return fmt.Errorf("roll back to %q: %w", rec.ID, err)
	}
	if rec.State != release.Archived {
		return nil
	}
	d, err := r.archive(rec)
	if err == nil {
		err = r.fresh(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("roll back to %q: %w", rec.ID, err)
	}
	return nil
}
