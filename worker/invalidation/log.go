package invalidation

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed open.lua
	openLua string
	//go:embed trim.lua
	trimLua string

	openScript = redis.NewScript(openLua)
	trimScript = redis.NewScript(trimLua)
)

// KeepLog is the least time that an invalidation stays in the log.
const KeepLog = time.Hour

// Mark is a position in the log.
type Mark = tasks.Mark

// Config is what marks are taken with.
type Config struct {
	OriginLag time.Duration // how far the origin that is read may lag behind its primary
	FillLimit time.Duration // how long an app server's fill may be on probation
	// LogReplicas is how many replicas of the queue Redis must hold what is recorded: what fewer
	// hold was acknowledged to nobody, and its loss is none.
	LogReplicas int
}

// Log is an app's invalidation log, in the queue Redis. It is safe for concurrent use, by any
// number of processes.
type Log struct {
	*tasks.Journal
	queue redis.UniversalClient
	keys  tasks.Keys
	cfg   Config
}

// Open returns the log of the app whose keys are given.
func Open(queue redis.UniversalClient, keys tasks.Keys, cfg Config) *Log {
	return &Log{Journal: tasks.NewJournal(queue, keys, cfg.OriginLag, cfg.LogReplicas), queue: queue, keys: keys, cfg: cfg}
}

// OpenMark takes the mark of a writer that reads the origin and registers it as unfinished. A
// writer that has one open keeps it. A release that is not live is refused.
func (l *Log) OpenMark(ctx context.Context, release, writer string) (Mark, error) {
	return l.open(ctx, opening{who: writer, kept: l.keys.Marks(release), live: release, back: l.cfg.OriginLag})
}

// OpenMarkFrom is OpenMark for a writer that reads from source's namespace: values there may be
// suspect until their own writers have finished. A source that is not live is refused as well: its
// values lack the invalidations since it ceased to be.
func (l *Log) OpenMarkFrom(ctx context.Context, release, writer, source string) (Mark, error) {
	return l.open(ctx, opening{who: writer, kept: l.keys.Marks(release), live: release, source: source, alive: source, back: l.cacheLag()})
}

// OpenMarkAt registers a writer at the mark of what it writes: a restore, at its snapshot's.
// The mark must be fresh.
func (l *Log) OpenMarkAt(ctx context.Context, release, writer string, m Mark) error {
	if err := l.Fresh(ctx, m); err != nil {
		return err
	}
	_, err := l.open(ctx, opening{who: writer, kept: l.keys.Marks(release), live: release, at: m.Number})
	return err
}

// CloseMark ends a writer. Call it after its replay. Closing twice is fine.
func (l *Log) CloseMark(ctx context.Context, release, writer string) error {
	return l.close(ctx, l.keys.Marks(release), writer)
}

// OpenReader takes the mark of whoever reads source's namespace to keep it elsewhere. It holds
// the log back until CloseReader but does not hold the release up.
func (l *Log) OpenReader(ctx context.Context, source, reader string) (Mark, error) {
	return l.open(ctx, opening{who: reader, kept: l.keys.Readers(), source: source, back: l.cacheLag()})
}

// CloseReader ends a reader: what it read is recorded with its mark, or given up.
func (l *Log) CloseReader(ctx context.Context, reader string) error {
	return l.close(ctx, l.keys.Readers(), reader)
}

// cacheLag is how far a mark for reading a cache goes back.
func (l *Log) cacheLag() time.Duration { return l.cfg.OriginLag + l.cfg.FillLimit }

type opening struct {
	who, kept, live, source string
	alive                   string // the source, where it must be live
	back                    time.Duration
	at                      int64
}

func (l *Log) open(ctx context.Context, o opening) (Mark, error) {
	at := ""
	if o.at != 0 {
		at = strconv.FormatInt(o.at, 10)
	}
	fromCache := "0"
	if o.source != "" {
		fromCache = "1"
	}
	keys := []string{l.keys.LogMeta(), l.keys.Pending(), o.kept, l.keys.Live(), l.keys.Marks(o.source)}
	reply, err := openScript.Run(ctx, l.queue, keys, o.who, rand.Text(), o.back.Microseconds(), o.live, at, fromCache, o.alive).StringSlice()
	if err != nil {
		return Mark{}, fmt.Errorf("open mark of %q: %w", o.who, err)
	}
	if reply[0] == "dead" {
		return Mark{}, fmt.Errorf("open mark of %q: %w: release %q is not live, so nothing may be written to it or copied from it", o.who, tasks.ErrRefused, reply[1])
	}
	return tasks.ParseMark(reply)
}

func (l *Log) close(ctx context.Context, kept, who string) error {
	if err := l.queue.ZRem(ctx, kept, who).Err(); err != nil {
		return fmt.Errorf("close mark of %q: %w", who, err)
	}
	return nil
}

// OpenMarks returns the unfinished writers of a namespace with their marks.
func (l *Log) OpenMarks(ctx context.Context, release string) (map[string]Mark, error) {
	return l.openMarks(ctx, l.keys.Marks(release))
}

// OpenReaders returns the unfinished readers with their marks.
func (l *Log) OpenReaders(ctx context.Context) (map[string]Mark, error) {
	return l.openMarks(ctx, l.keys.Readers())
}

func (l *Log) openMarks(ctx context.Context, kept string) (map[string]Mark, error) {
	epoch, err := l.queue.HGet(ctx, l.keys.LogMeta(), "epoch").Result()
	if err == redis.Nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	open, err := l.queue.ZRangeWithScores(ctx, kept, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read open marks in %q: %w", kept, err)
	}
	marks := make(map[string]Mark, len(open))
	for _, z := range open {
		marks[z.Member.(string)] = Mark{Number: int64(z.Score), Epoch: epoch}
	}
	return marks, nil
}

// Check reports for each entry whether it was invalidated after m.
func (l *Log) Check(ctx context.Context, m Mark, entries []tasks.Tagged) ([]bool, error) {
	return l.Journal.Check(ctx, "", m, entries)
}

// Fresh reports whether the log can vouch for m: nil, or an error that wraps
// [tasks.ErrNotFresh] and says what became of the log. A loss that nobody has noticed yet but
// this process can is noticed first.
func (l *Log) Fresh(ctx context.Context, m Mark) error {
	if _, err := l.Witness(ctx); err != nil {
		return err
	}
	s, err := l.Status(ctx)
	switch {
	case err != nil:
		return err
	case s.Epoch != m.Epoch:
		return fmt.Errorf("%w: the invalidation log is not the one the mark was taken in (epoch %q, now %q): the queue Redis was lost, was replaced, or came back without its last records since", tasks.ErrNotFresh, m.Epoch, s.Epoch)
	case m.Number < s.Floor:
		return fmt.Errorf("%w: the log reaches back to %d only, the mark is %d: invalidations in between are forgotten", tasks.ErrNotFresh, s.Floor, m.Number)
	case m.Number > max(s.Last, s.Now):
		return fmt.Errorf("%w: the mark %d lies ahead of the log (%d): the queue Redis came back older than it was", tasks.ErrNotFresh, m.Number, max(s.Last, s.Now))
	}
	return nil
}

// Oldest returns the mark at the log's floor: the furthest back that a replay can go. Whoever
// takes over values of unknown age replays from there.
func (l *Log) Oldest(ctx context.Context) (Mark, error) {
	if _, err := l.Journal.Mark(ctx); err != nil { // makes the epoch of a new log
		return Mark{}, err
	}
	s, err := l.Status(ctx)
	return Mark{Number: s.Floor, Epoch: s.Epoch}, err
}

// Status is the log at a glance. Numbers are those of the log, 0 before its first.
type Status struct {
	Pending       int           `json:"pending"`
	OldestPending time.Duration `json:"oldest_pending_ns"`
	Last          int64         `json:"last"`
	Floor         int64         `json:"floor"`
	Now           int64         `json:"now"` // the server's clock as a number
	Epoch         string        `json:"epoch"`
	Targets       int64         `json:"targets"`
	Loss          *Loss         `json:"loss,omitempty"` // the last one; nil when the log never lost a record
}

// Loss is a part of the log that a process had seen and that is gone.
type Loss struct {
	At   time.Time `json:"at"`            // when it was noticed, by the server's clock
	From time.Time `json:"from,omitzero"` // what was recorded between From and To may be missing; zero: all
	To   time.Time `json:"to"`
}

// Status reads the log's figures.
func (l *Log) Status(ctx context.Context) (Status, error) {
	pipe := l.queue.Pipeline()
	meta := pipe.HGetAll(ctx, l.keys.LogMeta())
	pending := pipe.ZCard(ctx, l.keys.Pending())
	oldest := pipe.ZRangeWithScores(ctx, l.keys.Pending(), 0, 0)
	targets := pipe.ZCard(ctx, l.keys.Log())
	prefixes := pipe.ZCard(ctx, l.keys.Prefixes())
	now := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return Status{}, fmt.Errorf("read log: %w", err)
	}
	s := Status{
		Pending: int(pending.Val()),
		Epoch:   meta.Val()["epoch"],
		Targets: targets.Val() + prefixes.Val(),
		Now:     now.Val().UnixMicro(),
	}
	if version, ok := meta.Val()["version"]; ok {
		v, err := strconv.Atoi(version)
		if err == nil {
			err = tasks.Logs.Check(v)
		}
		if err != nil {
			return Status{}, fmt.Errorf("read log: %w", err)
		}
	}
	var at, from, until int64
	for field, to := range map[string]*int64{"last": &s.Last, "floor": &s.Floor, "lost_at": &at, "lost_from": &from, "lost_to": &until} {
		if text, ok := meta.Val()[field]; ok {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return Status{}, fmt.Errorf("read log: %s: %w", field, err)
			}
			*to = n
		}
	}
	if at > 0 {
		s.Loss = &Loss{At: time.UnixMicro(at).UTC(), To: time.UnixMicro(until).UTC()}
		if from > 0 {
			s.Loss.From = time.UnixMicro(from).UTC()
		}
	}
	if z := oldest.Val(); len(z) > 0 {
		s.OldestPending = max(0, time.Duration(s.Now-int64(z[0].Score))*time.Microsecond)
	}
	return s, nil
}

// Trim forgets what nobody needs: invalidations over [KeepLog] old, below every pending record,
// open mark and kept snapshot. releases are those that may have open marks; keep returns the
// marks of the snapshots that may be restored. It returns how many targets were forgotten.
func (l *Log) Trim(ctx context.Context, releases []string, keep func(context.Context) ([]int64, error)) (int64, error) {
	// Readers first: a snapshot that is recorded from here on was a reader when we looked.
	readers, err := l.queue.ZRangeWithScores(ctx, l.keys.Readers(), 0, 0).Result()
	if err != nil {
		return 0, fmt.Errorf("trim log: %w", err)
	}
	now, err := l.queue.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("trim log: %w", err)
	}
	bound := now.Add(-KeepLog).UnixMicro()
	for _, z := range readers {
		bound = min(bound, int64(z.Score))
	}
	marks, err := keep(ctx)
	if err != nil {
		return 0, fmt.Errorf("trim log: %w", err)
	}
	for _, m := range marks {
		bound = min(bound, m)
	}
	keys := []string{l.keys.LogMeta(), l.keys.Log(), l.keys.Prefixes(), l.keys.Pending(), l.keys.Readers()}
	for _, r := range releases {
		keys = append(keys, l.keys.Marks(r))
	}
	reply, err := trimScript.Run(ctx, l.queue, keys, bound).Slice()
	if err != nil {
		return 0, fmt.Errorf("trim log: %w", err)
	}
	gone, _ := reply[0].(int64)
	return gone, nil
}

// Since counts the targets in the log whose last invalidation has a number above after.
func (l *Log) Since(ctx context.Context, after int64) (int64, error) {
	from := "(" + strconv.FormatInt(after, 10)
	pipe := l.queue.Pipeline()
	targets := pipe.ZCount(ctx, l.keys.Log(), from, "+inf")
	prefixes := pipe.ZCount(ctx, l.keys.Prefixes(), from, "+inf")
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("count invalidations: %w", err)
	}
	return targets.Val() + prefixes.Val(), nil
}

// PendingRecord is a record that is not yet applied everywhere.
type PendingRecord struct {
	Number int64
	Age    time.Duration
	tasks.Record
}

// Pending returns up to n pending records, oldest first. Of those that only a newer stoker can read it knows number
// and age.
func (l *Log) Pending(ctx context.Context, n int) ([]PendingRecord, error) {
	pipe := l.queue.Pipeline()
	found := pipe.ZRangeWithScores(ctx, l.keys.Pending(), 0, int64(n)-1)
	now := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list pending invalidations: %w", err)
	}
	var all []PendingRecord
	for _, z := range found.Val() {
		record, err := tasks.DecodeRecord(z.Member.(string))
		if err != nil && !errors.Is(err, tasks.ErrNewer) {
			return nil, err
		}
		number := int64(z.Score)
		age := time.Duration(now.Val().UnixMicro()-number) * time.Microsecond
		all = append(all, PendingRecord{number, max(0, age), record})
	}
	return all, nil
}
