package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) noteCommand() *cobra.Command {
	var page bool
	cmd := &cobra.Command{
		Use:   "note ID",
		Short: "Write the final note of a release, as Markdown or as a page",
		Long: `Write what the next developer should read: why the release was made and by whom, what it touched,
how the site behaved before and after with the verdict, the watch's looks and what came of them,
certificate, invalidations since, a security checklist, and how to take it back.

--html writes one page with plots that needs nothing else: no script, nothing loaded.`,
		Example: "  stoker release note r42 > notes/r42.md\n  stoker release note r42 --html > notes/r42.html",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				in, err := r.noteInput(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				form, text := "markdown", health.Note(in)
				if page {
					form = "html"
					if text, err = health.NoteHTML(in); err != nil {
						return err
					}
				}
				return c.show(map[string]string{form: text}, func(w io.Writer) { io.WriteString(w, text) })
			})
		},
	}
	cmd.Flags().BoolVar(&page, "html", false, "write a page with plots")
	return cmd
}

// note writes a release's final note as Markdown.
func (r *rooms) note(ctx context.Context, id string) (string, error) {
	in, err := r.noteInput(ctx, id)
	if err != nil {
		return "", err
	}
	return health.Note(in), nil
}

// noteInput gathers everything that the rooms know of a release.
func (r *rooms) noteInput(ctx context.Context, id string) (in health.NoteInput, err error) {
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return in, err
	}
	in.Record = rec
	err = r.fillNote(ctx, &in)
	return in, err
}

// fillNote adds to a note's record everything else that the rooms know of its release.
func (r *rooms) fillNote(ctx context.Context, in *health.NoteInput) (err error) {
	rec, id := in.Record, in.Record.ID
	if in.History, err = r.ledger.History(ctx, id); err != nil {
		return err
	}
	if err := errors.Join(
		fill(rec, release.DocBaseline, &in.Baseline), fill(rec, release.DocVerdict, &in.Verdict), fill(rec, release.DocWatch, &in.Watch),
	); err != nil {
		return err
	}
	if in.Certificate, err = certificateFields(rec); err != nil {
		return err
	}
	in.Checklist = r.checklist(ctx, rec, in.History)
	if in.Previous, err = r.previous(ctx, rec); err != nil {
		return err
	}
	if in.Previous != "" {
		in.Rollback = "stoker rollback --to " + in.Previous + " --wait"
	}
	in.Invalidations, err = r.edits(ctx, rec.CreatedAt)
	return err
}

// checklist examines what bears on security, without writing and without counting entries.
func (r *rooms) checklist(ctx context.Context, rec release.Record, history []release.Move) []health.Check {
	deps := r.doctorDeps()
	deps.Store, deps.ActiveBytes, deps.Schedule, deps.Plan = nil, nil, nil, nil
	return health.Checklist(rec, history, verdictOf(rec), health.Doctor(ctx, deps, r.set.Health))
}

// fill decodes a document where there is one.
func fill[T any](rec release.Record, d release.Doc, to **T) error {
	v := new(T)
	ok, err := rec.Doc(d, v)
	if ok {
		*to = v
	}
	return err
}

// previous returns the release that was active before rec first was.
func (r *rooms) previous(ctx context.Context, rec release.Record) (string, error) {
	records, err := r.ledger.List(ctx)
	if err != nil {
		return "", err
	}
	for _, other := range records { // newest first
		if other.CreatedAt.Before(rec.CreatedAt) && !other.ActivatedAt.IsZero() {
			return other.ID, nil
		}
	}
	return "", nil
}
