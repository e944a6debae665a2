package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) noteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "note ID",
		Short:   "Write the final note of a release, as Markdown",
		Example: "  stoker release note r42 > notes/r42.md",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			return c.with(cmd.Context(), func(r *rooms) error {
				text, err := r.note(cmd.Context(), a[0])
				if err != nil {
					return err
				}
				return c.show(map[string]string{"markdown": text}, func(w io.Writer) { io.WriteString(w, text) })
			})
		},
	}
}

// note writes a release's final note from everything that the rooms know of it.
func (r *rooms) note(ctx context.Context, id string) (string, error) {
	rec, err := r.ledger.Get(ctx, id)
	if err != nil {
		return "", err
	}
	in := health.NoteInput{Record: rec}
	if in.History, err = r.ledger.History(ctx, id); err != nil {
		return "", err
	}
	if err := fill(rec, release.DocBaseline, &in.Baseline); err != nil {
		return "", err
	}
	if err := fill(rec, release.DocVerdict, &in.Verdict); err != nil {
		return "", err
	}
	if in.Certificate, err = certificateFields(rec); err != nil {
		return "", err
	}
	if in.Previous, err = r.previous(ctx, rec); err != nil {
		return "", err
	}
	if in.Previous != "" {
		in.Rollback = "stoker rollback --to " + in.Previous + " --wait"
	}
	status, err := r.log.Status(ctx)
	if err != nil {
		return "", err
	}
	if since := rec.CreatedAt.UnixMicro(); since >= status.Floor {
		n, err := r.log.Since(ctx, since)
		if err != nil {
			return "", err
		}
		in.Invalidations = &n
	}
	return health.Note(in), nil
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

func certificateFields(rec release.Record) ([]health.Field, error) {
	var cert struct {
		Verdict  string
		Reasons  []string
		Planned  int64
		Stored   int64
		Failed   int64
		Entries  int64
		Coverage float64
	}
	ok, err := rec.Doc(release.DocCertificate, &cert)
	if err != nil || !ok {
		return nil, err
	}
	return []health.Field{
		{Name: "Verdict", Value: cert.Verdict},
		{Name: "Reasons", Value: strings.Join(cert.Reasons, "; ")},
		{Name: "Coverage", Value: fmt.Sprintf("%.1f%%", 100*cert.Coverage)},
		{Name: "Planned, stored, failed", Value: fmt.Sprintf("%d, %d, %d", cert.Planned, cert.Stored, cert.Failed)},
		{Name: "Entries in the namespace", Value: fmt.Sprint(cert.Entries)},
	}, nil
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
