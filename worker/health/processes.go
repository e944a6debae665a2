package health

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// announceEvery is how often a process says that it runs.
	announceEvery = 15 * time.Second
	// silence is how long after its last word a process is taken for dead.
	silence = 4 * announceEvery
)

//go:embed announce.lua
var announceLua string

var announceScript = redis.NewScript(announceLua)

// Process is a stoker that runs, as it says itself.
type Process struct {
	Role    string `json:"role"` // worker, scheduler or web
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Asynq   string `json:"asynq"` // the version of the library; two that differ much may not share queues
}

// Processes is the list of an app's processes, in the queue Redis.
type Processes struct {
	Queue redis.UniversalClient
	Keys  tasks.Keys
}

// Announce says that p runs, now and again until ctx ends; then that it does so no longer. A queue Redis
// that is away is tried again the next time: the list is for people, and nothing waits for it.
func (s Processes) Announce(ctx context.Context, p Process) {
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	for {
		_ = announceScript.Run(ctx, s.Queue, []string{s.Keys.Processes()}, raw, int(silence.Seconds())).Err()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = s.Queue.ZRem(last, s.Keys.Processes(), raw).Err()
			return
		}
	}
}

// List returns the processes that run, by role, host and number. One that was killed stays in the list
// for a minute.
func (s Processes) List(ctx context.Context) ([]Process, error) {
	now, err := s.Queue.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	since := strconv.FormatInt(now.Add(-silence).Unix(), 10)
	members, err := s.Queue.ZRangeByScore(ctx, s.Keys.Processes(), &redis.ZRangeBy{Min: since, Max: "+inf"}).Result()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Process
	for _, raw := range members {
		var p Process
		if err := json.Unmarshal([]byte(raw), &p); err != nil {
			return nil, fmt.Errorf("list processes: %q: %w", raw, err)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Process) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

// String names a process.
func (p Process) String() string { return fmt.Sprintf("%s %s:%d", p.Role, p.Host, p.PID) }

// judgeProcesses: without a worker nothing is applied, and without a scheduler nothing is looked at.
func judgeProcesses(a Answer[[]Process]) Check {
	c := Check{Name: "processes", Status: OK, Value: float64(len(a.Value))}
	if !a.Asked {
		return unasked(c)
	}
	if a.Err != nil {
		return unknown(c, "which processes run", a.Err)
	}
	count := map[string]int{}
	for _, p := range a.Value {
		count[p.Role]++
	}
	c.Detail = fmt.Sprintf("running: worker %d, scheduler %d, web %d", count["worker"], count["scheduler"], count["web"])
	switch {
	case count["worker"] == 0:
		c.Status = Warn
		c.Remedy = "start one: stoker worker; until then invalidations are recorded and not applied"
	case count["scheduler"] == 0:
		c.Status = Warn
		c.Remedy = "start one: stoker scheduler; until then health is not checked, and nothing is expired, pruned or drilled"
	}
	return c
}

// judgeMixed: two versions side by side are for the time of an upgrade.
func judgeMixed(a Answer[[]Process], own string) Check {
	c := Check{Name: "stoker.versions", Status: OK}
	if !a.Asked {
		return unasked(c)
	}
	if a.Err != nil {
		return unknown(c, "which versions run", a.Err)
	}
	running := map[string][]string{}
	for _, p := range a.Value {
		version := p.Version + " with asynq " + p.Asynq
		running[version] = append(running[version], p.String())
	}
	var each []string
	for version, processes := range running {
		each = append(each, version+" ("+strings.Join(processes, ", ")+")")
	}
	slices.Sort(each)
	switch len(each) {
	case 0:
		c.Detail = "nothing runs; this is " + own
	case 1:
		c.Detail = "all run " + each[0] + "; this is " + own
	default:
		c.Status, c.Value = Warn, float64(len(each))
		c.Detail = "several versions run: " + strings.Join(each, "; ")
		c.Remedy = "end the upgrade: restart those of the older version, workers first (deploy/runbooks.md, Upgrade)"
	}
	return c
}

// Tick is how an entry of the schedule fares.
type Tick struct {
	Entry string
	Last  time.Time // tick enqueued last; zero: never seen
	Due   time.Time // the latest that is older than [MaxLate]; zero: none yet
}

// MaxLate is how late a tick may be enqueued: schedulers look for missed ones twice a minute.
const MaxLate = 2 * time.Minute

// judgeTicks: an entry that a scheduler has seen once has to tick on.
func judgeTicks(a Answer[[]Tick]) Check {
	c := Check{Name: "schedule.ticks", Status: OK}
	if !a.Asked {
		return unasked(c)
	}
	if a.Err != nil {
		return unknown(c, "when scheduled work was enqueued last", a.Err)
	}
	var late []string
	seen := 0
	for _, t := range a.Value {
		if t.Last.IsZero() {
			continue
		}
		seen++
		if t.Last.Before(t.Due) {
			late = append(late, fmt.Sprintf("%s (last %s)", t.Entry, t.Last.Format(time.DateTime)))
		}
	}
	c.Value = float64(len(late))
	switch {
	case len(late) > 0:
		c.Status, c.Detail = Fail, "ticks were missed: "+strings.Join(late, ", ")
		c.Remedy = "start a scheduler: stoker scheduler; if one runs, its log says why it cannot enqueue"
	case seen == 0:
		c.Status, c.Detail = Unknown, "no scheduler has run with this schedule yet"
	default:
		c.Detail = fmt.Sprintf("%d of %d entries have ticked, none is late", seen, len(a.Value))
	}
	return c
}
