package invalidation

import (
	"context"

	"github.com/alphanode/stoker/tasks"
)

// refreshes returns the targets of a record's calls that ask for a refresh.
func (r *record) refreshes() []tasks.Target {
	var all []tasks.Target
	for _, call := range r.calls {
		if call.Refresh {
			all = append(all, call.Targets...)
		}
	}
	return all
}

// noteRefresh tells the refresher what is about to be removed.
func (b *batch) noteRefresh(ctx context.Context) {
	if b.a.Refresh == nil {
		return
	}
	for _, r := range b.records {
		targets := r.refreshes()
		if len(targets) == 0 {
			continue
		}
		b.refresh = true
		for _, release := range b.live {
			b.a.Refresh.Note(ctx, release, r.number, targets)
		}
	}
}

// askRefresh has what was removed reloaded. What it fails to ask for the refresher's sweep does.
func (b *batch) askRefresh(ctx context.Context) {
	if !b.refresh {
		return
	}
	for _, release := range b.live {
		_ = b.a.Refresh.Ask(ctx, release)
	}
}
