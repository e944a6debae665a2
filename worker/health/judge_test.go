package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health/freshness"
	"github.com/alphanode/stoker/worker/invalidation"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// server returns a healthy redis-server with some fields of INFO changed; an empty value drops one.
func server(changes ...string) Server {
	save := "3600 1"
	skew := time.Millisecond
	s := Server{RoundTrip: time.Millisecond, Save: &save, Skew: &skew, Info: map[string]string{
		"redis_version": "7.0.15", "run_id": "one", "maxmemory_policy": "noeviction",
		"used_memory": "100", "maxmemory": "1000", "total_system_memory": "10000",
		"aof_enabled": "1", "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok",
		"rdb_last_bgsave_status": "ok", "evicted_keys": "5",
	}}
	for i := 0; i < len(changes); i += 2 {
		if s.Info[changes[i]] = changes[i+1]; changes[i+1] == "" {
			delete(s.Info, changes[i])
		}
	}
	return s
}

func redisOf(servers ...Server) Redis { return Redis{Servers: servers} }

// healthy returns a sample of which every check is ok.
func healthy() Sample {
	s := Sample{
		At: testNow, Queue: redisOf(server()), Cache: redisOf(server("maxmemory_policy", "volatile-lfu")),
		Workers:   Workers{Servers: map[tasks.Lane]int{}},
		Active:    Active{Release: "r2", Certified: true, Expected: 1000, Entries: 990, CountedAt: testNow},
		Snapshots: Snapshots{Release: "r1", VerifiedAt: testNow.Add(-time.Hour)},
		Rollback:  Rollback{Known: true, Detail: "flip to r1"},
		Previous:  &Facts{Evicted: map[string]int64{"one": 5}},
		Freshness: fresh(freshness.Result{Release: "r2", Day: freshness.Tally{Compared: 7200, AtMost: 0.0004, Nines: 3.4}}),
	}
	for _, l := range tasks.Lanes() {
		s.Lanes = append(s.Lanes, Lane{Name: l})
		s.Workers.Servers[l] = 1
	}
	return s
}

// fresh is what the freshness monitor says after a look at some places.
func fresh(places ...freshness.Result) Freshness {
	return Freshness{Known: true, Report: freshness.Report{At: testNow.Add(-time.Minute), Places: places}}
}

func TestJudge(t *testing.T) {
	boom := errors.New("boom")
	noSave := ""
	tests := []struct {
		name   string
		check  string
		change func(*Sample, *Config)
		want   Status
	}{
		{"queue down", "queue.answers", func(s *Sample, _ *Config) { s.Queue = Redis{Err: boom} }, Fail},
		{"queue down, policy", "queue.policy", func(s *Sample, _ *Config) { s.Queue = Redis{Err: boom} }, Unknown},
		{"queue slow", "queue.answers", func(s *Sample, _ *Config) { s.Queue.Servers[0].RoundTrip = time.Second }, Warn},
		{"cache down", "cache.answers", func(s *Sample, _ *Config) { s.Cache = Redis{Err: boom} }, Fail},
		{"cache down, memory", "cache.memory", func(s *Sample, _ *Config) { s.Cache = Redis{Err: boom} }, Unknown},
		{"cache down, evictions", "cache.evictions", func(s *Sample, _ *Config) { s.Cache = Redis{Err: boom} }, Unknown},

		{"queue evicts", "queue.policy", func(s *Sample, _ *Config) { s.Queue = redisOf(server("maxmemory_policy", "volatile-lru")) }, Fail},
		{"queue evicts, accepted", "queue.policy", func(s *Sample, c *Config) {
			s.Queue, c.AllowQueueEvictionAndLoseInvalidations = redisOf(server("maxmemory_policy", "allkeys-lru")), true
		}, Warn},
		{"one master evicts", "queue.policy", func(s *Sample, _ *Config) {
			s.Queue = redisOf(server(), server("maxmemory_policy", "allkeys-lru"))
		}, Fail},
		{"policy untold", "queue.policy", func(s *Sample, _ *Config) { s.Queue = redisOf(server("maxmemory_policy", "")) }, Unknown},

		{"AOF broken", "queue.persistence", func(s *Sample, _ *Config) { s.Queue = redisOf(server("aof_last_write_status", "err")) }, Fail},
		{"AOF off, RDB on", "queue.persistence", func(s *Sample, _ *Config) { s.Queue = redisOf(server("aof_enabled", "0")) }, Warn},
		{"RDB broken", "queue.persistence", func(s *Sample, _ *Config) {
			s.Queue = redisOf(server("aof_enabled", "0", "rdb_last_bgsave_status", "err"))
		}, Fail},
		{"nothing on disk", "queue.persistence", func(s *Sample, _ *Config) {
			s.Queue = redisOf(server("aof_enabled", "0"))
			s.Queue.Servers[0].Save = &noSave
		}, Warn},
		{"persistence untold", "queue.persistence", func(s *Sample, _ *Config) { s.Queue = redisOf(server("aof_enabled", "")) }, Unknown},

		{"cache saves dumps", "cache.persistence", func(s *Sample, _ *Config) { s.Cache = redisOf(server("aof_enabled", "0")) }, Warn},
		{"cache saves nothing", "cache.persistence", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("aof_enabled", "0"))
			s.Cache.Servers[0].Save = &noSave
		}, OK},
		{"cache persistence withheld", "cache.persistence", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("aof_enabled", "0"))
			s.Cache.Servers[0].Save = nil
		}, Unknown},

		{"allkeys", "cache.tags", func(s *Sample, _ *Config) { s.Cache = redisOf(server("maxmemory_policy", "allkeys-lfu")) }, Fail},
		{"allkeys, accepted", "cache.tags", func(s *Sample, c *Config) {
			s.Cache, c.AllowTagIndexEviction = redisOf(server("maxmemory_policy", "allkeys-lfu")), true
		}, Warn},
		{"noeviction", "cache.tags", func(s *Sample, _ *Config) { s.Cache = redisOf(server()) }, OK},
		{"tags untold", "cache.tags", func(s *Sample, _ *Config) { s.Cache = redisOf(Server{}) }, Unknown},

		{"evictions grew", "cache.evictions", func(s *Sample, _ *Config) { s.Cache = redisOf(server("evicted_keys", "6")) }, Warn},
		{"evictions, first report", "cache.evictions", func(s *Sample, _ *Config) { s.Previous = nil }, OK},
		{"evictions, restarted clean", "cache.evictions", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("run_id", "two", "evicted_keys", "0"))
		}, OK},
		{"evictions, restarted and full", "cache.evictions", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("run_id", "two", "evicted_keys", "3"))
		}, Warn},
		{"evictions, counter reset", "cache.evictions", func(s *Sample, _ *Config) { s.Cache = redisOf(server("evicted_keys", "0")) }, OK},
		{"evictions untold", "cache.evictions", func(s *Sample, _ *Config) { s.Cache = redisOf(server("evicted_keys", "")) }, Unknown},

		{"memory at the threshold", "queue.memory", func(s *Sample, _ *Config) { s.Queue = redisOf(server("used_memory", "850")) }, Warn},
		{"memory below it", "queue.memory", func(s *Sample, _ *Config) { s.Queue = redisOf(server("used_memory", "849")) }, OK},
		{"memory gone", "queue.memory", func(s *Sample, _ *Config) { s.Queue = redisOf(server("used_memory", "930")) }, Fail},
		{"memory gone, evicting", "cache.memory", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("used_memory", "1000", "maxmemory_policy", "volatile-lfu"))
		}, Warn},
		{"no maxmemory", "queue.memory", func(s *Sample, _ *Config) { s.Queue = redisOf(server("maxmemory", "0", "used_memory", "5000")) }, OK},
		{"no maxmemory, machine full", "cache.memory", func(s *Sample, _ *Config) {
			s.Cache = redisOf(server("maxmemory", "0", "used_memory", "9900", "maxmemory_policy", "volatile-lfu"))
		}, Fail},
		{"no memory figures", "queue.memory", func(s *Sample, _ *Config) {
			s.Queue = redisOf(server("maxmemory", "0", "total_system_memory", ""))
		}, Unknown},
		{"fullest of two", "queue.memory", func(s *Sample, _ *Config) { s.Queue = redisOf(server("used_memory", "990"), server()) }, Fail},

		{"no worker", "workers", func(s *Sample, _ *Config) { s.Workers.Servers = nil }, Fail},
		{"lane unserved", "workers", func(s *Sample, _ *Config) { delete(s.Workers.Servers, tasks.LaneWarm) }, Fail},
		{"workers untold", "workers", func(s *Sample, _ *Config) { s.Workers.Err = boom }, Unknown},

		{"urgent lane late", "lane.invalidate", lane(tasks.LaneInvalidate, Lane{Oldest: 31 * time.Second}), Warn},
		{"urgent lane stuck", "lane.invalidate", lane(tasks.LaneInvalidate, Lane{Oldest: 301 * time.Second}), Fail},
		{"patient lane", "lane.warm", lane(tasks.LaneWarm, Lane{Oldest: 29 * time.Minute}), OK},
		{"patient lane late", "lane.warm", lane(tasks.LaneWarm, Lane{Oldest: 31 * time.Minute}), Warn},
		{"health lane late", "lane.health", lane(tasks.LaneHealth, Lane{Oldest: 301 * time.Second}), Warn},
		{"backlog", "lane.upkeep", lane(tasks.LaneUpkeep, Lane{Waiting: 10_001}), Warn},
		{"paused", "lane.release", lane(tasks.LaneRelease, Lane{Paused: true}), Warn},
		{"lane untold", "lane.release", lane(tasks.LaneRelease, Lane{Err: boom}), Unknown},
		{"archived", "tasks.archived", lane(tasks.LaneWarm, Lane{Archived: 1}), Warn},
		{"archived untold", "tasks.archived", lane(tasks.LaneWarm, Lane{Err: boom}), Unknown},

		{"pending old", "invalidations.pending", func(s *Sample, _ *Config) { s.Invalidations = Invalidations{Pending: 1, Oldest: 6 * time.Second} }, Warn},
		{"pending stuck", "invalidations.pending", func(s *Sample, _ *Config) { s.Invalidations = Invalidations{Pending: 1, Oldest: 61 * time.Second} }, Fail},
		{"lag none", "invalidations.lag", func(s *Sample, _ *Config) { s.Invalidations.Lag = invalidation.Lag{} }, OK},
		{"lag high", "invalidations.lag", func(s *Sample, _ *Config) { s.Invalidations.Lag = invalidation.Lag{Calls: 9, P99: 6 * time.Second} }, Warn},
		{"lag of one", "invalidations.lag", func(s *Sample, _ *Config) {
			s.Invalidations.Lag = invalidation.Lag{Calls: 900, P99: time.Second, Max: time.Hour}
		}, OK},
		{"lag very high", "invalidations.lag", func(s *Sample, _ *Config) { s.Invalidations.Lag = invalidation.Lag{Calls: 9, P99: 2 * time.Minute} }, Fail},
		{"lag not known", "invalidations.lag", func(s *Sample, _ *Config) { s.Invalidations.LagErr = errors.New("no") }, Unknown},
		{"freshness not known", "freshness", func(s *Sample, _ *Config) { s.Freshness = Freshness{} }, Unknown},
		{"freshness unreadable", "freshness", func(s *Sample, _ *Config) { s.Freshness.Err = boom }, Unknown},
		{"freshness never ran", "freshness", func(s *Sample, _ *Config) { s.Freshness.Err = tasks.ErrNotFound }, Unknown},
		{"freshness old", "freshness", func(s *Sample, _ *Config) { s.Freshness.Report.At = testNow.Add(-26 * time.Hour) }, Unknown},
		{"freshness no plan", "freshness", func(s *Sample, _ *Config) { s.Freshness = fresh(freshness.Result{Problem: "no plan"}) }, Unknown},
		{"freshness nothing comparable", "freshness", func(s *Sample, _ *Config) { s.Freshness = fresh(freshness.Result{Sampled: 50, NotComparable: 50}) }, Unknown},
		{"freshness one without a plan", "freshness", func(s *Sample, _ *Config) {
			s.Freshness.Report.Places = append(s.Freshness.Report.Places, freshness.Result{Problem: "no plan"})
		}, OK},
		{"freshness suspects", "freshness", func(s *Sample, _ *Config) { s.Freshness.Report.Places[0].Suspects = 3 }, OK},
		{"freshness stale", "freshness", func(s *Sample, _ *Config) { s.Freshness.Report.Places[0].Stale = 1 }, Fail},
		{"pending fresh", "invalidations.pending", func(s *Sample, _ *Config) { s.Invalidations = Invalidations{Pending: 900, Oldest: 5 * time.Second} }, OK},
		{"records lost", "invalidations.log", func(s *Sample, _ *Config) { s.Invalidations.Loss = lostBefore(59 * time.Minute) }, Fail},
		{"records lost today", "invalidations.log", func(s *Sample, _ *Config) { s.Invalidations.Loss = lostBefore(23 * time.Hour) }, Warn},
		{"records lost long ago", "invalidations.log", func(s *Sample, _ *Config) { s.Invalidations.Loss = lostBefore(25 * time.Hour) }, OK},
		{"loss untold", "invalidations.log", func(s *Sample, _ *Config) { s.Invalidations.Err = boom }, Unknown},
		{"failover made good", "invalidations.cache", func(s *Sample, _ *Config) { s.Invalidations.Failover = failover(time.Minute, false) }, OK},
		{"failover beyond the log", "invalidations.cache", func(s *Sample, _ *Config) { s.Invalidations.Failover = failover(59*time.Minute, true) }, Fail},
		{"failover beyond the log today", "invalidations.cache", func(s *Sample, _ *Config) { s.Invalidations.Failover = failover(23*time.Hour, true) }, Warn},
		{"failover beyond the log long ago", "invalidations.cache", func(s *Sample, _ *Config) { s.Invalidations.Failover = failover(25*time.Hour, true) }, OK},
		{"failover untold", "invalidations.cache", func(s *Sample, _ *Config) { s.Invalidations.FailoverErr = boom }, Unknown},
		{"log untold", "invalidations.pending", func(s *Sample, _ *Config) { s.Invalidations.Err = boom }, Unknown},

		{"entries half gone", "active.entries", func(s *Sample, _ *Config) { s.Active.Entries = 499 }, Warn},
		{"entries at half", "active.entries", func(s *Sample, _ *Config) { s.Active.Entries = 500 }, OK},
		{"uncertified", "active.entries", func(s *Sample, _ *Config) { s.Active = Active{Release: "r2"} }, Warn},
		{"none active", "active.entries", func(s *Sample, _ *Config) { s.Active = Active{} }, OK},
		{"not counted", "active.entries", func(s *Sample, _ *Config) { s.Active.CountedAt = time.Time{} }, Unknown},
		{"count failed", "active.entries", func(s *Sample, _ *Config) { s.Active.CountErr = boom }, Unknown},
		{"ledger untold", "active.entries", func(s *Sample, _ *Config) { s.Active.Err = boom }, Unknown},

		{"snapshot old", "snapshots", func(s *Sample, _ *Config) { s.Snapshots.VerifiedAt = testNow.Add(-169 * time.Hour) }, Warn},
		{"no snapshot to drill with", "drill", func(s *Sample, _ *Config) { s.Drills = Drills{} }, OK},
		{"no drill yet, snapshot young", "drill", func(s *Sample, _ *Config) { s.Drills = Drills{Since: testNow.Add(-time.Hour)} }, OK},
		{"no drill, snapshot old", "drill", func(s *Sample, _ *Config) { s.Drills = Drills{Since: testNow.Add(-193 * time.Hour)} }, Fail},
		{"drill good", "drill", func(s *Sample, _ *Config) {
			s.Drills = Drills{Since: testNow.Add(-999 * time.Hour), LastGood: testNow.Add(-time.Hour)}
		}, OK},
		{"drill old", "drill", func(s *Sample, _ *Config) {
			s.Drills = Drills{Since: testNow.Add(-999 * time.Hour), LastGood: testNow.Add(-193 * time.Hour)}
		}, Fail},
		{"drill not good since", "drill", func(s *Sample, _ *Config) {
			s.Drills = Drills{Since: testNow.Add(-999 * time.Hour), LastGood: testNow.Add(-time.Hour), Failed: "damaged"}
		}, Warn},
		{"drill untold", "drill", func(s *Sample, _ *Config) { s.Drills.Err = boom }, Unknown},
		{"no snapshot yet", "snapshots", func(s *Sample, _ *Config) { s.Snapshots = Snapshots{} }, OK},
		{"archived without", "snapshots", func(s *Sample, _ *Config) { s.Snapshots.Missing = []string{"r0"} }, Fail},
		{"snapshots untold", "snapshots", func(s *Sample, _ *Config) { s.Snapshots.Err = boom }, Unknown},

		{"rollback refused", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback.Err = fmt.Errorf("no standby: %w", tasks.ErrRefused) }, Warn},
		{"rollback not fresh", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback.Err = tasks.ErrNotFresh }, Warn},
		{"rollback not ready", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback.Err = boom }, Warn},
		{"rollback untold", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback.Err = context.DeadlineExceeded }, Unknown},
		{"rollback unasked", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback = Rollback{} }, Unknown},
		{"first release", "rollback.ready", func(s *Sample, _ *Config) { s.Rollback = Rollback{First: true} }, OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, cfg := healthy(), defaults(t)
			tt.change(&s, &cfg)
			c := find(t, Judge(s, cfg), tt.check)
			if c.Status != tt.want {
				t.Errorf("%s: got %s (%s), want %s", tt.check, c.Status, c.Detail, tt.want)
			}
			if (c.Status == Warn || c.Status == Fail) && c.Remedy == "" {
				t.Errorf("%s: %s without a remedy", tt.check, c.Status)
			}
			if c.Detail == "" {
				t.Errorf("%s: no detail", tt.check)
			}
		})
	}
}

func failover(age time.Duration, short bool) *invalidation.Failover {
	return &invalidation.Failover{At: testNow.Add(-age), From: testNow.Add(-age - time.Minute), Targets: 3, Removed: 2, Short: short}
}

func lostBefore(age time.Duration) *invalidation.Loss {
	at := testNow.Add(-age)
	return &invalidation.Loss{At: at, From: at.Add(-2 * time.Second), To: at.Add(-time.Second)}
}

func lane(name tasks.Lane, l Lane) func(*Sample, *Config) {
	return func(s *Sample, _ *Config) {
		i := slices.Index(tasks.Lanes(), name)
		l.Name = s.Lanes[i].Name
		s.Lanes[i] = l
	}
}

func TestJudgeHealthy(t *testing.T) {
	names := make(map[string]bool)
	for _, c := range Judge(healthy(), defaults(t)) {
		if c.Status != OK || c.Remedy != "" {
			t.Errorf("%s: got %s (%s; %s), want ok", c.Name, c.Status, c.Detail, c.Remedy)
		}
		if names[c.Name] {
			t.Errorf("two checks are named %q", c.Name)
		}
		names[c.Name] = true
	}
}

// TestStaleEntriesAreNamed: the remedy can be typed as it stands.
func TestStaleEntriesAreNamed(t *testing.T) {
	tag := freshness.Tag{Name: "author:ann", Entries: 3}
	c := judgeFreshness(fresh(
		freshness.Result{Release: "r1", State: "standby", Stale: 2, Tag: &tag},
		freshness.Result{Release: "r2", State: "active", Stale: 1, Entries: []freshness.Entry{{Key: "page:/a"}}},
		freshness.Result{Release: "r3", State: "ready"},
	), testNow)
	for _, want := range []string{"2 in r1 (standby)", "1 in r2 (active)", "tag author:ann", "key page:/a"} {
		if !strings.Contains(c.Detail+c.Remedy, want) {
			t.Errorf("no %q in %q, %q", want, c.Detail, c.Remedy)
		}
	}
	if c.Value != 3 || strings.Contains(c.Detail, "r3") {
		t.Errorf("%v: %s", c.Value, c.Detail)
	}
}

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		statuses []Status
		want     Status
	}{
		{nil, OK},
		{[]Status{OK, OK}, OK},
		{[]Status{OK, Unknown}, Unknown},
		{[]Status{Unknown, Warn, OK}, Warn},
		{[]Status{Fail, Warn, Unknown}, Fail},
	} {
		var checks []Check
		for _, s := range tt.statuses {
			checks = append(checks, Check{Status: s})
		}
		if got := Worst(checks); got != tt.want {
			t.Errorf("Worst(%v) = %s, want %s", tt.statuses, got, tt.want)
		}
	}
}

func TestFacts(t *testing.T) {
	s := healthy()
	s.Queue.Servers[0].Info["run_id"], s.Queue.Servers[0].Info["evicted_keys"] = "queue", "0"
	got := s.facts()
	want := map[string]int64{"one": 5, "queue": 0}
	if !maps.Equal(got.Evicted, want) || got.Release != "r2" || got.Entries != 990 || !got.CountedAt.Equal(testNow) {
		t.Errorf("got %+v", got)
	}
}

func TestParseInfo(t *testing.T) {
	got := parseInfo("# Memory\r\nused_memory:12\r\nexecutable:/usr/bin:x\r\n\r\n# Empty\r\nname:\r\n")
	want := map[string]string{"used_memory": "12", "executable": "/usr/bin:x", "name": ""}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		variable string
		change   func(*Config)
	}{
		{"STOKER_HEALTH_TIMEOUT", func(c *Config) { c.HealthTimeout = 0 }},
		{"STOKER_HEALTH_SNAPSHOT_AGE", func(c *Config) { c.HealthSnapshotAge = -1 }},
		{"STOKER_HEALTH_PENDING_FAIL", func(c *Config) { c.HealthPendingFail = time.Second }},
		{"STOKER_HEALTH_MEMORY", func(c *Config) { c.HealthMemory = 85 }},
		{"STOKER_HEALTH_ENTRIES", func(c *Config) { c.HealthEntries = 2 }},
		{"STOKER_HEALTH_BACKLOG", func(c *Config) { c.HealthBacklog = 0 }},
		{"STOKER_HEALTH_KEEP", func(c *Config) { c.HealthKeep = 0 }},
		{"STOKER_PROBE_CONCURRENCY", func(c *Config) { c.ProbeConcurrency = 0 }},
		{"STOKER_PROBE_CACHE_HEADER", func(c *Config) { c.ProbeCacheHeader = "" }},
	} {
		cfg := defaults(t)
		tt.change(&cfg)
		err := cfg.Validate()
		if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tt.variable) {
			t.Errorf("%s: got %v", tt.variable, err)
		}
	}
}

func TestAskGivesUp(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	_, err := ask(context.Background(), time.Millisecond, func(context.Context) (int, error) {
		<-block // as asynq's inspector, which knows no context
		return 1, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
}
