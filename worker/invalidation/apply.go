package invalidation

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed claim.lua
	claimLua string
	//go:embed done.lua
	doneLua string

	claimScript = redis.NewScript(claimLua)
	doneScript  = redis.NewScript(doneLua)
)

const (
	keptOutcomes = 20_000 // calls whose outcome is kept: some megabytes
	roundRecords = 256    // most records that one round applies
	roundBytes   = 1 << 20
)

// DefaultClaim is how long a worker may keep the records that it is about to apply to itself: when
// it dies, others wait for so long.
const DefaultClaim = time.Second

// Unlinker removes a namespace's entries under a prefix of logical keys. It is idempotent and
// returns how many entries it removed. namespace.Cache is one.
type Unlinker interface {
	Unlink(ctx context.Context, release, prefix string) (int64, error)
}

// A Refresher reloads what invalidations remove. Both methods may be called any number of times, and
// must not fail the removal: what they cannot do is logged or done later by themselves.
type Refresher interface {
	// Note is called before targets are removed from a release by the record with that number.
	Note(ctx context.Context, release string, number int64, targets []tasks.Target)
	// Ask is called after it.
	Ask(ctx context.Context, release string) error
}

// Applier carries invalidations out in the cache Redis. It is safe for concurrent use, by any
// number of processes: applying is idempotent.
type Applier struct {
	// Enqueue puts a record into the bulk lane. nil leaves it to whoever calls ApplyBulk next.
	Enqueue func(context.Context, tasks.InvalidateBulk) error
	// Refresh is told of calls that ask for a refresh; nil when nothing can be refreshed.
	Refresh Refresher
	// Claim is [DefaultClaim] where it is 0.
	Claim time.Duration
	// Left is told once of each record that is left pending because only a newer worker can read it, when it is the
	// oldest of those; nil tells nobody.
	Left func(error)

	log   *Log
	cache redis.UniversalClient
	tmpl  tasks.Template
	live  func(context.Context) ([]string, error)
	ns    Unlinker
	slots slots        // of a Cluster's watermarks
	round sync.Mutex   // one round at a time: those who wait find the work done, or much of it at once
	left  atomic.Int64 // number of the record that Left was told of last
}

// NewApplier returns an applier for log. live returns the releases whose namespaces receive
// invalidations.
func NewApplier(log *Log, cache redis.UniversalClient, tmpl tasks.Template, live func(context.Context) ([]string, error), ns Unlinker) *Applier {
	return &Applier{log: log, cache: cache, tmpl: tmpl, live: live, ns: ns}
}

// Apply carries out, oldest first, the pending records that no other worker has claimed, in every
// live namespace, and takes them off pending. What needs long it leaves to the bulk lane. It
// returns how many records it took off. On an error they stay pending; one record that cannot
// be read does not keep the others from being applied, and one of a newer version is not touched.
func (a *Applier) Apply(ctx context.Context) (int, error) {
	total := 0
	for {
		n, more, err := a.applyRound(ctx)
		total += n
		if err != nil || !more {
			return total, err
		}
	}
}

func (a *Applier) applyRound(ctx context.Context) (applied int, more bool, err error) {
	a.round.Lock()
	defer a.round.Unlock()
	found, err := a.claim(ctx, roundRecords, false)
	if err != nil || len(found) == 0 {
		return 0, false, err
	}
	b, unread, err := a.open(ctx, found)
	if err != nil {
		return 0, false, err
	}
	b.noteRefresh(ctx)
	if err := b.remove(ctx, tagSlices); err != nil {
		return 0, false, fmt.Errorf("apply %d invalidations: %w", len(b.records), err)
	}
	applied, err = a.finish(ctx, b)
	return applied, true, errors.Join(err, unread)
}

// ApplyBulk carries out the records of the bulk lane that no other worker has claimed, one at a
// time, and returns how many.
func (a *Applier) ApplyBulk(ctx context.Context) (int, error) {
	for total := 0; ; total++ {
		found, err := a.claim(ctx, 1, true)
		if err != nil || len(found) == 0 {
			return total, err
		}
		if err := a.applyBulk(ctx, found[0]); err != nil {
			return total, err
		}
	}
}

func (a *Applier) applyBulk(ctx context.Context, p pending) error {
	release := a.hold(ctx, p.number)
	defer release()
	_, err := a.applyWhole(ctx, []pending{p})
	return err
}

// applyWhole applies records with whatever is long in them, and returns how many.
func (a *Applier) applyWhole(ctx context.Context, found []pending) (int, error) {
	b, unread, err := a.open(ctx, found)
	if err != nil {
		return 0, err
	}
	b.noteRefresh(ctx)
	if err := b.remove(ctx, unlimited); err != nil {
		return 0, errors.Join(unread, fmt.Errorf("apply %d invalidations: %w", len(b.records), err))
	}
	for _, r := range b.records {
		if err := a.addPartial(ctx, r); err != nil {
			return 0, errors.Join(unread, err)
		}
	}
	n, err := a.finish(ctx, b)
	return n, errors.Join(unread, err)
}

// Sweep applies every record that has been pending for at least olderThan (0: all), whoever has
// claimed it and whatever it takes, oldest first, and returns how many. It goes on after an
// error. It is for those who must know that nothing is pending, and that no failover of the cache Redis
// has undone what was applied: it looks first.
func (a *Applier) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	if _, err := a.Look(ctx); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	bound := "+inf"
	if olderThan > 0 {
		now, err := a.log.queue.Time(ctx).Result()
		if err != nil {
			return 0, fmt.Errorf("sweep: %w", err)
		}
		bound = strconv.FormatInt(now.Add(-olderThan).UnixMicro(), 10)
	}
	all, err := a.log.queue.ZRangeByScoreWithScores(ctx, a.log.keys.Pending(), &redis.ZRangeBy{Min: "-inf", Max: bound}).Result()
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	applied := 0
	var failed []error
	for part := range slices.Chunk(all, sweepRecords) {
		found := make([]pending, len(part))
		for i, z := range part {
			found[i] = pending{int64(z.Score), z.Member.(string)}
		}
		n, err := a.applyWhole(ctx, found)
		applied += n
		failed = append(failed, err)
	}
	return applied, errors.Join(failed...)
}

// sweepRecords is how many records a sweep applies together.
const sweepRecords = 64

// pending is a record as the log has it.
type pending struct {
	number int64
	body   string
}

func (a *Applier) claimFor() time.Duration {
	if a.Claim > 0 {
		return a.Claim
	}
	return DefaultClaim
}

func (a *Applier) claim(ctx context.Context, most int, bulk bool) ([]pending, error) {
	mode := 0
	if bulk {
		mode = 1
	}
	k := a.log.keys
	reply, err := claimScript.Run(ctx, a.log.queue, []string{k.Pending(), k.Claims(), k.Bulk()}, most, roundBytes, a.claimFor().Microseconds(), mode, tasks.Records.Last()).StringSlice()
	if err == nil && len(reply) < 2 {
		err = fmt.Errorf("got %d values", len(reply))
	}
	if err != nil {
		return nil, fmt.Errorf("claim pending invalidations: %w", err)
	}
	a.tellLeft(reply[0], reply[1])
	found := make([]pending, 0, len(reply)/2-1)
	for i := 2; i+1 < len(reply); i += 2 {
		n, err := strconv.ParseInt(reply[i], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("claim pending invalidations: %w", err)
		}
		a.log.Saw(n)
		found = append(found, pending{n, reply[i+1]})
	}
	return found, nil
}

// tellLeft says which record is left for a newer worker, "0" for none.
func (a *Applier) tellLeft(number, version string) {
	n, _ := strconv.ParseInt(number, 10, 64)
	v, _ := strconv.Atoi(version)
	if n != 0 && a.left.Swap(n) != n && a.Left != nil {
		a.Left(fmt.Errorf("invalidation %d: %w", n, tasks.Records.Check(v)))
	}
}

// open reads claimed records, and then the live set: in that order, see the package's comment. A
// record that cannot be read is left out, and reported.
func (a *Applier) open(ctx context.Context, found []pending) (b *batch, unread, err error) {
	live, err := a.live(ctx)
	if err != nil {
		return nil, nil, err
	}
	b = &batch{a: a, live: live, places: make(map[tasks.Target]int, len(found))}
	for _, p := range found {
		r, err := tasks.DecodeRecord(p.body)
		if err != nil {
			unread = errors.Join(unread, fmt.Errorf("apply invalidation %d: %w", p.number, err))
			continue
		}
		b.add(p.number, r)
	}
	return b, unread, nil
}

// finish takes what is applied off pending, hands the rest to the bulk lane, and returns how many
// records were taken off.
func (a *Applier) finish(ctx context.Context, b *batch) (int, error) {
	args := []any{keptOutcomes}
	var long []*record
	for _, r := range b.records {
		if r.bulk {
			long = append(long, r)
			continue
		}
		r.outcome.At = time.Now()
		body, err := r.outcome.Encode()
		if err != nil {
			return 0, fmt.Errorf("apply invalidation %d: %w", r.number, err)
		}
		args = append(args, r.number, len(r.outcome.Calls), body)
	}
	taken := 0
	if len(args) > 1 {
		k := a.log.keys
		var err error
		taken, err = doneScript.Run(ctx, a.log.queue, []string{k.Pending(), k.Applied(), k.Claims(), k.Bulk(), k.LogMeta()}, args...).Int()
		if err != nil {
			return 0, fmt.Errorf("take %d invalidations off pending: %w", (len(args)-1)/3, err)
		}
	}
	b.askRefresh(ctx)
	for _, r := range long {
		if err := a.leaveToBulk(ctx, r); err != nil {
			return taken, err
		}
	}
	return taken, nil
}
