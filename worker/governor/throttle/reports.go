package throttle

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

const (
	// keepReports is how long the last report of a process is read; the process may be gone by then.
	keepReports = time.Hour
	// current is how old the report of a process whose work is under way can be.
	current = 5 * time.Second
)

// Reports are the last reports of all of an app's processes, in the queue Redis.
type Reports struct {
	Queue redis.UniversalClient
	Keys  tasks.Keys
}

// Put replaces a process's report. It is what [Deps.Publish] is for.
func (s Reports) Put(ctx context.Context, r Report) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("report work: %w", err)
	}
	_, err = s.Queue.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, s.Keys.Works(), r.Worker, raw)
		p.Expire(ctx, s.Keys.Works(), keepReports)
		return nil
	})
	if err != nil {
		return fmt.Errorf("report work: %w", err)
	}
	return nil
}

// All returns the reports that are no older than an hour, by worker.
func (s Reports) All(ctx context.Context) ([]Report, error) {
	fresh, _, err := s.read(ctx)
	return fresh, err
}

// Prune drops older ones and returns how many.
func (s Reports) Prune(ctx context.Context) (int64, error) {
	_, old, err := s.read(ctx)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	n, err := s.Queue.HDel(ctx, s.Keys.Works(), old...).Result()
	if err != nil {
		return 0, fmt.Errorf("drop old reports of work: %w", err)
	}
	return n, nil
}

// read returns the reports that count, and the names of those that do not.
func (s Reports) read(ctx context.Context) (fresh []Report, old []string, err error) {
	raw, err := s.Queue.HGetAll(ctx, s.Keys.Works()).Result()
	if err != nil {
		return nil, nil, fmt.Errorf("read reports of work: %w", err)
	}
	for name, text := range raw {
		var r Report
		if json.Unmarshal([]byte(text), &r) != nil || time.Since(r.At) > keepReports {
			old = append(old, name) // or one of another version's
			continue
		}
		fresh = append(fresh, r)
	}
	slices.SortFunc(fresh, func(a, b Report) int { return cmp.Compare(a.Worker, b.Worker) })
	return fresh, old, nil
}

// why says each reason in words.
var why = map[governor.Reason]string{
	governor.Latency: "round trips to the cache Redis are slow",
	governor.Queue:   "invalidations or releases wait",
	governor.Full:    "the cache Redis has no more memory to give",
}

// Braked says of each work that goes slower than its pace at that time how much, and why.
func Braked(reports []Report, now time.Time) []string {
	var lines []string
	for _, r := range reports {
		if now.Sub(r.At) > current {
			continue
		}
		for _, pace := range tasks.Paces() {
			switch b := r.Brakes[pace]; {
			case b.Why == governor.Full:
				lines = append(lines, fmt.Sprintf("work at %s on %s was ended: %s", pace, r.Worker, why[b.Why]))
			case b.Why != "":
				lines = append(lines, fmt.Sprintf("work at %s on %s is slowed down %.1f times: %s", pace, r.Worker, b.Factor, why[b.Why]))
			}
		}
	}
	return lines
}
