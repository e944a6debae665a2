// Package worker runs the lanes: it takes tasks off asynq's queues, hands each to the handler of
// its type, and makes asynq keep the promises that the rest of stoker builds on. It knows every
// verb by a small interface and does no work of its own beyond activating a release. [ServeWarm] alone
// wires a verb: it is the door for a site with sources of its own.
//
// # A lane
//
// A lane is one asynq server with its own queue, concurrency and polling interval, so that work
// that may wait never delays work that may not. A process serves all lanes or those it is told to.
//
// # A task's way
//
//  1. A worker that is draining gives the task back untouched.
//  2. The task's starts are counted. More than [MaxStarts] starts without an end mean that it
//     kills its workers: it is archived instead of run.
//  3. The handler decodes the payload and calls its verb with a [tasks.Job]: cursor, progress,
//     draining. A panic becomes an error, its stack goes to the log.
//  4. The handler's end takes the count away; success takes the cursor away as well and leaves
//     the result in the task, as JSON.
//  5. The error's cause decides in one table ([verdicts]) what becomes of the task: retried later,
//     retried at once without a cost, left for a newer worker, or archived. Whoever waits for an
//     archived task finds the cause in its result ([tasks.Failure]).
//
// # What is newer
//
// During an upgrade old and new workers share the lanes. A task that an old one cannot read (its
// payload, its cursor, the release's record, the archive, its very type) changes nothing there: it
// rests, at no cost, for half a second, and after some times for ever longer, up to a minute, until a
// newer worker takes it. Its last error says which version was seen and which is understood, each
// worker logs it once, and whoever waits for the task is told. Where asynq archives it nevertheless, on
// its last retry, the next round of any worker runs it again.
//
// # What asynq does of itself, and what is done about it
//
//   - A failed acknowledgement is tried again on a context that is cancelled already, so that a
//     finished task runs a second time a minute later: [ackHook] gives such calls a context.
//   - On an error of Redis the dequeue loop spins: [backoffHook] makes it pause.
//   - A killed worker's task comes back after 55 to 170 seconds and costs a retry: it costs none
//     here, is run at once then, and step 2 bounds how often. Invalidations do not wait for it:
//     every worker looks at the log four times a second.
//   - A task on its last retry is archived when its handler returns any error, even one that only
//     says that the worker stops: such a handler is held back until asynq returns the task to
//     its queue at the end of the grace period.
//   - Archives and completed tasks grow: [Queues] prunes them.
//
// # Stopping
//
// Stop closes the jobs' draining channel, then shuts all lanes down at once. Handlers finish
// their slice, save their cursor and return [tasks.ErrDraining]; another worker goes on at once.
// A handler that does not return within the grace period loses its task to the queue, its
// context is cancelled, and Stop waits a moment longer for it before it returns regardless.
//
// A pause of the warm or the refresh lane closes the channel of its running tasks as well, within a
// quarter of a second: they return to the queue with their cursors and wait there.
//
// # Not promised
//
// Exactly once. A handler may run again after it has succeeded (the process died before the
// acknowledgement), and beside its own retry (it outlived its timeout): every verb is safe twice.
package worker
