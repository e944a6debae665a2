package warm

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed claim.lua
	claimLua string
	//go:embed push.lua
	pushLua string
	//go:embed open.lua
	openLua string
	//go:embed done.lua
	doneLua string

	//go:embed touch.lua
	touchLua string

	claimScript = redis.NewScript(claimLua)
	pushScript  = redis.NewScript(pushLua)
	openScript  = redis.NewScript(openLua)
	doneScript  = redis.NewScript(doneLua)
	touchScript = redis.NewScript(touchLua)
)

// The statuses of a run besides the verdict that ends it.
const (
	statusQueued    = "queued"
	statusRunning   = "running"
	statusRefused   = "refused"   // it never began
	statusAbandoned = "abandoned" // another run took over from it
)

// staleAfter is how long a run may go untouched before another may take its place: its tasks
// are gone, or wait in a lane that somebody paused.
const staleAfter = 30 * time.Minute

// keepRun is how long a run's record outlives the run.
const keepRun = 30 * 24 * time.Hour

// cutting is how a run was cut into batches. It does not change while the run is under way.
type cutting struct {
	Sources []cutSource `json:"sources"`
	Left    []string    `json:"left,omitempty"` // the plan's sources that were not asked for
	Rest    float64     `json:"rest,omitempty"` // of a sampled run with a hot list: the share of what is not listed

	Hot        string  `json:"hot,omitempty"`         // where the hot list comes from; "" without one
	HotTotal   float64 `json:"hot_total,omitempty"`   // weight of everything that it was made of
	HotCounted bool    `json:"hot_counted,omitempty"` // its weights are counts
}

// cutSource is one source's part of a cutting.
type cutSource struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	From   string `json:"from,omitempty"`   // of a carry: the release; "" when there is none
	Total  int64  `json:"total,omitempty"`  // items to visit, 0 when not known
	Listed bool   `json:"listed,omitempty"` // all items are in a list, cut into batches of Size
	Size   int    `json:"size,omitempty"`

	// Hot is how many items visitors want most: the last ones of a list that holds all items, otherwise a
	// list of its own. Their batches go first.
	Hot int64 `json:"hot,omitempty"`

	// Since is when the run began that this one goes on from, in Unix µs; 0 when there is none. Kept
	// counts the items of a list that were left out because that run warmed them, and Sample
	// holds some of their entries.
	Since  int64     `json:"since,omitempty"`
	Kept   int64     `json:"kept,omitempty"`
	Sample []sampled `json:"sample,omitempty"`
}

// batches returns the batches of a run: what visitors want most, then the rest, each in the plan's order.
func (c cutting) batches(p tasks.WarmRun) []tasks.WarmBatch {
	var first, rest []tasks.WarmBatch
	for _, s := range c.Sources {
		whole := tasks.WarmBatch{Run: p.Run, Release: p.Release, Source: s.Name, Pace: p.Pace}
		if !s.Listed {
			first = append(first, s.parts(whole, 0, s.Hot)...)
			rest = append(rest, whole)
			continue
		}
		first = append(first, s.parts(whole, s.Total-s.Hot, s.Total)...)
		rest = append(rest, s.parts(whole, 0, s.Total-s.Hot)...)
	}
	return append(first, rest...)
}

// parts cuts a part of the source's list.
func (s cutSource) parts(b tasks.WarmBatch, from, to int64) []tasks.WarmBatch {
	var all []tasks.WarmBatch
	for at := from; at < to; at += int64(s.Size) {
		b.From, b.To = int(at), int(min(at+int64(s.Size), to))
		all = append(all, b)
	}
	return all
}

// runRecord is a run's record in the queue Redis.
type runRecord struct {
	queue redis.UniversalClient
	keys  tasks.Keys
	run   string
}

// state is what a task needs to know of its run.
type state struct {
	release string
	status  string
	plan    string
	share   float64 // of the keys; 0 means all
	cut     *cutting
	by      tasks.By
	done    bool // the batch that was asked about is
}

func (r runRecord) key() string { return r.keys.Run(r.run) }

// load reads the record; batch may be "".
func (r runRecord) load(ctx context.Context, batch string) (state, error) {
	fields := []string{"release", "status", "plan", "sample", "cut", "by", "batch:" + batch, "version"}
	values, err := r.queue.HMGet(ctx, r.key(), fields...).Result()
	if err != nil {
		return state{}, fmt.Errorf("read run %q: %w", r.run, err)
	}
	text := make([]string, len(values))
	for i, v := range values {
		text[i], _ = v.(string)
	}
	if text[7] != "" { // else it was written before runs had versions
		v, err := strconv.Atoi(text[7])
		if err == nil {
			err = tasks.Runs.Check(v)
		}
		if err != nil {
			return state{}, fmt.Errorf("read run %q: %w", r.run, err)
		}
	}
	s := state{release: text[0], status: text[1], plan: text[2], done: values[6] != nil}
	if s.status == "" {
		return state{}, fmt.Errorf("read run %q: %w: its record is gone; start another", r.run, tasks.ErrNotFound)
	}
	if text[3] != "" {
		if s.share, err = strconv.ParseFloat(text[3], 64); err != nil {
			return state{}, fmt.Errorf("read run %q: sample: %w", r.run, err)
		}
	}
	if text[4] != "" {
		s.cut = new(cutting)
		err = json.Unmarshal([]byte(text[4]), s.cut)
	}
	if text[5] != "" {
		err = errors.Join(err, json.Unmarshal([]byte(text[5]), &s.by))
	}
	if err != nil {
		return state{}, fmt.Errorf("read run %q: %w", r.run, err)
	}
	return s, nil
}

// claim makes the run the one under way for its release. It returns false when the run is over,
// and is refused while another run lives.
func (r runRecord) claim(ctx context.Context, release string, by tasks.By) (bool, error) {
	raw, err := json.Marshal(by)
	if err != nil {
		return false, err
	}
	keys := []string{r.keys.Runs(release), r.key()}
	reply, err := claimScript.Run(ctx, r.queue, keys, r.run, r.keys.Run(""), staleAfter.Microseconds(), raw).StringSlice()
	if err != nil {
		return false, fmt.Errorf("claim release %q for run %q: %w", release, r.run, err)
	}
	switch reply[0] {
	case "ok":
		return true, nil
	case "over":
		return false, nil
	case "busy":
		return false, fmt.Errorf("warm release %q: %w: run %q is warming it already; wait for it, see `stoker status`", release, tasks.ErrRefused, reply[1])
	case "absent":
		return false, fmt.Errorf("warm release %q: %w: run %q has no record; start another", release, tasks.ErrNotFound, r.run)
	}
	return false, fmt.Errorf("claim release %q for run %q: unknown reply %q", release, r.run, reply)
}

// push appends addresses at a position of a crawl's list.
func (r runRecord) push(ctx context.Context, source string, at int64, addrs []string) error {
	args := make([]any, 0, 1+len(addrs))
	args = append(args, at)
	for _, a := range addrs {
		args = append(args, a)
	}
	n, err := pushScript.Run(ctx, r.queue, []string{r.key(), r.keys.RunURLs(r.run, source)}, args...).Int()
	if err == nil && n != 1 {
		err = errors.New("another try of the run is cutting it")
	}
	if err != nil {
		return fmt.Errorf("keep addresses of source %q: %w", source, err)
	}
	return nil
}

// items reads a batch's part of a crawl's list.
func (r runRecord) items(ctx context.Context, b tasks.WarmBatch) ([]string, error) {
	items, err := r.queue.LRange(ctx, r.keys.RunURLs(r.run, b.Source), int64(b.From), int64(b.To)-1).Result()
	if err == nil && len(items) != b.To-b.From {
		err = fmt.Errorf("%w: the run's list holds %d of them", tasks.ErrNotFound, len(items))
	}
	if err != nil {
		return nil, fmt.Errorf("read addresses of batch %s: %w", b.ID(), err)
	}
	return items, nil
}

// open keeps the cutting and opens its batches, unless an earlier try has.
func (r runRecord) open(ctx context.Context, c cutting, batches []tasks.WarmBatch) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	args := []any{raw}
	for _, b := range batches {
		args = append(args, b.ID())
	}
	if err := openScript.Run(ctx, r.queue, []string{r.key(), r.keys.RunOpen(r.run)}, args...).Err(); err != nil {
		return fmt.Errorf("open %d batches of run %q: %w", len(batches), r.run, err)
	}
	return nil
}

// stillOpen returns those of the batches that have not finished.
func (r runRecord) stillOpen(ctx context.Context, batches []tasks.WarmBatch) ([]tasks.WarmBatch, error) {
	members, err := r.queue.SMembersMap(ctx, r.keys.RunOpen(r.run)).Result()
	if err != nil {
		return nil, fmt.Errorf("read open batches of run %q: %w", r.run, err)
	}
	var open []tasks.WarmBatch
	for _, b := range batches {
		if _, ok := members[b.ID()]; ok {
			open = append(open, b)
		}
	}
	return open, nil
}

// touch shows that the run lives, and how far the one batch of a source has come.
func (r runRecord) touch(ctx context.Context, source string, f *Figures) error {
	var values []any
	if f != nil {
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		values = append(values, "part:"+source, raw)
	}
	if err := touchScript.Run(ctx, r.queue, []string{r.key()}, values...).Err(); err != nil {
		return fmt.Errorf("write run %q: %w", r.run, err)
	}
	return nil
}

// finishBatch records a batch's figures once and returns how many batches are still open.
func (r runRecord) finishBatch(ctx context.Context, b tasks.WarmBatch, t tally) (left int64, err error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return 0, err
	}
	keys := []string{r.key(), r.keys.RunOpen(r.run)}
	args := []any{b.ID(), raw, b.Source, t.Planned, t.Stored, t.Invalidated, t.Failed}
	for _, f := range t.Failures {
		args = append(args, string(f.Kind), f.Count, f.Examples[0])
	}
	left, err = doneScript.Run(ctx, r.queue, keys, args...).Int64()
	if err != nil {
		return 0, fmt.Errorf("record batch %s: %w", b.ID(), err)
	}
	return left, nil
}

// set writes fields of the record.
func (r runRecord) set(ctx context.Context, values ...any) error {
	if err := r.queue.HSet(ctx, r.key(), values...).Err(); err != nil {
		return fmt.Errorf("write run %q: %w", r.run, err)
	}
	return nil
}

// end writes how the run ended and removes what only a run under way needs, in one step.
func (r runRecord) end(ctx context.Context, c *cutting, values ...any) error {
	gone := []string{r.keys.RunOpen(r.run), r.keys.RunURLs(r.run, hotList)}
	if c != nil {
		for _, s := range c.Sources {
			if s.Listed || s.Hot > 0 {
				gone = append(gone, r.keys.RunURLs(r.run, s.Name))
			}
		}
	}
	_, err := r.queue.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, r.key(), values...)
		p.Unlink(ctx, gone...)
		p.Expire(ctx, r.key(), keepRun)
		return nil
	})
	if err != nil {
		return fmt.Errorf("end run %q: %w", r.run, err)
	}
	return nil
}
