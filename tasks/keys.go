package tasks

import (
	"strconv"
)

// Keys names stoker's own keys and channels of one app. They all begin with
// "stoker:{<app>}:", so that they share one hash slot and a script may touch any of them; but for
// [Keys.Watermark] and [Keys.SlotFence]. All but these two, [Keys.Fence] and [Keys.DumpProbe] live in
// the queue Redis.
type Keys struct{ app, prefix string }

// KeysOf returns the names for app, which must be valid.
func KeysOf(app string) Keys { return Keys{app, "stoker:{" + app + "}:"} }

// Log is a ZSET: a key or tag target ("k:…", "t:…") → the number of its last invalidation.
func (k Keys) Log() string { return k.prefix + "log" }

// Prefixes is a ZSET: a prefix target ("p:…") → the number of its last invalidation.
func (k Keys) Prefixes() string { return k.prefix + "log:prefixes" }

// LogMeta is a HASH: epoch, last (number given), floor (every invalidation above it is in the log).
func (k Keys) LogMeta() string { return k.prefix + "log:meta" }

// Pending is a ZSET: record of invalidations not yet applied everywhere → its number.
func (k Keys) Pending() string { return k.prefix + "pending" }

// Claims is a ZSET: number of a pending record → when its worker's claim on it ends, in Unix
// microseconds.
func (k Keys) Claims() string { return k.prefix + "pending:claims" }

// Bulk is a SET of the numbers of pending records that were left to the bulk lane.
func (k Keys) Bulk() string { return k.prefix + "pending:bulk" }

// Partial is a HASH of what was removed so far for a record in the bulk lane: <call> <release> →
// entries.
func (k Keys) Partial(number int64) string {
	return k.prefix + "pending:removed:" + strconv.FormatInt(number, 10)
}

// Applied is a ZSET of what was applied, with what it removed, scored by number; capped.
func (k Keys) Applied() string { return k.prefix + "applied" }

// Nudge is the channel that tells workers of a new record.
func (k Keys) Nudge() string { return k.prefix + "nudge" }

// Idempotency is a STRING: what the API's request with that key was answered, as JSON; it expires.
func (k Keys) Idempotency(key string) string { return k.prefix + "idempotency:" + key }

// Session is a STRING: who signed in to the console by browser, as JSON, by the hash of the browser's
// secret; it expires.
func (k Keys) Session(sum string) string { return k.prefix + "session:" + sum }

// SignIn is a STRING: what a sign-in under way at a provider needs when it returns, as JSON, by the
// hash of its state; it expires.
func (k Keys) SignIn(sum string) string { return k.prefix + "signin:" + sum }

// Releases is a ZSET: release ID → time of creation in Unix microseconds.
func (k Keys) Releases() string { return k.prefix + "releases" }

// Release is the HASH of one release's record.
func (k Keys) Release(id string) string { return k.prefix + "release:" + id }

// History is a LIST of one release's moves as JSON, oldest first.
func (k Keys) History(id string) string { return k.prefix + "history:" + id }

// Active is a STRING: the active release's ID.
func (k Keys) Active() string { return k.prefix + "active" }

// ActiveChannel is the channel that tells of a change of the active release: its ID.
func (k Keys) ActiveChannel() string { return k.prefix + "active" }

// Live is a SET of the releases whose namespaces receive invalidations.
func (k Keys) Live() string { return k.prefix + "live" }

// Marks is a ZSET of one namespace's unfinished writers → their mark.
func (k Keys) Marks(release string) string { return k.prefix + "marks:" + release }

// Readers is a ZSET of unfinished readers (snapshots) → their mark; it holds the log back.
func (k Keys) Readers() string { return k.prefix + "readers" }

// Run is the HASH of one warm run.
func (k Keys) Run(id string) string { return k.prefix + "run:" + id }

// RunOpen is a SET of a warm run's batches not yet finished.
func (k Keys) RunOpen(id string) string { return k.prefix + "run:" + id + ":open" }

// RunURLs is a LIST of the addresses that one crawl source of a run visits.
func (k Keys) RunURLs(id, source string) string { return k.prefix + "run:" + id + ":urls:" + source }

// Runs is a ZSET of a release's warm runs → time in Unix microseconds.
func (k Keys) Runs(release string) string { return k.prefix + "runs:" + release }

// Origin is a HASH of one origin that warms read from: hold → until when nobody may ask it, and
// w:<worker> → its lease on a part of the ceilings.
func (k Keys) Origin(name string) string { return k.prefix + "origin:" + name }

// Origins is a HASH: a process and an origin → how its limiter there stood last, as JSON; it expires.
func (k Keys) Origins() string { return k.prefix + "origins" }

// Dirty is a HASH: a key of the release that is to be refreshed → the number of the invalidation that
// last removed it.
func (k Keys) Dirty(release string) string { return k.prefix + "dirty:" + release }

// DirtyQueue is a ZSET of the dirty keys that may be loaded → their rank, the hottest lowest.
func (k Keys) DirtyQueue(release string) string { return k.prefix + "dirty:" + release + ":queue" }

// DirtyRest is a ZSET: a key that was loaded of late → when it may be again, in Unix milliseconds.
func (k Keys) DirtyRest(release string) string { return k.prefix + "dirty:" + release + ":rest" }

// DirtyLease is a STRING: who drains the release's dirty keys; it expires.
func (k Keys) DirtyLease(release string) string { return k.prefix + "dirty:" + release + ":lease" }

// DirtyReleases is a SET of the releases with dirty keys.
func (k Keys) DirtyReleases() string { return k.prefix + "dirty" }

// Cursor is a STRING that holds how far a task has come, so that a retry resumes.
func (k Keys) Cursor(taskID string) string { return k.prefix + "cursor:" + taskID }

// Starts is a STRING that counts a task's starts without an end: the cap on lost leases.
func (k Keys) Starts(taskID string) string { return k.prefix + "starts:" + taskID }

// Watch is a STRING: what the watch of a release has seen so far, as JSON; it expires.
func (k Keys) Watch(release string) string { return k.prefix + "watch:" + release }

// Told is a HASH: subject → what people were last told of it, as JSON.
func (k Keys) Told() string { return k.prefix + "told" }

// Health is a LIST of health reports as JSON, newest first; capped.
func (k Keys) Health() string { return k.prefix + "health" }

// Freshness is a LIST of the freshness monitor's reports as JSON, newest first; capped.
func (k Keys) Freshness() string { return k.prefix + "freshness" }

// Suspects is a HASH: release, NUL, logical key → an entry that differs from its origin, as JSON.
func (k Keys) Suspects() string { return k.prefix + "freshness:suspects" }

// Ticks is a HASH: scheduler entry → its last tick enqueued, in Unix seconds.
func (k Keys) Ticks() string { return k.prefix + "ticks" }

// Works is a HASH: a process → its last report of work on namespaces, as JSON; it expires.
func (k Keys) Works() string { return k.prefix + "works" }

// Processes is a ZSET: a process that runs, as JSON → when it last said so, in Unix seconds of the queue
// Redis's clock; it expires.
func (k Keys) Processes() string { return k.prefix + "processes" }

// CacheServers is a HASH of what is known of the cache Redis: servers, those that lack no removal, and
// failover, the last one that was made good, as JSON.
func (k Keys) CacheServers() string { return k.prefix + "cache:servers" }

// Drills is a HASH of the scratch namespaces that drills have not removed yet → whose they are, as
// JSON.
func (k Keys) Drills() string { return k.prefix + "drills" }

// Fence is a STRING in the cache Redis: who alone may delete the release's keys in bulk.
func (k Keys) Fence(release string) string { return k.prefix + "fence:" + release }

// SlotFence is [Keys.Fence] on a cache Redis that is a Cluster, in the slot that a hash tag names.
func (k Keys) SlotFence(release, tag string) string {
	return "stoker:{" + tag + "}:fence:" + k.app + ":" + release
}

// Followers is a STRING in the cache Redis: how many replicas a server has had, behind its identity. It is
// written behind other things: a replica that has it has those. On a Cluster tag names the slot; it is "" elsewhere.
func (k Keys) Followers(tag string) string {
	if tag == "" {
		return k.prefix + "followers"
	}
	return "stoker:{" + tag + "}:followers:" + k.app
}

// Watermark is a STRING on one server of the cache Redis, as JSON: up to where the log is applied
// there. n is 0 but on a Cluster, where each n lies in a slot of its own: some are on every server.
func (k Keys) Watermark(n int) string {
	if n == 0 {
		return k.prefix + "watermark"
	}
	return "stoker:{" + k.app + ":" + strconv.Itoa(n) + "}:watermark"
}

// DumpProbe is a STRING in the cache Redis, for one transaction: what a DUMP of it looks like.
func (k Keys) DumpProbe() string { return k.prefix + "dump-probe" }

// InvalidationTaskID is the asynq ID of the task that applies records from that number on.
func InvalidationTaskID(number int64) string { return "inv-" + strconv.FormatInt(number, 10) }

// BulkTaskID is the asynq ID of the bulk lane's task for the record with that number.
func BulkTaskID(number int64) string { return "bulk-" + strconv.FormatInt(number, 10) }
