package demo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"
)

// phase runs one part of the story and measures it; with edits, a trickle of them meanwhile.
// Then the editor rests, and every page is compared with the database.
func (s *story) phase(ctx context.Context, name string, edits bool, run func(context.Context) error) error {
	p := Phase{Name: name}
	s.crowds.stoker.phase()
	s.crowds.plain.phase()
	before, start := s.editor.made, time.Now()
	err := s.amid(ctx, edits, run)
	p.Took, p.Edits = time.Since(start), s.editor.made-before
	p.Stoker.Seen, p.Plain.Seen = s.crowds.stoker.phase(), s.crowds.plain.phase()
	if err == nil {
		err = s.rest(ctx, &p)
	}
	s.report.Phases = append(s.report.Phases, p)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// amid runs a step; with edits, amid a trickle of them.
func (s *story) amid(ctx context.Context, edits bool, run func(context.Context) error) error {
	if !edits {
		return run(ctx)
	}
	stop := s.editor.trickle(ctx, s.tempo.calm)
	err := run(ctx)
	return errors.Join(err, stop())
}

// rest compares both sites with the database and counts what they have cached.
func (s *story) rest(ctx context.Context, p *Phase) error {
	id, err := s.wire.Active(ctx)
	if err != nil {
		return err
	}
	if _, p.Stoker.Entries, err = s.op.State(ctx, id); err != nil {
		return err
	}
	if p.Plain.Entries, err = s.plain.cache.Count(ctx); err != nil {
		return err
	}
	found, err := s.check.compare(ctx, id, s.fronts.stoker.URL, s.fronts.plain.URL)
	if err != nil {
		return err
	}
	p.Stoker.Rest, p.Plain.Rest = found[0], found[1]
	at := p.Stoker.Rest
	s.tell.say("at rest: %s pages compared with the database, %s of them cached: %d stale, %d errors (plain: %s cached, %d stale)",
		humanize.Comma(at.Pages), humanize.Comma(at.Cached), at.Stale, at.Errors, humanize.Comma(p.Plain.Rest.Cached), p.Plain.Rest.Stale)
	return nil
}

// storm publishes n edits as fast as the site takes them.
func (s *story) storm(ctx context.Context, n int) error {
	watch, end := s.tell.bar("edits")
	start := time.Now()
	err := s.editor.storm(ctx, n, s.tempo.storm, watch)
	end()
	if err == nil {
		s.tell.say("%s edits published and applied in %s", humanize.Comma(int64(n)), seconds(time.Since(start)))
	}
	return err
}

// warm fills a release and tells what came of it; share 0 is all of it.
func (s *story) warm(ctx context.Context, id string, share float64) error {
	text, err := plan(s.builds[id].URL, s.fronts.stoker.URL, s.probes(), id != first)
	if err != nil {
		return err
	}
	label := "warm " + id
	if share > 0 {
		label = fmt.Sprintf("try %s of %s", percent(share), id)
	}
	watch, end := s.tell.bar(label)
	start := time.Now()
	got, err := s.op.Warm(ctx, id, text, share, watch)
	end()
	if err != nil {
		return err
	}
	s.tell.say("%s: %s entries in %s, coverage %s, certificate %q. %s",
		label, humanize.Comma(got.Entries), seconds(time.Since(start)), percent(got.Coverage), got.Verdict, got.Detail)
	if share == 0 && got.Verdict != "pass" {
		return fmt.Errorf("the certificate of release %q says %q: %s", id, got.Verdict, got.Detail)
	}
	return nil
}

// probes are a few pages that stand for the site.
func (s *story) probes() []string {
	paths := []string{"/"}
	for _, slug := range s.crowds.stoker.slugs[:min(20, len(s.crowds.stoker.slugs))] {
		if alive, _ := s.truth.Exists(s.truth.Settled(), slug); alive {
			paths = append(paths, "/"+slug)
		}
	}
	return paths
}

// bringBack makes a release active again, which must come from where the story left it: the
// plain site switches at the same time.
func (s *story) bringBack(ctx context.Context, id, from, reason string) error {
	watch, end := s.tell.bar("roll back to " + id)
	start := time.Now()
	got, err := s.op.Rollback(ctx, id, reason, watch)
	end()
	if err != nil {
		return err
	}
	if got.From != from {
		return fmt.Errorf("release %q came back from %q: want %q", id, got.From, from)
	}
	line := fmt.Sprintf("%s is back from %s after %s", id, from, seconds(time.Since(start)))
	if from == fromArchive {
		line += fmt.Sprintf(", %s entries restored, %s invalidations replayed", humanize.Comma(got.Restored), humanize.Comma(got.Replayed))
	}
	s.tell.say("%s, fresh as of number %d", line, got.FreshAs)
	return s.flush(ctx, id)
}

// flush is the plain site's way through the same switch.
func (s *story) flush(ctx context.Context, id string) error {
	n, err := s.plain.deploy(ctx, id)
	if err == nil {
		s.tell.say("the plain site switches as well, and flushes its %s entries", humanize.Comma(int64(n)))
	}
	return err
}

// readAll visits every page of a site once.
func (s *story) readAll(ctx context.Context, url string) error {
	paths, err := s.check.want[first].Paths(ctx, new(Tally))
	if err != nil {
		return err
	}
	return each(ctx, paths, func(ctx context.Context, path string) error {
		_, err := fetchPage(ctx, s.check.client, url+path, nil)
		return err
	})
}

// each calls fn for every path, a few at a time; the first error ends it.
func each(ctx context.Context, paths []string, fn func(ctx context.Context, path string) error) error {
	const askers = 4
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range askers {
		group.Go(func() error {
			for n := next.Add(1) - 1; n < int64(len(paths)); n = next.Add(1) - 1 {
				if err := fn(ctx, paths[n]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// pause lets some time pass for the visitors.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
