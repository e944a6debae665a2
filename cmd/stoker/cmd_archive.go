package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire"
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
			return c.with(cmd.Context(), func(r *rooms) error {
				if err := r.inRedis(cmd.Context(), a[0]); err != nil {
					return err
				}
				if err := r.needStore(cmd.Context()); err != nil {
					return err
				}
				id, err := r.client.Enqueue(cmd.Context(), tasks.Snapshot{Release: a[0], Pace: p.Pace, By: c.by()})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, r, tasks.TypeSnapshot, id, wait, func(w io.Writer, d snapshot.Descriptor) {
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
			return c.with(cmd.Context(), func(r *rooms) error { return c.listSnapshots(cmd, r) })
		},
	}, &cobra.Command{
		Use: "verify ID", Short: "Read every block of a release's archive and check every byte", Example: "  stoker snapshot verify r41",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error { return c.verifySnapshot(cmd, r, a[0]) })
		},
	}, c.inspectCommand())
	return cmd
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

func (c *cli) listSnapshots(cmd *cobra.Command, r *rooms) error {
	all, err := r.archives(cmd.Context())
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

func (c *cli) verifySnapshot(cmd *cobra.Command, r *rooms, id string) error {
	rec, err := r.ledger.Get(cmd.Context(), id)
	if err != nil {
		return err
	}
	d, err := r.archiveOf(rec)
	if err != nil {
		return err
	}
	archive, err := r.store.Open(cmd.Context(), d.Name)
	if err != nil {
		return err
	}
	defer archive.Close()
	s, err := snapshot.Verify(cmd.Context(), archive)
	if err != nil {
		return fmt.Errorf("verify %s: %w", d.Name, err)
	}
	if err := d.Matches(s); err != nil {
		return err
	}
	return c.show(s, func(w io.Writer) { fmt.Fprintf(w, "%s is whole: %d entries, %s\n", d.Name, s.Entries, size(s.Size)) })
}

func (c *cli) expireCommand() *cobra.Command {
	var id string
	var noSnapshot, dryRun, wait bool
	var speed pace
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Archive and remove releases by the retention rule, or one by name",
		Long: `Take releases out of Redis. Without --release the retention rule decides (STOKER_RETAIN_…):
what is beyond it on standby is written to a verified archive and removed; what is beyond it
in the archive is deleted. What is served is never touched.`,
		Example: `  stoker expire --dry-run
  stoker expire --release r40 --wait
  stoker expire --release r12 --no-snapshot --wait`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "release"); err != nil {
				return err
			}
			p := tasks.Expire{Release: id, NoSnapshot: noSnapshot, Pace: speed.Pace, By: c.by()}
			if err := p.Validate(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				steps, err := r.retirer.Plan(speed.here(cmd.Context()), p)
				if err != nil {
					return err
				}
				if dryRun {
					steps = append([]retire.Step{}, steps...) // [] in JSON where there are none
					return c.show(steps, func(w io.Writer) { printSteps(w, steps) })
				}
				if slices.ContainsFunc(steps, func(s retire.Step) bool { return s.To == release.Archived }) {
					if err := r.needStore(cmd.Context()); err != nil {
						return err
					}
				}
				task, err := r.client.Enqueue(cmd.Context(), p)
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, r, tasks.TypeExpire, task, wait, printRetired)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "release", "", "this release instead of the rule's")
	f.BoolVar(&noSnapshot, "no-snapshot", false, "without an archive: with --release only; it can never come back")
	f.BoolVar(&dryRun, "dry-run", false, "only show what would leave, and why")
	f.BoolVar(&wait, "wait", false, "wait until it is done")
	paceFlag(cmd, &speed, workersPace)
	return cmd
}

func printRetired(w io.Writer, done retire.Report) {
	for _, moved := range []struct {
		how string
		ids []string
	}{{"archived", done.Archived}, {"expired", done.Expired}} {
		if len(moved.ids) > 0 {
			fmt.Fprintf(w, "%s %s\n", moved.how, strings.Join(moved.ids, ", "))
		}
	}
	for _, s := range done.Skipped {
		fmt.Fprintf(w, "kept %s: %s\n", s.Release, plain(s.Why))
	}
	fmt.Fprintf(w, "%d keys removed from Redis in %.1f s\n", done.Deleted, done.Seconds)
}

func printSteps(w io.Writer, steps []retire.Step) {
	if len(steps) == 0 {
		fmt.Fprintln(w, "nothing to expire: every release is within the rule, pinned, or in use")
		return
	}
	var rows [][]string
	for _, s := range steps {
		why := s.Why
		if len(s.Sample) > 0 {
			why += "\nfor example " + examples(s.Sample)
		}
		rows = append(rows, []string{s.Release, string(s.From) + " → " + string(s.To), strconv.FormatInt(s.Entries, 10), size(s.Bytes), why})
	}
	table(w, []string{"RELEASE", "MOVE", "ENTRIES", "ABOUT", "WHY"}, rows)
}

func (c *cli) rollbackCommand() *cobra.Command {
	var to string
	var salvage, wait bool
	var p pace
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Bring back an earlier release, warm and fresh, or not at all",
		Long: `Bring back the release that was active before, or the one named with --to. One on standby comes
back by a flip; an archived one is restored, every invalidation since its snapshot is applied
to it, and only then it is served. What cannot be proved fresh is refused, and so is a damaged
archive; --salvage brings back those of its blocks that are whole.`,
		Example: "  stoker rollback --wait --reason 'tag pages are slow'\n  stoker rollback --to r40 --wait",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "to"); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				if err := r.restorer.May(cmd.Context(), to); err != nil {
					return err
				}
				id, err := r.client.Enqueue(cmd.Context(), tasks.Rollback{To: to, Salvage: salvage, Pace: p.Pace, By: c.by()})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, r, tasks.TypeRollback, id, wait, func(w io.Writer, done restore.Report) {
					fmt.Fprintf(w, "%s is active, from %s in %.1f s; fresh as of number %d", done.To, done.Via, done.Seconds, done.FreshAsOf)
					if done.Via == restore.ViaArchive {
						fmt.Fprintf(w, "; %d entries, %d invalidations applied since its snapshot", done.Entries, done.Replayed)
					}
					fmt.Fprintln(w)
					printSalvaged(w, done)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&salvage, "salvage", false, "of a damaged archive, bring back what is whole and say what is not")
	cmd.Flags().StringVar(&to, "to", "", "the release to bring back (default: the one active before)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is served")
	paceFlag(cmd, &p, "full, since visitors wait for it")
	return cmd
}

// printSalvaged says what did not come back of a damaged archive.
func printSalvaged(w io.Writer, done restore.Report) {
	if done.Salvaged == nil {
		return
	}
	fmt.Fprintf(w, "its archive is damaged: %d entries came back, %d are lost\n", done.Salvaged.Entries, done.Lost)
	for _, l := range done.Salvaged.Lost {
		if l.Block == 0 {
			fmt.Fprintf(w, "lost at offset %d\n", l.Offset)
			continue
		}
		fmt.Fprintf(w, "lost block %d at offset %d: %d entries, the first is %s\n", l.Block, l.Offset, l.Entries, l.First)
	}
}
