package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) releaseCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "release",
		Short:   "Register, list, show, activate, pin and document releases",
		Example: "  stoker release create r42 --owner ann --why 'new tag pages' --revision $(git rev-parse HEAD)\n  stoker release list",
	})
	cmd.AddCommand(c.createCommand(), c.listCommand(), c.showCommand(), c.activateCommand(), c.pinCommand(true), c.pinCommand(false), c.noteCommand())
	return cmd
}

func (c *cli) createCommand() *cobra.Command {
	var n release.Notes
	var adopt, active bool
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Register a release, before anything is written to its namespace",
		Long: `Register a release: one build of the site, with what a colleague needs to know of it. From
here on its namespace receives every invalidation.

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
		rows = append(rows, []string{rec.ID, string(rec.State), verdictOf(rec), ago(rec.ChangedAt), rec.Owner, yesNo(rec.Pinned), rec.Reason})
	}
	table(w, []string{"RELEASE", "STATE", "CERTIFICATE", "SINCE", "OWNER", "PINNED", "WHY"}, rows)
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
					fmt.Fprintf(w, "%s is %s since %s: %d entries, about %s, certificate %s\n", rec.ID, rec.State, ago(rec.ChangedAt), usage.Entries, size(usage.Bytes), verdictOf(rec))
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
	var force, wait bool
	cmd := &cobra.Command{
		Use:     "activate ID",
		Short:   "Serve a ready release; the one served before goes on standby",
		Example: "  stoker release activate r42 --wait --reason 'certificate passed'",
		Args:    args(cobra.ExactArgs(1)),
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
				id, err := r.client.Activate(cmd.Context(), a[0], force, c.by())
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
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	return cmd
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
