package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// sampleTargets is how many of a call's targets are shown to people.
const sampleTargets = 10

// Applied says what one call removed where.
type Applied struct {
	Number     int64                    `json:"number"`
	Recorded   time.Time                `json:"recorded"`
	At         time.Time                `json:"at"`      // when it was gone everywhere
	Took       map[string]time.Duration `json:"took_ns"` // release → the removal itself, of all that was applied together
	Targets    int                      `json:"targets"`
	Sample     []Target                 `json:"sample,omitempty"`
	Namespaces map[string]int64         `json:"namespaces"` // release → entries removed; what several calls name counts for one of them
	By
}

// Outcome is what became of a record: what the log keeps of it once it is applied.
type Outcome struct {
	Number   int64 // of the record, so of its first call
	At       time.Time
	Releases []string        // the namespaces that it was applied in
	Took     []time.Duration // in each of them
	Calls    []CallOutcome
}

// CallOutcome is one call's share of an [Outcome].
type CallOutcome struct {
	By      By
	Targets int
	Sample  []Target
	Removed []int64 // entries, in each of the outcome's releases
}

// NewOutcome returns the outcome of r without its figures, for the caller to fill in.
func NewOutcome(number int64, r Record, releases []string) Outcome {
	o := Outcome{Number: number, Releases: releases, Took: make([]time.Duration, len(releases)), Calls: make([]CallOutcome, len(r.Calls))}
	for i, c := range r.Calls {
		o.Calls[i] = CallOutcome{By: c.By, Targets: len(c.Targets), Sample: c.Targets[:min(sampleTargets, len(c.Targets))], Removed: make([]int64, len(releases))}
	}
	return o
}

// outcomeWire is an outcome as JSON. done.lua reads the count of calls, which therefore stands first.
type outcomeWire struct {
	Count    int               `json:"count"`
	Number   int64             `json:"number"`
	At       int64             `json:"at_us"`
	Releases []string          `json:"releases"`
	Took     []int64           `json:"took_ns"`
	By       []By              `json:"by"`
	Calls    []callOutcomeWire `json:"calls"`
}

type callOutcomeWire struct {
	By      int      `json:"by"`
	Targets int      `json:"targets"`
	Sample  []string `json:"sample"`
	Removed []int64  `json:"removed"`
}

// Encode returns the outcome as the log keeps it.
func (o Outcome) Encode() ([]byte, error) {
	w := outcomeWire{
		Count: len(o.Calls), Number: o.Number, At: o.At.UnixMicro(), Releases: o.Releases,
		Took: make([]int64, len(o.Took)), Calls: make([]callOutcomeWire, len(o.Calls)),
	}
	for i, d := range o.Took {
		w.Took[i] = d.Nanoseconds()
	}
	known := map[By]int{}
	for i, c := range o.Calls {
		w.Calls[i] = callOutcomeWire{indexOf(&w.By, known, c.By), c.Targets, encodeTargets(c.Sample), c.Removed}
	}
	return json.Marshal(w)
}

// decodeOutcome returns what became of each call of a record.
func decodeOutcome(body string) ([]Applied, error) {
	var w outcomeWire
	if err := json.Unmarshal([]byte(body), &w); err != nil {
		return nil, fmt.Errorf("read outcome: %w", err)
	}
	if len(w.Calls) == 0 || len(w.Took) != len(w.Releases) {
		return nil, fmt.Errorf("read outcome: %d calls, %d durations for %d releases", len(w.Calls), len(w.Took), len(w.Releases))
	}
	took := make(map[string]time.Duration, len(w.Releases))
	for i, release := range w.Releases {
		took[release] = time.Duration(w.Took[i])
	}
	all := make([]Applied, len(w.Calls))
	for i, c := range w.Calls {
		if c.By < 0 || c.By >= len(w.By) || len(c.Removed) != len(w.Releases) {
			return nil, fmt.Errorf("read outcome: call %d does not fit its record", i)
		}
		sample, err := decodeTargets(c.Sample)
		if err != nil {
			return nil, fmt.Errorf("read outcome: %w", err)
		}
		a := Applied{
			Number: w.Number + int64(i), Recorded: time.UnixMicro(w.Number).UTC(), At: time.UnixMicro(w.At).UTC(),
			Took: took, Targets: c.Targets, Sample: sample, By: w.By[c.By], Namespaces: make(map[string]int64, len(w.Releases)),
		}
		for j, release := range w.Releases {
			a.Namespaces[release] = c.Removed[j]
		}
		all[i] = a
	}
	return all, nil
}

// ReadApplied returns what became of the call with that number: pending says that it is not
// applied everywhere yet. A number that was never given, or was applied so long ago that its
// outcome is forgotten, is [ErrNotFound].
func ReadApplied(ctx context.Context, queue redis.Cmdable, keys Keys, number int64) (a Applied, pending bool, err error) {
	fail := func(err error) (Applied, bool, error) {
		return Applied{}, false, fmt.Errorf("read invalidation %d: %w", number, err)
	}
	n, newer := strconv.FormatInt(number, 10), false
	// A record leaves the pending ones and gets its outcome in one step: look in that order. The
	// call's record is the last one that begins at or below its number.
	waiting, err := queue.ZRevRangeByScoreWithScores(ctx, keys.Pending(), &redis.ZRangeBy{Min: "-inf", Max: n, Count: 1}).Result()
	if err != nil {
		return fail(err)
	}
	if len(waiting) == 1 {
		first := int64(waiting[0].Score)
		r, err := DecodeRecord(waiting[0].Member.(string))
		switch {
		case errors.Is(err, ErrNewer): // by another process: whether the call is in it shows when it is not applied
			newer = true
		case err != nil:
			return fail(err)
		case number < first+int64(len(r.Calls)):
			return Applied{}, true, nil
		}
	}
	found, err := queue.ZRevRangeByScore(ctx, keys.Applied(), &redis.ZRangeBy{Min: "-inf", Max: n, Count: 1}).Result()
	if err != nil {
		return fail(err)
	}
	if len(found) == 1 {
		calls, err := decodeOutcome(found[0])
		if err != nil {
			return fail(err)
		}
		if i := number - calls[0].Number; i < int64(len(calls)) {
			return calls[i], false, nil
		}
	}
	if newer {
		return Applied{}, true, nil
	}
	return fail(ErrNotFound)
}

// ListApplied returns what became of the last n calls, newest first.
func ListApplied(ctx context.Context, queue redis.Cmdable, keys Keys, n int) ([]Applied, error) {
	list := []Applied{}
	for from := int64(0); len(list) < n; from += outcomePage {
		found, err := queue.ZRevRange(ctx, keys.Applied(), from, from+outcomePage-1).Result()
		if err != nil {
			return nil, fmt.Errorf("list invalidations: %w", err)
		}
		for _, body := range found {
			calls, err := decodeOutcome(body)
			if err != nil {
				return nil, fmt.Errorf("list invalidations: %w", err)
			}
			slices.Reverse(calls)
			list = append(list, calls...)
		}
		if len(found) < outcomePage {
			break
		}
	}
	return list[:min(n, len(list))], nil
}

// outcomePage is how many outcomes are read at once: records of up to some hundred calls each.
const outcomePage = 20
