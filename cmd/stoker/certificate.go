package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/warm"
)

// certificateFields are a release's certificate as people read it; none without one.
func certificateFields(rec release.Record) ([]health.Field, error) {
	var cert warm.Certificate
	ok, err := rec.Doc(release.DocCertificate, &cert)
	if err != nil || !ok {
		return nil, err
	}
	fields := []health.Field{
		{Name: "Verdict", Value: string(cert.Verdict)},
		{Name: "Reasons", Value: strings.Join(cert.Reasons, "; ")},
		{Name: "Coverage", Value: fmt.Sprintf("%.1f%%", 100*cert.Coverage)},
		{Name: "Planned, stored, failed", Value: fmt.Sprintf("%d, %d, %d", cert.Planned, cert.Stored, cert.Failed)},
		{Name: "Entries in the namespace", Value: entriesOf(cert)},
	}
	return append(fields, certificateDetails(cert)...), nil
}

// entriesOf says how many entries the namespace had.
func entriesOf(cert warm.Certificate) string {
	if cert.EntriesAbout {
		return fmt.Sprintf("about %d", cert.Entries)
	}
	return fmt.Sprint(cert.Entries)
}

// certificateDetails are what a certificate says beyond its verdict and coverage.
func certificateDetails(cert warm.Certificate) []health.Field {
	var fields []health.Field
	add := func(name, format string, args ...any) {
		fields = append(fields, health.Field{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	if cert.Sampled > 0 {
		add("Sample read again", "%d of %d were there", cert.Sampled-cert.SampleMissing, cert.Sampled)
	}
	if cert.FirstExpiry > 0 {
		add("First expiry", "in %s; at most %.0f%% end within one minute", duration(cert.FirstExpiry), 100*cert.SameMinute)
	}
	if h := cert.Hot; h != nil && h.Judged > 0 {
		// Without another release nobody knows what a sample left out for the cache.
		if cert.Sample == 0 || h.Active != "" {
			add("Predicted hit rate", "%s", hitRate(*h))
		}
		add("Hot list", "%s: %d of %d items are for the cache%s", h.From, h.Judged, h.Items, traffic(*h))
		if len(h.Missing) > 0 {
			add("Most wanted that is missing", "%s", examples(h.Missing))
		}
	}
	if len(cert.Warnings) > 0 {
		add("Warnings", "%s", strings.Join(cert.Warnings, "; "))
	}
	return fields
}

// hitRate tells what share of the hot list's requests would find their entry, here and in the active release.
func hitRate(h warm.HotFigures) string {
	text := fmt.Sprintf("%.1f%%", 100*h.Coverage)
	if h.Edited > 0 {
		text += fmt.Sprintf(" (and %.1f%% edited meanwhile)", 100*h.Edited)
	}
	if h.Active != "" {
		text += fmt.Sprintf(", where %s has %.1f%%", h.Active, 100*h.ActiveCoverage)
	}
	return text
}

func traffic(h warm.HotFigures) string {
	if !h.Counted {
		return ", each weighs the same"
	}
	return fmt.Sprintf(", %.1f%% of all requests", 100*h.Traffic)
}

// printFields shows names and values in columns.
func printFields(w io.Writer, fields []health.Field) {
	for _, f := range fields {
		if f.Value != "" {
			fmt.Fprintf(w, "  %s: %s\n", strings.ToLower(f.Name[:1])+f.Name[1:], plain(f.Value))
		}
	}
}
