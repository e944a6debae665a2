// Package scheduler turns cron entries into tasks. It knows task types and their payloads, and
// no handler: what a task does is the worker's business.
//
// # The tick protocol
//
// A tick is one moment that an entry's cron expression names, in the schedule's time zone; it is
// identified by its UTC instant, to the minute. Any number of schedulers run side by side
// without knowing of one another. Each of them, for every tick:
//
//  1. looks up the entry's last tick (a HASH in the queue Redis) and stops when it is this one
//     or a later one;
//  2. enqueues the task under an ID made of entry and tick. asynq refuses an ID that it holds
//     already, so one scheduler wins; the others count that as success. The ID stays taken while
//     the task waits or runs and at least ten minutes after it has succeeded, for schedulers
//     that come late;
//  3. advances the entry's last tick, which never goes back.
//
// # Missed ticks
//
// At its start, after every change of the file and twice a minute, a scheduler compares each
// entry's last tick with the latest that should have been. If that one is newer it is enqueued:
// once, however many were missed in between. An entry that has never been seen starts with the
// next tick. The same way a tick whose enqueueing has failed is made up for.
//
// # asynq's scheduler
//
// The clock that rings is asynq's own, so that operators see every entry with its next and last
// run in the asynq UI. Its enqueueing is not used: it sends a payload fixed beforehand, and
// changing its options at each tick would race with its heartbeat, which reads them. Each entry
// is registered with an empty task ID, which asynq refuses before it calls Redis; the tick is
// taken in the function that asynq calls just before that.
//
// # Summer time
//
// An hour that is skipped in spring has no ticks, and one that comes twice in autumn has its
// ticks twice, for they are different instants. A daily entry that must run once every day
// belongs outside that hour (02:00 to 03:00 in most of Europe).
//
// # Not promised
//
// Exactly once: a scheduler that dies between steps 2 and 3, followed by none for longer than
// the task's ID is kept, enqueues a tick twice. Every task is safe twice.
package scheduler
