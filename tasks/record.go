package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Invalidation is one call: what left the origin's truth behind, who says so, and why.
type Invalidation struct {
	Targets []Target `json:"targets"`
	By
}

// Validate reports a call without targets, with too many, or with one that names nothing.
func (i Invalidation) Validate() error {
	switch {
	case len(i.Targets) == 0:
		return fmt.Errorf("%w: invalidate nothing: name a key, a tag or a prefix", ErrInvalid)
	case len(i.Targets) > MaxTargets:
		return fmt.Errorf("%w: %d targets in one call: at most %d; use a tag, or several calls", ErrInvalid, len(i.Targets), MaxTargets)
	}
	for _, t := range i.Targets {
		if err := t.Validate(); err != nil {
			return err
		}
	}
	return i.By.Validate()
}

// Record is what the log keeps of a group of calls until they are applied everywhere.
type Record struct {
	V     int            `json:"v"`
	ID    string         `json:"id"` // unique
	Calls []Invalidation `json:"calls"`
}

// DecodeRecord reads a member of the pending records.
func DecodeRecord(body string) (Record, error) {
	var r Record
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		return Record{}, fmt.Errorf("read record: %w: %v", ErrInvalid, err)
	}
	if r.V < 1 || r.V > PayloadVersion {
		return Record{}, fmt.Errorf("read record: %w: version %d: this worker reads 1 to %d; upgrade the worker first", ErrInvalid, r.V, PayloadVersion)
	}
	return r, nil
}

// Targets returns the targets of all calls, each once.
func (r Record) Targets() []Target {
	seen := map[Target]bool{}
	var all []Target
	for _, c := range r.Calls {
		for _, t := range c.Targets {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}

// sampleTargets is how many of a call's targets are shown to people.
const sampleTargets = 10

// Applied says what a record removed where. Calls that were recorded together share it.
type Applied struct {
	Number     int64            `json:"number"`
	At         time.Time        `json:"at"`
	Recorded   time.Time        `json:"recorded"`
	Took       time.Duration    `json:"took_ns"` // of the removal itself
	Targets    int              `json:"targets"`
	Sample     []Target         `json:"sample,omitempty"`
	Namespaces map[string]int64 `json:"namespaces"` // release → entries removed
	Calls      []By             `json:"calls"`
}

// Applied returns the outcome to keep of the record with that number.
func (r Record) Applied(number int64, removed map[string]int64, took time.Duration) Applied {
	targets := r.Targets()
	a := Applied{
		Number: number, At: time.Now().UTC(), Recorded: time.UnixMicro(number).UTC(), Took: took,
		Targets: len(targets), Sample: targets[:min(sampleTargets, len(targets))], Namespaces: removed,
	}
	for _, c := range r.Calls[:min(sampleTargets, len(r.Calls))] {
		a.Calls = append(a.Calls, c.By)
	}
	return a
}

// ReadApplied returns the outcome of a record; false while it is pending, or when so many came
// after it that it was dropped.
func ReadApplied(ctx context.Context, queue redis.Cmdable, keys Keys, number int64) (Applied, bool, error) {
	n := strconv.FormatInt(number, 10)
	found, err := queue.ZRangeByScore(ctx, keys.Applied(), &redis.ZRangeBy{Min: n, Max: n}).Result()
	if err != nil {
		return Applied{}, false, fmt.Errorf("read invalidation %d: %w", number, err)
	}
	if len(found) == 0 {
		return Applied{Number: number}, false, nil
	}
	var a Applied
	if err := json.Unmarshal([]byte(found[0]), &a); err != nil {
		return Applied{}, false, fmt.Errorf("read invalidation %d: %w", number, err)
	}
	return a, true, nil
}

// ListApplied returns the outcomes of the last n records, newest first.
func ListApplied(ctx context.Context, queue redis.Cmdable, keys Keys, n int) ([]Applied, error) {
	found, err := queue.ZRevRange(ctx, keys.Applied(), 0, int64(n)-1).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("list invalidations: %w", err)
	}
	list := make([]Applied, 0, len(found))
	for _, body := range found {
		var a Applied
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return nil, fmt.Errorf("list invalidations: %w", err)
		}
		list = append(list, a)
	}
	return list, nil
}
