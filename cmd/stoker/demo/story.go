package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/worker/release"
)

// The releases of the story.
const (
	first  = "r1"
	second = "r2"
)

// sample is the share of the entries that the trial of a warm writes.
const sample = 0.05

// tempo is how fast the story is told, and how long.
type tempo struct {
	dwell         time.Duration // how long visitors get to see what a step has done
	storm, calm   float64       // edits a second
	before, after int           // edits of the storms before and after the rollback
	whileArchived int           // edits while the release is an archive and nothing else
}

// fullTempo makes at least 1,000 edits before the rollback and 1,000 after it.
func fullTempo() tempo {
	return tempo{dwell: 3 * time.Second, storm: 250, calm: 2, before: 1000, after: 700, whileArchived: 350}
}

// Run tells the whole story. It returns the report even when a step fails, and an error that
// wraps [ErrFaults] when all steps went well but not for every visitor.
func (d *Demo) Run(ctx context.Context) (Report, error) {
	s := &story{Demo: d, op: d.wire.Operator, report: Report{Seed: d.opts.Seed, Articles: len(d.corpus.Articles)}}
	start := time.Now()
	err := s.tellAll(ctx)
	s.report.Took = time.Since(start)
	s.report.Edits = d.editor.made
	if err != nil {
		return s.report, fmt.Errorf("demo: %w", err)
	}
	s.tell.chapter("What the visitors of both sites saw (seed %d, %s edits, %s)", s.report.Seed, humanize.Comma(int64(s.report.Edits)), seconds(s.report.Took))
	if err := s.report.Table(d.wire.Out); err != nil {
		return s.report, err
	}
	return s.report, s.report.Err()
}

// story is one run of it.
type story struct {
	*Demo
	op     Operator
	report Report
}

func (s *story) tellAll(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.opening, s.steady, s.warmSecond, s.deploy, s.editStorm, s.rollBack, s.editsGoOn, s.archive, s.restore, s.notes,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// opening: the first release is warmed before anybody reads it.
func (s *story) opening(ctx context.Context) error {
	s.tell.chapter("A site of %s articles goes live as release %s", humanize.Comma(int64(len(s.corpus.Articles))), first)
	s.tell.say("%d visitors will read it, and %d read the same site deployed the plain way (seed %d)", s.opts.Visitors, s.opts.Visitors, s.opts.Seed)
	return s.phase(ctx, first+" warm and live", false, func(ctx context.Context) error {
		if err := s.op.Create(ctx, first, notesOf(first)); err != nil {
			return err
		}
		if err := s.warm(ctx, first, 0); err != nil {
			return err
		}
		if err := s.op.Activate(ctx, first, "the first release"); err != nil {
			return err
		}
		// A fair start for the plain site: every page has been read once.
		if _, err := s.plain.deploy(ctx, first); err != nil {
			return err
		}
		if err := s.readAll(ctx, s.fronts.plain.URL); err != nil {
			return err
		}
		s.crowds.stoker.start(ctx, s.opts.Visitors, s.opts.Rate, s.opts.Seed)
		s.crowds.plain.start(ctx, s.opts.Visitors, s.opts.Rate, s.opts.Seed)
		return pause(ctx, s.tempo.dwell)
	})
}

// steady: an ordinary day, measured as the baseline.
func (s *story) steady(ctx context.Context) error {
	s.tell.chapter("An ordinary day: visitors read, editors edit")
	return s.phase(ctx, "ordinary day on "+first, true, func(ctx context.Context) error {
		if err := pause(ctx, s.tempo.dwell); err != nil {
			return err
		}
		if err := s.op.Baseline(ctx, first); err != nil {
			return err
		}
		s.tell.say("baseline of %s measured: later releases are compared with it", first)
		return nil
	})
}

// warmSecond: the second release is filled beside the first, which goes on serving.
func (s *story) warmSecond(ctx context.Context) error {
	s.tell.chapter("Release %s looks different: it may not serve what %s cached. It is warmed beside it", second, first)
	return s.phase(ctx, second+" warms beside "+first, true, func(ctx context.Context) error {
		if err := s.op.Create(ctx, second, notesOf(second)); err != nil {
			return err
		}
		if err := s.warm(ctx, second, sample); err != nil {
			return err
		}
		return s.warm(ctx, second, 0)
	})
}

// deploy: the switch, and for the plain site the flush.
func (s *story) deploy(ctx context.Context) error {
	s.tell.chapter("Deploy: %s becomes active", second)
	return s.phase(ctx, "deploy "+second, true, func(ctx context.Context) error {
		if err := s.op.Activate(ctx, second, "the new look"); err != nil {
			return err
		}
		s.tell.say("the pointer names %s: its visitors find every page in the cache", second)
		if err := s.flush(ctx, second); err != nil {
			return err
		}
		if err := pause(ctx, s.tempo.dwell); err != nil {
			return err
		}
		if err := s.op.Baseline(ctx, second); err != nil {
			return err
		}
		verdict, err := s.op.Compare(ctx, first, second)
		if err != nil {
			return err
		}
		s.tell.say("%s against %s: %s", second, first, verdict)
		return nil
	})
}

// editStorm: much changes while the second release serves and the first stands by.
func (s *story) editStorm(ctx context.Context) error {
	s.tell.chapter("%s edits arrive. Each leaves the cache of %s and of %s, which stands by", humanize.Comma(int64(s.tempo.before)), second, first)
	return s.phase(ctx, "edits on "+second, false, func(ctx context.Context) error {
		return s.storm(ctx, s.tempo.before)
	})
}

// rollBack: the first release comes back, with every edit made since.
func (s *story) rollBack(ctx context.Context) error {
	s.tell.chapter("Something is wrong with %s: roll back to %s", second, first)
	return s.phase(ctx, "roll back to "+first, true, func(ctx context.Context) error {
		if err := s.bringBack(ctx, first, fromStandby, "the new look is broken"); err != nil {
			return err
		}
		return pause(ctx, s.tempo.dwell)
	})
}

func (s *story) editsGoOn(ctx context.Context) error {
	s.tell.chapter("Edits go on: %s more", humanize.Comma(int64(s.tempo.after)))
	return s.phase(ctx, "edits on "+first, false, func(ctx context.Context) error {
		return s.storm(ctx, s.tempo.after)
	})
}

// archive: the second release again, while the first is written to an archive and its keys
// leave Redis.
func (s *story) archive(ctx context.Context) error {
	s.tell.chapter("%s is repaired and active again. %s goes to an archive, and its keys leave Redis", second, first)
	return s.phase(ctx, second+" again, "+first+" archived", false, func(ctx context.Context) error {
		if err := s.bringBack(ctx, second, fromStandby, "repaired"); err != nil {
			return err
		}
		watch, end := s.tell.bar("archive and expire " + first)
		done, err := s.op.Archive(ctx, first, "its memory is wanted", watch)
		end()
		if err != nil {
			return err
		}
		s.tell.say("%s entries archived and verified (%s), %s keys removed from Redis",
			humanize.Comma(done.Entries), humanize.IBytes(uint64(done.Bytes)), humanize.Comma(done.Removed))
		if err := s.empty(ctx, first); err != nil {
			return err
		}
		s.tell.say("%s edits while nothing of %s is in Redis", humanize.Comma(int64(s.tempo.whileArchived)), first)
		return s.storm(ctx, s.tempo.whileArchived)
	})
}

// empty checks that an archived release holds nothing in Redis.
func (s *story) empty(ctx context.Context, id string) error {
	state, entries, err := s.op.State(ctx, id)
	if err == nil && (state != release.Archived || entries != 0) {
		return fmt.Errorf("release %q is %s with %d entries in Redis after its archive: want it archived, with none", id, state, entries)
	}
	return err
}

// restore: the first release comes back once more, from its archive.
func (s *story) restore(ctx context.Context) error {
	s.tell.chapter("And back to %s once more, this time from its archive", first)
	return s.phase(ctx, first+" from its archive", true, func(ctx context.Context) error {
		if err := s.bringBack(ctx, first, fromArchive, "the new look is broken again"); err != nil {
			return err
		}
		return pause(ctx, s.tempo.dwell)
	})
}

func (s *story) notes(ctx context.Context) error {
	s.tell.chapter("The note on %s, for whoever asks tomorrow", second)
	note, err := s.op.Note(ctx, second)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.wire.Out, note)
	return nil
}

// notesOf is what the author of a release wrote down.
func notesOf(id string) release.Notes {
	n := release.Notes{
		Owner:        "the demo",
		Reason:       "the first release of the site",
		Expected:     "every page is served from the cache",
		RollbackNote: "none: there is nothing before it",
		Revision:     "demo-" + id,
		Files:        []string{"pages/" + id + ".html"},
		Commands:     []string{"stoker warm " + id + " --wait", "stoker release activate " + id},
	}
	if id == second {
		n.Reason = "a new look for every page"
		n.RollbackNote = "stoker rollback --to " + first + ": the old look, with every edit made since"
	}
	return n
}
