package warm

import (
	"context"
	"fmt"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/source"
)

// failovers is how often a batch begins anew in one try because the cache Redis has failed over.
const failovers = 5

// write walks the source and replays, all on the same servers of the cache Redis, and returns when the
// replicas have what was written. A server that was promoted or started again may lack what was written
// last, tag indexes too: then the batch begins anew.
func (w *writer) write(ctx context.Context, src source.Source, part source.Part) error {
	for range failovers {
		from, err := w.begin(ctx)
		if err != nil {
			return err
		}
		if err := w.walk(ctx, src, part, from); err != nil {
			return err
		}
		if _, err := w.r.deps.Replay.Replay(ctx, w.batch.Release, w.mark); err != nil {
			return err
		}
		servers, err := w.r.deps.Cache.Replicated(ctx)
		if err != nil || servers == w.servers {
			return err
		}
	}
	return fmt.Errorf("the cache Redis has restarted or failed over %d times meanwhile", failovers)
}

// begin returns where the walk goes on: where the last one ended, unless that was on other servers of
// the cache Redis.
func (w *writer) begin(ctx context.Context) (from string, err error) {
	var at cursor
	if _, err := w.job.Load(ctx, &at); err != nil {
		return "", err
	}
	if w.servers, err = w.r.deps.Cache.Servers(ctx); err != nil {
		return "", err
	}
	anew := at.Servers != w.servers
	if anew {
		at.Next, at.Tally = "", tally{}
		if err := w.job.Save(ctx, cursor{Servers: w.servers}); err != nil {
			return "", err
		}
	}
	w.tally = at.Tally
	w.tally.Mark, w.took = w.mark, at.Tally.Took
	if !w.carries || at.Next != "" {
		return at.Next, nil
	}
	// What is invalidated leaves the source before anything is copied, so that no copy has to be
	// taken back for what was known by now; a server that has come back older lacks no removal then.
	if _, err := w.r.deps.Replay.Sweep(ctx, 0); err != nil {
		return "", err
	}
	if at.Servers == "" || !anew {
		return "", nil
	}
	// Until it did, entries may have been copied that the mark says were removed from the source.
	_, err = w.r.deps.Replay.ReplayRest(ctx, w.batch.Release, tasks.Mark{Epoch: w.mark.Epoch})
	return "", err
}
