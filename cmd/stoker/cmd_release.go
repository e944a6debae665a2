package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) releaseCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "release",
		Short:   "Register, list, show, activate, pin, compare and document releases",
		Example: "  stoker release create r42 --owner ann --why 'new tag pages' --revision $(git rev-parse HEAD)\n  stoker release list",
	})
	cmd.AddCommand(c.createCommand(), c.listCommand(), c.showCommand(), c.activateCommand(), c.pinCommand(true), c.pinCommand(false), c.releaseCompareCommand(), c.noteCommand())
	return cmd
}

func (c *cli) createCommand() *cobra.Command {
	var n release.Notes
	var adopt, active, noGit bool
	var gitDir string
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Register a release, before anything is written to its namespace",
		Long: `Register a release: one build of the site, with what a colleague needs to know of it. From
here on its namespace receives every invalidation.

In a git repository, what no flag says is taken from it: the owner is the last commit's author, the
revision is HEAD, the files are those that changed since the revision of the release that is served.

--adopt takes over a namespace that exists already, because the site wrote it before it had
stoker: the release enters on standby, or with --active as the one that is served.`,
		Example: `  stoker release create r42 --owner ann --why 'new tag pages' --file tmpl/tag.html
  stoker release create r41 --adopt --active`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if active && !adopt {
				return fmt.Errorf("%w: --active goes with --adopt: a new release is warmed first, then activated", tasks.ErrInvalid)
			}
			return c.with(cmd.Context(), func(r *rooms) error {
				rec := release.Record{ID: a[0], Template: r.tmpl.String(), Notes: n}
				if adopt {
					return c.adopt(cmd, r, rec, active)
				}
				if !noGit {
					if err := c.fromGit(cmd.Context(), r, gitDir, &rec.Notes); err != nil {
						return err
					}
				}
				if err := r.ledger.Create(cmd.Context(), rec, c.by()); err != nil {
					return err
				}
				return c.printRelease(cmd, r, a[0])
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Owner, "owner", "", "who answers for the release")
	f.StringVar(&n.Reason, "why", "", "what it is for")
	f.StringVar(&n.Expected, "expected", "", "the result hoped for")
	f.StringVar(&n.RollbackNote, "rollback-note", "", "what to mind when taking it back")
	f.StringVar(&n.Revision, "revision", "", "revision of the site's repository")
	f.StringArrayVar(&n.Files, "file", nil, "a file touched (repeat)")
	f.StringArrayVar(&n.Commands, "command", nil, "a command used (repeat)")
	f.StringVar(&gitDir, "git", ".", "folder of the site's git repository")
	f.BoolVar(&noGit, "no-git", false, "take nothing from git")
	f.BoolVar(&adopt, "adopt", false, "take over a namespace that exists already")
	f.BoolVar(&active, "active", false, "with --adopt: it is the one that is served")
	return cmd
}

// adopt registers a release whose namespace exists. Its values are of unknown age, so every
// invalidation that the log still knows is applied to it before it may be served from. A
// command that was interrupted is finished by running it again.
func (c *cli) adopt(cmd *cobra.Command, r *rooms, rec release.Record, active bool) error {
	ctx := cmd.Context()
	usage, err := r.ns.Usage(ctx, rec.ID)
	if err != nil {
		return err
	}
	if usage.Entries == 0 {
		return fmt.Errorf("%w: no key begins with %q: there is nothing to adopt; check STOKER_KEY_TEMPLATE and STOKER_CACHE_URL", tasks.ErrInvalid, r.tmpl.Prefix(rec.ID))
	}
	if now, err := r.ledger.Active(ctx); err != nil {
		return err
	} else if active && now != "" && now != rec.ID {
		return fmt.Errorf("%w: %q is active already: adopt without --active and roll back to it when it shall be served", tasks.ErrRefused, now)
	}
	have, err := r.ledger.Get(ctx, rec.ID)
	if err != nil || have.State != release.New {
		if err := r.ledger.Create(ctx, rec, c.by()); err != nil {
			return err
		}
	}
	oldest, err := r.log.Oldest(ctx)
	if err != nil {
		return err
	}
	replayed, err := r.applier.Replay(ctx, rec.ID, oldest)
	if err != nil {
		return err
	}
	if active {
		_, err = r.ledger.Flip(ctx, rec.ID, release.New, c.by())
	} else {
		err = r.ledger.Move(ctx, rec.ID, release.New, release.Standby, c.by())
	}
	if err != nil {
		return err
	}
	if !c.json {
		fmt.Fprintf(c.out, "adopted %d entries (about %s); %d invalidations applied, %d entries removed\n",
			usage.Entries, size(usage.Bytes), replayed.Targets, replayed.Removed)
	}
	return c.printRelease(cmd, r, rec.ID)
}

func (c *cli) printRelease(cmd *cobra.Command, r *rooms, id string) error {
	rec, err := r.ledger.Get(cmd.Context(), id)
	if err != nil {
		return err
	}
	return c.show(rec, func(w io.Writer) {
		pinned := ""
		if rec.Pinned {
			pinned = " and pinned"
		}
		fmt.Fprintf(w, "%s is %s%s (namespace %s…)\n", rec.ID, rec.State, pinned, plain(r.tmpl.Prefix(rec.ID)))
	})
}

func (c *cli) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the releases, newest first",
		Example: "  stoker release list",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				records, err := r.ledger.List(cmd.Context())
				if err != nil {
					return err
				}
				return c.show(records, func(w io.Writer) { printReleases(w, records) })
			})
		},
	}
}

func printReleases(w io.Writer, records []release.Record) {
	if len(records) == 0 {
		fmt.Fprintln(w, "no releases yet: `stoker release create ID` registers one, with --adopt for a cache that exists")
		return
	}
	var rows [][]string
	for _, rec := range records {
		rows = append(rows, []string{rec.ID, string(rec.State), verdictOf(rec), outcomeOf(rec), ago(rec.ChangedAt), rec.Owner, yesNo(rec.Pinned), rec.Reason})
	}
	table(w, []string{"RELEASE", "STATE", "CERTIFICATE", "SERVED", "SINCE", "OWNER", "PINNED", "WHY"}, rows)
}

// verdictOf returns the verdict of a release's certificate, "–" without one.
func verdictOf(rec release.Record) string {
	var certificate struct {
		Verdict string `json:"verdict"`
	}
	if ok, err := rec.Doc(release.DocCertificate, &certificate); err != nil || !ok {
		return "–"
	}
	return certificate.Verdict
}

// outcomeOf returns the verdict of a release after its switch, "–" without one.
func outcomeOf(rec release.Record) string {
	var v struct {
		Verdict string `json:"verdict"`
	}
	if ok, err := rec.Doc(release.DocVerdict, &v); err != nil || !ok || v.Verdict == "" {
		return "–"
	}
	return v.Verdict
}

func (c *cli) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a release: state, notes, history, documents",
		Example: "  stoker release show r42",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				rec, err := r.ledger.Get(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				history, err := r.ledger.History(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				usage, err := r.ns.Usage(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				certificate, err := certificateFields(rec)
				if err != nil {
					return err
				}
				v := struct {
					release.Record
					Entries int64          `json:"entries"`
					Bytes   int64          `json:"bytes_estimated"`
					History []release.Move `json:"history"`
				}{rec, usage.Entries, usage.Bytes, history}
				return c.show(v, func(w io.Writer) {
					fmt.Fprintf(w, "%s is %s since %s: %d entries, about %s, certificate %s, verdict after its switch %s\n", rec.ID, rec.State, ago(rec.ChangedAt), usage.Entries, size(usage.Bytes), verdictOf(rec), outcomeOf(rec))
					printFields(w, certificate)
					var notes [][]string
					for _, n := range [][2]string{{"owner", rec.Owner}, {"why", rec.Notes.Reason}, {"expected", rec.Expected}, {"revision", rec.Revision}, {"rollback", rec.RollbackNote}, {"files", strings.Join(rec.Files, ", ")}, {"commands", strings.Join(rec.Commands, "; ")}} {
						if n[1] != "" {
							notes = append(notes, []string{n[0], n[1]})
						}
					}
					if len(notes) > 0 {
						table(w, []string{"NOTE", ""}, notes)
					}
					var rows [][]string
					for _, m := range history {
						rows = append(rows, []string{m.At.Format("2006-01-02 15:04:05"), string(m.To), m.Actor, strings.Trim(m.Reason+"; "+m.Note, "; ")})
					}
					table(w, []string{"AT (UTC)", "STATE", "BY", "WHY"}, rows)
				})
			})
		},
	}
}

func (c *cli) activateCommand() *cobra.Command {
	var force, wait, autoRollback bool
	cmd := &cobra.Command{
		Use:   "activate ID",
		Short: "Serve a ready release; the one served before goes on standby",
		Long: `Serve a ready release; the one served before goes on standby.

The site is then watched for STOKER_WATCH_FOR: its pages are measured at growing intervals and
compared with the baseline of the release before. When it is clearly worse, the webhook is told
(STOKER_WEBHOOK_URL) and, with --auto-rollback or STOKER_WATCH_ROLLBACK, the release before comes
back by itself, once per release, fresh or not at all.`,
		Example: `  stoker release activate r42 --wait --reason 'certificate passed'
  stoker release activate r42 --auto-rollback`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				rec, err := r.ledger.Get(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				active, err := r.ledger.Active(cmd.Context())
				if err != nil {
					return err
				}
				if _, err := worker.Admit(rec, active == "", force); err != nil {
					return err
				}
				if err := c.hintBaseline(cmd.Context(), r, active); err != nil {
					return err
				}
				id, err := r.client.Enqueue(cmd.Context(), tasks.Activate{Release: a[0], Force: force, AutoRollback: autoRollback, By: c.by()})
				if err != nil {
					return err
				}
				return finish(cmd.Context(), c, r, tasks.TypeActivate, id, wait, func(w io.Writer, done worker.Activation) {
					fmt.Fprintf(w, "%s is active", done.Release)
					if done.Previous != "" {
						fmt.Fprintf(w, "; %s is on standby: `stoker rollback` brings it back", done.Previous)
					}
					fmt.Fprintln(w)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "without a passed certificate; recorded")
	cmd.Flags().BoolVar(&autoRollback, "auto-rollback", false, "let the watch bring the release before back when the site is clearly worse")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	return cmd
}

// oldBaseline is the age from which a baseline may speak of other traffic than today's.
const oldBaseline = 24 * time.Hour

// hintBaseline says on stderr when the watch will have nothing good to compare with.
func (c *cli) hintBaseline(ctx context.Context, r *rooms, active string) error {
	if active == "" {
		return nil
	}
	rec, err := r.ledger.Get(ctx, active)
	if err != nil {
		return err
	}
	var b health.Baseline
	ok, err := rec.Doc(release.DocBaseline, &b)
	switch {
	case err != nil:
		return err
	case !ok:
		fmt.Fprintf(c.err, "note: %s has no baseline, so the watch will be inconclusive: `stoker baseline %s` before the switch\n", active, active)
	case time.Since(b.At) > oldBaseline:
		fmt.Fprintf(c.err, "note: the baseline of %s is of %s: `stoker baseline %s` takes a new one\n", active, ago(b.At), active)
	}
	return nil
}

func (c *cli) pinCommand(pin bool) *cobra.Command {
	use, short := "pin ID", "Keep a release from being expired"
	if !pin {
		use, short = "unpin ID", "Let a pinned release go"
	}
	return &cobra.Command{
		Use: use, Short: short, Example: "  stoker release " + strings.Replace(use, "ID", "r42", 1),
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				if err := r.ledger.Pin(cmd.Context(), a[0], pin, c.by()); err != nil {
					return err
				}
				return c.printRelease(cmd, r, a[0])
			})
		},
	}
}
