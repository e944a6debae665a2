package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

func (c *cli) snapshotCommand() *cobra.Command {
	var wait bool
	var p pace
	cmd := &cobra.Command{
		Use:     "snapshot ID",
		Short:   "Write a release's namespace to a verified archive; list, verify and inspect archives",
		Example: "  stoker snapshot r41 --wait\n  stoker snapshot list\n  stoker snapshot verify r41\n  stoker snapshot inspect r41 --prefix post:",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(o port) error {
				task, err := ask(cmd.Context(), o, snapshotOp, paced{a[0], p.Pace})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, o, task, wait, func(w io.Writer, d snapshot.Descriptor) {
					fmt.Fprintf(w, "%s: %d entries in %s (%s), verified, as of number %d\n", d.Release, d.Entries, d.Name, size(d.Size), d.Mark)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is verified")
	paceFlag(cmd, &p, workersPace)
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List the archives", Example: "  stoker snapshot list",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error { return c.listSnapshots(cmd.Context(), p) })
		},
	}, &cobra.Command{
		Use: "verify ID", Short: "Read every block of a release's archive and check every byte", Example: "  stoker snapshot verify r41",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(p port) error { return c.verifySnapshot(cmd.Context(), p, a[0]) })
		},
	}, c.inspectCommand())
	return cmd
}

var snapshotOp = operation[paced, queued]{
	id: "snapshot", says: "Write a release's namespace to a verified archive",
	method: "POST", path: "/v1/releases/{id}/snapshot", scope: web.Operate,
	do: func(ctx context.Context, r *rooms, in paced, by tasks.By) (queued, error) {
		if err := r.inRedis(ctx, in.ID); err != nil {
			return queued{}, err
		}
		if err := r.needStore(ctx); err != nil {
			return queued{}, err
		}
		return r.enqueue(ctx, tasks.Snapshot{Release: in.ID, Pace: in.Pace, By: by})
	},
}

// inRedis refuses a release whose namespace is not in Redis.
func (r *rooms) inRedis(ctx context.Context, id string) error {
	rec, err := r.ledger.Get(ctx, id)
	if err != nil || rec.State.Live() {
		return err
	}
	return fmt.Errorf("release %q: %w: it is %s; `stoker rollback --to %s` brings an archived release back", id, tasks.ErrRefused, rec.State, id)
}

// needStore refuses what needs an archive where no place for archives is configured.
func (r *rooms) needStore(ctx context.Context) error {
	if r.set.Snapshot.SnapshotURL != "" {
		return nil
	}
	_, err := r.store.List(ctx) // of the store that refuses everything: its error names the way out
	return err
}

// archive is what `stoker snapshot list` shows of one.
type archive struct {
	snapshot.Descriptor
	Fresh bool `json:"fresh"` // the log reaches back to it, so it may be restored
}

// archives returns the archives that the ledger knows, newest release first.
func (r *rooms) archives(ctx context.Context) ([]archive, error) {
	records, err := r.ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	all := []archive{}
	for _, rec := range records {
		var d snapshot.Descriptor
		ok, err := rec.Doc(release.DocSnapshot, &d)
		if err != nil {
			return nil, err
		}
		if !ok || !d.DeletedAt.IsZero() {
			continue
		}
		err = r.log.Fresh(ctx, tasks.Mark{Number: d.Mark, Epoch: d.Epoch})
		if err != nil && !errors.Is(err, tasks.ErrNotFresh) {
			return nil, err
		}
		all = append(all, archive{d, err == nil})
	}
	return all, nil
}

var archivesOp = operation[none, []archive]{
	id: "snapshots", says: "The archives that the ledger knows, newest release first",
	method: "GET", path: "/v1/snapshots", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) ([]archive, error) { return r.archives(ctx) },
}

func (c *cli) listSnapshots(ctx context.Context, p port) error {
	all, err := ask(ctx, p, archivesOp, none{})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		if len(all) == 0 {
			fmt.Fprintln(w, "no archives yet: `stoker snapshot ID` writes one, and so does `stoker expire`")
			return
		}
		var rows [][]string
		for _, a := range all {
			rows = append(rows, []string{a.Release, strconv.FormatInt(a.Entries, 10), size(a.Size), ago(a.VerifiedAt), yesNo(a.Fresh), a.Name})
		}
		table(w, []string{"RELEASE", "ENTRIES", "SIZE", "VERIFIED", "FRESH", "ARCHIVE"}, rows)
	})
}

func (c *cli) verifySnapshot(ctx context.Context, p port, id string) error {
	v, err := ask(ctx, p, verifyOp, the{id})
	if err != nil {
		return err
	}
	return c.show(v.Summary, func(w io.Writer) {
		fmt.Fprintf(w, "%s is whole: %d entries, %s\n", v.Name, v.Entries, size(v.Size))
	})
}

// verified is an archive that was found whole.
type verified struct {
	Name string `json:"name"`
	snapshot.Summary
}

var verifyOp = operation[the, verified]{
	id: "verifySnapshot", says: "Read every block of a release's archive and check every byte",
	method: "POST", path: "/v1/releases/{id}/snapshot/verify", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in the, _ tasks.By) (v verified, err error) {
		rec, err := r.ledger.Get(ctx, in.ID)
		if err != nil {
			return v, err
		}
		d, err := r.archiveOf(rec)
		if err != nil {
			return v, err
		}
		archive, err := r.store.Open(ctx, d.Name)
		if err != nil {
			return v, err
		}
		defer archive.Close()
		if v.Summary, err = snapshot.Verify(ctx, archive); err != nil {
			return v, fmt.Errorf("verify %s: %w", d.Name, err)
		}
		v.Name = d.Name
		return v, d.Matches(v.Summary)
	},
}
