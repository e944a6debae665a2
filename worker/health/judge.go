package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
)

// Judge turns a sample into checks, in a fixed order. It is pure.
func Judge(s Sample, cfg Config) []Check {
	checks := []Check{
		judgeAnswer("queue", s.Queue, cfg),
		judgeQueuePolicy(s.Queue, cfg),
		judgePersistence(s.Queue),
		judgeMemory("queue", s.Queue, cfg),
		judgeAnswer("cache", s.Cache, cfg),
		judgeTagSafety(s.Cache, cfg),
		judgeEvictions(s.Cache, s.Previous),
		judgeOldDump(s.Cache),
		judgeMemory("cache", s.Cache, cfg),
		judgeWorkers(s.Workers),
	}
	for _, l := range s.Lanes {
		checks = append(checks, judgeLane(l, cfg))
	}
	return append(checks,
		judgeArchived(s.Lanes),
		judgePending(s.Invalidations, cfg),
		judgeLag(s.Invalidations, cfg),
		judgeLoss(s.Invalidations, s.At),
		judgeFailover(s.Invalidations, s.At),
		judgeFreshness(s.Freshness, s.At),
		judgeEntries(s.Active, cfg),
		judgeSnapshots(s.Snapshots, s.At, cfg),
		judgeDrill(s.Drills, s.At, cfg),
		judgeRollback(s.Rollback),
	)
}

func judgeAnswer(name string, r Redis, cfg Config) Check {
	c := Check{Name: name + ".answers"}
	if r.Err != nil {
		c.Status, c.Detail = Fail, fmt.Sprintf("the %s Redis does not answer: %v", name, r.Err)
		c.Remedy = "check that it runs and that " + urlSetting(name) + " names it; nothing is lost while it is down, and work resumes when it is back"
		return c
	}
	var slowest time.Duration
	for _, s := range r.Servers {
		slowest = max(slowest, s.RoundTrip)
	}
	c.Status, c.Value = OK, slowest.Seconds()
	c.Detail = fmt.Sprintf("round trip %v", slowest.Round(time.Microsecond))
	if slowest > cfg.HealthRoundTrip {
		c.Status = Warn
		c.Remedy = fmt.Sprintf("expected at most %v: look for slow commands (SLOWLOG GET), swapping, or a long way between the two hosts", cfg.HealthRoundTrip)
	}
	return c
}

func urlSetting(name string) string {
	if name == "queue" {
		return "STOKER_REDIS_URL"
	}
	return "STOKER_CACHE_URL"
}

// judgeQueuePolicy: whatever the queue Redis evicts is lost work or lost invalidations.
func judgeQueuePolicy(r Redis, cfg Config) Check {
	c := Check{Name: "queue.policy"}
	policies, ok := policiesOf(r)
	if !ok {
		return unknown(c, "eviction policy of the queue Redis", r.Err)
	}
	c.Status, c.Detail = OK, "eviction policy "+strings.Join(policies, ", ")
	if !slices.Equal(policies, []string{"noeviction"}) {
		c.Status = Fail
		c.Detail = "the queue Redis may evict tasks, the ledger and recorded invalidations (maxmemory-policy " + strings.Join(policies, ", ") + ")"
		c.Remedy = "set maxmemory-policy noeviction on it, or give stoker a Redis of its own (STOKER_REDIS_URL); STOKER_ALLOW_QUEUE_EVICTION_AND_LOSE_INVALIDATIONS=true accepts the loss"
		if cfg.AllowQueueEvictionAndLoseInvalidations {
			c.Status = Warn
		}
	}
	return c
}

// judgeTagSafety: tag indexes have no expiry, so only the allkeys policies evict them; an index
// that is gone makes an invalidation by its tag miss entries, and nobody sees it.
func judgeTagSafety(r Redis, cfg Config) Check {
	c := Check{Name: "cache.tags"}
	policies, ok := policiesOf(r)
	if !ok {
		return unknown(c, "eviction policy of the cache Redis", r.Err)
	}
	c.Status, c.Detail = OK, "tag indexes are not evicted (maxmemory-policy "+strings.Join(policies, ", ")+")"
	if slices.ContainsFunc(policies, func(p string) bool { return strings.HasPrefix(p, "allkeys-") }) {
		c.Status = Fail
		c.Detail = "the cache Redis may evict tag indexes, and invalidations by tag would miss entries (maxmemory-policy " + strings.Join(policies, ", ") + ")"
		c.Remedy = "set maxmemory-policy volatile-lfu on it (entries need a TTL then) or noeviction; STOKER_ALLOW_TAG_INDEX_EVICTION=true accepts stale pages"
		if cfg.AllowTagIndexEviction {
			c.Status = Warn
		}
	}
	return c
}

// policiesOf returns the different policies of r's servers, sorted; false when one does not tell.
func policiesOf(r Redis) ([]string, bool) {
	var policies []string
	for _, s := range r.Servers {
		if s.Policy() == "" {
			return nil, false
		}
		policies = append(policies, s.Policy())
	}
	slices.Sort(policies)
	policies = slices.Compact(policies)
	return policies, len(policies) > 0
}

func unknown(c Check, what string, err error) Check {
	c.Status, c.Detail = Unknown, what+" is not known"
	switch {
	case err != nil:
		c.Detail += ": " + err.Error()
		c.Remedy = "it is asked again with the next check"
	default:
		c.Detail += ": the server does not tell"
		c.Remedy = "allow stoker's user the commands INFO and CONFIG GET (see deploy/users.acl); an embedded Redis has neither"
	}
	return c
}

// judgePersistence: after a crash the queue Redis has only what it wrote to disk.
func judgePersistence(r Redis) Check {
	c := Check{Name: "queue.persistence", Status: OK, Detail: "append-only file on"}
	if len(r.Servers) == 0 {
		return unknown(c, "persistence of the queue Redis", r.Err)
	}
	for _, s := range r.Servers {
		aof, told := s.number("aof_enabled")
		switch {
		case !told:
			return unknown(c, "persistence of the queue Redis", nil)
		case aof == 1 && (s.Info["aof_last_write_status"] == "err" || s.Info["aof_last_bgrewrite_status"] == "err"):
			c.Status, c.Detail, c.Remedy = Fail, "the queue Redis cannot write its append-only file", "look at its log and at the free space of its disk"
			return c
		case aof == 1:
		case s.Info["rdb_last_bgsave_status"] == "err":
			c.Status, c.Detail, c.Remedy = Fail, "the queue Redis cannot save its dump", "look at its log and at the free space of its disk"
			return c
		case s.Save != nil && *s.Save == "":
			c.Status, c.Detail = Warn, "the queue Redis writes nothing to disk: a crash loses the ledger and every recorded invalidation"
			c.Remedy = "set appendonly yes (see deploy/redis-queue.conf)"
		case c.Status == OK:
			c.Status, c.Detail = Warn, "the queue Redis has no append-only file: a crash loses what came after the last dump"
			c.Remedy = "set appendonly yes (see deploy/redis-queue.conf)"
		}
	}
	return c
}

// judgeOldDump: a cache Redis that comes back from a dump serves what was invalidated after it, until
// a worker has replayed the log.
func judgeOldDump(r Redis) Check {
	c := Check{Name: "cache.persistence", Status: OK, Detail: "a restart brings back no outdated entries"}
	if len(r.Servers) == 0 {
		return unknown(c, "persistence of the cache Redis", r.Err)
	}
	for _, s := range r.Servers {
		aof, told := s.number("aof_enabled")
		switch {
		case !told || aof == 0 && s.Save == nil:
			return unknown(c, "persistence of the cache Redis", nil)
		case aof == 0 && *s.Save != "":
			c.Status, c.Detail = Warn, "the cache Redis saves dumps: after a crash it serves entries as of the last one until a worker has replayed the invalidations since, and for good when the log does not reach as far"
			c.Remedy = `set save "" on it (see deploy/redis-cache.conf), so that it comes back empty; or appendonly yes where both Redises are one`
		}
	}
	return c
}

// judgeMemory judges by the fullest server.
func judgeMemory(name string, r Redis, cfg Config) Check {
	c := Check{Name: name + ".memory", Status: OK}
	fullest := -1.0
	for _, s := range r.Servers {
		used, limit, limited, ok := s.memory()
		if !ok {
			return unknown(c, "memory of the "+name+" Redis", nil)
		}
		share := float64(used) / float64(limit)
		if share <= fullest {
			continue
		}
		fullest = share
		of := "of its maxmemory"
		if !limited {
			of = "of its machine's memory (no maxmemory is set)"
		}
		c.Detail = fmt.Sprintf("%s of %s in use, %.0f%% %s", humanize.IBytes(uint64(used)), humanize.IBytes(uint64(limit)), share*100, of)
		evicts := limited && s.Policy() != "" && s.Policy() != "noeviction"
		c.Status = fullness(share, evicts, cfg)
	}
	if fullest < 0 {
		return unknown(c, "memory of the "+name+" Redis", r.Err)
	}
	c.Value = fullest
	if c.Status != OK {
		c.Remedy = "raise maxmemory, or expire releases that are no longer needed (stoker expire --dry-run shows which)"
	}
	return c
}

// fullness: a full Redis that evicts goes on at the price of hits; one that does not refuses writes.
func fullness(share float64, evicts bool, cfg Config) Status {
	switch {
	case share >= (1+cfg.HealthMemory)/2 && !evicts:
		return Fail
	case share >= cfg.HealthMemory:
		return Warn
	}
	return OK
}

// judgeEvictions: entries that leave by eviction are warmed for nothing.
func judgeEvictions(r Redis, previous *Facts) Check {
	c := Check{Name: "cache.evictions", Status: OK}
	var grown, total int64
	for _, s := range r.Servers {
		n, ok := s.number("evicted_keys")
		if !ok {
			return unknown(c, "evictions of the cache Redis", nil)
		}
		total += n
		if previous == nil {
			continue
		}
		before, seen := previous.Evicted[s.Info["run_id"]]
		if seen {
			grown += max(n-before, 0)
		} else {
			grown += n // a server that started since: its counter began at zero
		}
	}
	if len(r.Servers) == 0 {
		return unknown(c, "evictions of the cache Redis", r.Err)
	}
	c.Value, c.Detail = float64(grown), fmt.Sprintf("%s keys evicted since the last report, %s since the server started", humanize.Comma(grown), humanize.Comma(total))
	if grown > 0 {
		c.Status = Warn
		c.Remedy = "the cache is too small for what it holds: raise maxmemory, or keep fewer releases on standby (STOKER_RETAIN_STANDBY)"
	}
	return c
}

func judgeWorkers(w Workers) Check {
	c := Check{Name: "workers", Status: OK}
	if w.Err != nil {
		return unknown(c, "the list of workers", w.Err)
	}
	var missing []string
	fewest := -1
	for _, lane := range tasks.Lanes() {
		n := w.Servers[lane]
		if n == 0 {
			missing = append(missing, string(lane))
		}
		if fewest < 0 || n < fewest {
			fewest = n
		}
	}
	c.Value = float64(fewest)
	switch len(missing) {
	case 0:
		c.Detail = fmt.Sprintf("every lane has a server (%d or more)", fewest)
	case len(tasks.Lanes()):
		c.Status, c.Detail, c.Remedy = Fail, "no worker is running: invalidations are recorded but not applied", "start one: stoker worker"
	default:
		c.Status, c.Detail = Fail, "no worker serves the lanes "+strings.Join(missing, ", ")
		c.Remedy = "start a worker that serves them: stoker worker"
	}
	return c
}

// patience is how many times longer than an urgent lane's task one of this lane may wait.
func patience(lane tasks.Lane) time.Duration {
	switch lane {
	case tasks.LaneInvalidate, tasks.LaneRelease:
		return 1
	case tasks.LaneHealth, tasks.LaneBulk:
		return 10
	default:
		return 60
	}
}

func judgeLane(l Lane, cfg Config) Check {
	c := Check{Name: "lane." + string(l.Name), Status: OK, Value: l.Oldest.Seconds()}
	if l.Err != nil {
		return unknown(c, "the "+string(l.Name)+" lane", l.Err)
	}
	limit := cfg.HealthLatency * patience(l.Name)
	c.Detail = fmt.Sprintf("%d waiting, the oldest for %v; %d to retry", l.Waiting, l.Oldest.Round(time.Millisecond), l.Retry)
	switch {
	case l.Paused:
		c.Status = Warn
		c.Detail = "paused; " + c.Detail
		c.Remedy = "when it may go on: stoker resume " + string(l.Name)
	case l.Oldest > 10*limit:
		c.Status = Fail
		c.Remedy = fmt.Sprintf("expected at most %v: check that a worker runs and what its log says", limit)
	case l.Oldest > limit || l.Waiting > cfg.HealthBacklog:
		c.Status = Warn
		c.Remedy = fmt.Sprintf("expected at most %v and %d tasks: start more workers, or wait if the work is known", limit, cfg.HealthBacklog)
	}
	return c
}

func judgeArchived(lanes []Lane) Check {
	c := Check{Name: "tasks.archived", Status: OK, Detail: "no task was given up"}
	var n int
	var where []string
	for _, l := range lanes {
		if l.Err != nil {
			return unknown(c, "the number of tasks given up", l.Err)
		}
		if l.Archived > 0 {
			n += l.Archived
			where = append(where, fmt.Sprintf("%s %d", l.Name, l.Archived))
		}
	}
	if n > 0 {
		c.Status, c.Value = Warn, float64(n)
		c.Detail = fmt.Sprintf("%d tasks were given up (%s)", n, strings.Join(where, ", "))
		c.Remedy = "read their errors under /queues of stoker web, then run them again or delete them"
	}
	return c
}

func judgePending(i Invalidations, cfg Config) Check {
	c := Check{Name: "invalidations.pending", Status: OK, Value: i.Oldest.Seconds()}
	if i.Err != nil {
		return unknown(c, "the state of the invalidation log", i.Err)
	}
	c.Detail = fmt.Sprintf("%d pending", i.Pending)
	if i.Pending > 0 {
		c.Detail += fmt.Sprintf(", the oldest for %v", i.Oldest.Round(time.Millisecond))
	}
	switch {
	case i.Oldest > cfg.HealthPendingFail:
		c.Status = Fail
	case i.Oldest > cfg.HealthPendingWarn:
		c.Status = Warn
	default:
		return c
	}
	c.Remedy = "stale pages may be served: check that a worker runs, that the cache Redis answers, and what the worker logs"
	return c
}

// judgeLag: what is pending now may be little, and yet all that was applied lately may have come
// late. The thresholds are those of the oldest pending invalidation: to whoever sees a stale page
// it is the same wait. The 99th percentile, because a single bulk invalidation may take its time.
func judgeLag(i Invalidations, cfg Config) Check {
	c := Check{Name: "invalidations.lag", Status: OK, Value: i.Lag.P99.Seconds()}
	switch {
	case i.LagErr != nil:
		return unknown(c, "how long invalidations took", i.LagErr)
	case i.Lag.Calls == 0:
		c.Detail = fmt.Sprintf("none was applied in the last %v", invalidation.LagWindow)
		return c
	}
	c.Detail = fmt.Sprintf("%d applied in the last %v, from the call to gone everywhere: half within %v, 99%% within %v, the slowest %v",
		i.Lag.Calls, invalidation.LagWindow, brief(i.Lag.P50), brief(i.Lag.P99), brief(i.Lag.Max))
	if len(i.Lag.Namespaces) > 0 {
		n := i.Lag.Namespaces[0]
		c.Detail += fmt.Sprintf("; the slowest namespace is %s, where 99%% of the removals took at most %v", n.Release, brief(n.P99))
	}
	switch {
	case i.Lag.P99 > cfg.HealthPendingFail:
		c.Status = Fail
	case i.Lag.P99 > cfg.HealthPendingWarn:
		c.Status = Warn
	default:
		return c
	}
	c.Remedy = fmt.Sprintf("expected 99%% within %v: start more workers, look for large tags and prefixes (stoker invalidations), and compare the clocks of the worker and the queue Redis (stoker doctor)", cfg.HealthPendingWarn)
	return c
}

// brief shows a duration to three figures or so.
func brief(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// judgeEntries: a cache that holds much less than its certificate promised has been flushed,
// evicted, or left to expire without being filled.
func judgeEntries(a Active, cfg Config) Check {
	c := Check{Name: "active.entries", Status: OK}
	switch {
	case a.Err != nil:
		return unknown(c, "the active release", a.Err)
	case a.Release == "":
		c.Detail = "no release is active yet"
		return c
	case !a.Certified:
		c.Status, c.Value = Warn, float64(a.Entries)
		c.Detail = fmt.Sprintf("release %q is active without a certificate: nobody has proved that it is warm", a.Release)
		c.Remedy = "warm it: stoker warm " + a.Release
		return c
	case a.CountErr != nil:
		return unknown(c, fmt.Sprintf("the number of entries of release %q", a.Release), a.CountErr)
	case a.CountedAt.IsZero() || a.Expected <= 0:
		c.Status, c.Detail = Unknown, fmt.Sprintf("the entries of release %q were not counted, or its certificate does not say how many there were", a.Release)
		return c
	}
	share := float64(a.Entries) / float64(a.Expected)
	c.Value = share
	c.Detail = fmt.Sprintf("release %q holds %s entries, %.0f%% of its certificate's %s", a.Release, humanize.Comma(a.Entries), share*100, humanize.Comma(a.Expected))
	if share < cfg.HealthEntries {
		c.Status = Warn
		c.Remedy = "find out what removed them (evictions, a flush, short TTLs), then fill them again: stoker warm " + a.Release
	}
	return c
}

func judgeSnapshots(s Snapshots, now time.Time, cfg Config) Check {
	c := Check{Name: "snapshots", Status: OK}
	switch {
	case s.Err != nil:
		return unknown(c, "the state of the snapshots", s.Err)
	case len(s.Missing) > 0:
		c.Status = Fail
		c.Detail = "archived without a verified snapshot: " + strings.Join(s.Missing, ", ")
		c.Remedy = "these releases cannot come back: keep the present standby, and look for their archives in the store (stoker snapshot list)"
		return c
	case s.Release == "":
		c.Detail = "no snapshot yet: the first is taken when a release is archived"
		return c
	}
	age := now.Sub(s.VerifiedAt)
	c.Value = age.Seconds()
	c.Detail = fmt.Sprintf("the newest verified snapshot is release %q's, %v old", s.Release, age.Round(time.Second))
	if age > cfg.HealthSnapshotAge {
		c.Status = Warn
		c.Remedy = fmt.Sprintf("expected at most %v: take one of the active release (stoker snapshot ID)", cfg.HealthSnapshotAge)
	}
	return c
}

func judgeRollback(r Rollback) Check {
	c := Check{Name: "rollback.ready", Status: OK, Value: 1, Detail: r.Detail}
	unanswered := errors.Is(r.Err, context.DeadlineExceeded) || errors.Is(r.Err, context.Canceled)
	switch {
	case r.Err != nil && !unanswered:
		c.Status, c.Value, c.Detail = Warn, 0, "a rollback would be refused: "+r.Err.Error()
		c.Remedy = "keep a release on standby (STOKER_RETAIN_STANDBY) or a fresh snapshot, and pin the one you may need: stoker release pin ID"
	case r.Err != nil:
		return unknown(c, "whether a rollback would work", r.Err)
	case r.First:
		c.Value, c.Detail = 0, "no second release yet: nothing to roll back to"
	case !r.Known:
		c.Status, c.Value, c.Detail = Unknown, 0, "nobody could be asked whether a rollback would work"
	}
	return c
}
