package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
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

func (c *cli) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the releases, newest first",
		Example: "  stoker release list",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(p port) error {
				records, err := ask(cmd.Context(), p, releasesOp, none{})
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
			return c.with(cmd.Context(), func(p port) error {
				v, err := ask(cmd.Context(), p, releaseOp, the{a[0]})
				if err != nil {
					return err
				}
				certificate, err := certificateFields(v.Record)
				if err != nil {
					return err
				}
				return c.show(v, func(w io.Writer) { printRelease(w, v, certificate) })
			})
		},
	}
}

func printRelease(w io.Writer, v shownRelease, certificate []health.Field) {
	fmt.Fprintf(w, "%s is %s since %s: %d entries, about %s, certificate %s, verdict after its switch %s\n", v.ID, v.State, ago(v.ChangedAt), v.Entries, size(v.Bytes), verdictOf(v.Record), outcomeOf(v.Record))
	printFields(w, certificate)
	var notes [][]string
	for _, n := range [][2]string{{"owner", v.Owner}, {"why", v.Notes.Reason}, {"expected", v.Expected}, {"revision", v.Revision}, {"rollback", v.RollbackNote}, {"files", strings.Join(v.Files, ", ")}, {"commands", strings.Join(v.Commands, "; ")}} {
		if n[1] != "" {
			notes = append(notes, []string{n[0], n[1]})
		}
	}
	if len(notes) > 0 {
		table(w, []string{"NOTE", ""}, notes)
	}
	var rows [][]string
	for _, m := range v.History {
		rows = append(rows, []string{m.At.Format("2006-01-02 15:04:05"), string(m.To), m.Actor, strings.Trim(m.Reason+"; "+m.Note, "; ")})
	}
	table(w, []string{"AT (UTC)", "STATE", "BY", "WHY"}, rows)
}

// shownRelease is what `stoker release show` shows.
type shownRelease struct {
	release.Record
	Entries int64          `json:"entries"`
	Bytes   int64          `json:"bytes_estimated"`
	History []release.Move `json:"history"`
}

var releasesOp = operation[none, []release.Record]{
	id: "releases", says: "Every release, newest first",
	method: "GET", path: "/v1/releases", scope: web.View,
	do: func(ctx context.Context, r *rooms, _ none, _ tasks.By) ([]release.Record, error) {
		return r.ledger.List(ctx)
	},
}

var releaseOp = operation[the, shownRelease]{
	id: "release", says: "A release: state, notes, history, documents, and the entries that it has in Redis",
	method: "GET", path: "/v1/releases/{id}", scope: web.View, long: true,
	do: func(ctx context.Context, r *rooms, in the, _ tasks.By) (v shownRelease, err error) {
		if v.Record, err = r.ledger.Get(ctx, in.ID); err != nil {
			return v, err
		}
		if v.History, err = r.ledger.History(ctx, in.ID); err != nil {
			return v, err
		}
		usage, err := r.ns.Usage(ctx, in.ID)
		v.Entries, v.Bytes = usage.Entries, usage.Bytes
		return v, err
	},
}
