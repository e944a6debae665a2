package invalidation

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/redistest"
)

// observer is another process that looks at the same log.
func (s *site) observer() *Log { return Open(s.rdb, keys, Config{FillLimit: 30 * time.Second}) }

// forget takes the log back to what it was after number, as a promoted replica that lacks the rest.
func (s *site) forget(number int64) {
	s.Helper()
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, keys.LogMeta(), "last", number)
		for _, k := range []string{keys.Log(), keys.Prefixes(), keys.Pending()} {
			p.ZRemRangeByScore(ctx, k, "("+strconv.FormatInt(number, 10), "+inf")
		}
		return nil
	})
	s.check(err)
}

func (s *site) witness(l *Log) bool {
	s.Helper()
	lost, err := l.Witness(ctx)
	s.check(err)
	return lost
}

// A log that came back without its last records is noticed by every process that had seen them,
// once each, and no mark from before is fresh.
func TestALogWithoutItsTailIsAnotherLog(t *testing.T) {
	for name, rdb := range map[string]*redis.Client{"redis-server": redistest.Start(t).Client, "embedded": redistest.Mini(t)} {
		t.Run(name, func(t *testing.T) {
			s := siteOn(t, rdb, "r1")
			archive, err := s.log.OpenMark(ctx, "r1", "writer")
			s.check(err)
			first := s.record(key("a"))
			second := s.record(key("b"))
			worker, late := s.observer(), s.observer()
			if s.witness(worker) || s.witness(s.log) {
				t.Fatal("a loss was reported before there was one")
			}
			s.forget(first)
			if s.witness(late) {
				t.Error("a process that has seen nothing reported a loss")
			}
			if !s.witness(worker) || s.witness(worker) {
				t.Error("the worker must report the loss, once")
			}
			if !s.witness(s.log) || s.witness(s.log) {
				t.Error("who recorded must report the loss as well, once")
			}
			if !s.witness(late) {
				t.Error("who had seen the old log must report that this is another")
			}
			if err := s.log.Fresh(ctx, archive); !errors.Is(err, tasks.ErrNotFresh) {
				t.Errorf("the mark from before: %v, want not fresh", err)
			}
			stale, err := s.log.Check(ctx, archive, []tasks.Tagged{{Key: "c"}})
			s.check(err)
			if !stale[0] {
				t.Error("a check under the mark from before passed")
			}
			st, err := s.log.Status(ctx)
			s.check(err)
			if l := st.Loss; l == nil || l.From.UnixMicro() != first || l.To.UnixMicro() != second {
				t.Errorf("loss %+v, want from %d to %d", l, first, second)
			}
			if n := s.record(key("d")); n <= second {
				t.Errorf("number %d was given again: %d was given before the loss", n, second)
			}
			m, err := s.log.Journal.Mark(ctx)
			s.check(err)
			s.check(s.log.Fresh(ctx, m))
		})
	}
}

// A rollback must not slip through before a worker's next look.
func TestFreshLooksForALossItself(t *testing.T) {
	s := newSite(t, "r1")
	archive, err := s.log.Journal.Mark(ctx)
	s.check(err)
	first := s.record(key("a"))
	s.record(key("b"))
	s.forget(first)
	if err := s.log.Fresh(ctx, archive); !errors.Is(err, tasks.ErrNotFresh) {
		t.Errorf("got %v, want not fresh", err)
	}
}

// An empty queue Redis is another log, whoever starts the new one.
func TestAnEmptyLogIsAnotherLog(t *testing.T) {
	for name, early := range map[string]bool{"found empty": false, "another process began a new one": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "r1")
			archive, err := s.log.Journal.Mark(ctx)
			s.check(err)
			last := s.record(key("a"))
			s.check(s.rdb.FlushAll(ctx).Err())
			if early {
				_, err := s.observer().Journal.Mark(ctx)
				s.check(err)
			}
			if !s.witness(s.log) {
				t.Error("no loss was reported")
			}
			if err := s.log.Fresh(ctx, archive); !errors.Is(err, tasks.ErrNotFresh) {
				t.Errorf("got %v, want not fresh", err)
			}
			st, err := s.log.Status(ctx)
			s.check(err)
			if l := st.Loss; l == nil || !l.From.IsZero() || l.To.UnixMicro() != last {
				t.Errorf("loss %+v, want everything up to %d", l, last)
			}
		})
	}
}

// What is reported grows when somebody had seen more than who noticed first.
func TestALossIsAsWideAsAnybodyKnows(t *testing.T) {
	s := newSite(t, "r1")
	first := s.record(key("a"))
	early := s.observer()
	s.record(key("b"))
	s.check(func() error { _, err := early.Witness(ctx); return err }())
	third := s.record(key("c"))
	s.forget(first)
	if !s.witness(early) || !s.witness(s.log) {
		t.Error("both must report the loss")
	}
	st, err := s.log.Status(ctx)
	s.check(err)
	if st.Loss == nil || st.Loss.To.UnixMicro() != third {
		t.Errorf("loss %+v, want up to %d", st.Loss, third)
	}
}

// The mark of a dead writer can be closed after a loss; it would hold its release up for ever.
func TestReplayRestAppliesWhatIsLeft(t *testing.T) {
	s := newSite(t, "r1")
	m, err := s.log.OpenMark(ctx, "r1", "dead")
	s.check(err)
	s.invalidate(key("a"))
	first := s.record(key("b"))
	s.record(key("c"))
	s.forget(first)
	s.witness(s.log)
	for _, k := range []string{"a", "b", "c"} {
		s.put("r1", k)
	}
	if _, err := s.apply.Replay(ctx, "r1", m); !errors.Is(err, tasks.ErrNotFresh) {
		t.Errorf("replay: %v, want not fresh", err)
	}
	if _, err := s.apply.ReplayRest(ctx, "r1", m); err != nil || s.has("r1", "a") || s.has("r1", "b") {
		t.Errorf("replay of the rest: %v; a there: %v, b there: %v", err, s.has("r1", "a"), s.has("r1", "b"))
	}
}
