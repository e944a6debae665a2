package restore

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/worker/release"
)

// Ready reports whether a rollback without a named release would succeed right now, to which
// release (target) and, when it would not, why.
func (r *Restorer) Ready(ctx context.Context) (ok bool, why, target string) {
	records, err := r.Ledger.List(ctx)
	if err != nil {
		return false, err.Error(), ""
	}
	rec, found := newestStandby(records)
	if !found {
		return false, noStandby(records), ""
	}
	if why := r.hindrance(ctx, rec); why != "" {
		return false, why, rec.ID
	}
	return true, "", rec.ID
}

func (r *Restorer) hindrance(ctx context.Context, rec release.Record) string {
	if err := r.mayReturn(rec); err != nil {
		return err.Error()
	}
	marks, err := r.Log.OpenMarks(ctx, rec.ID)
	if err != nil {
		return err.Error()
	}
	if len(marks) > 0 {
		return fmt.Sprintf("%d writers of %q have not finished", len(marks), rec.ID)
	}
	return ""
}
