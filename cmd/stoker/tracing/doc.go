// Package tracing sends OpenTelemetry traces to a collector, when the environment names one.
//
// # One trace
//
//	app's own span
//	└ invalidate                tasks.Client.Invalidate, in the app
//	  ├ EVALSHA                 the record, in the queue Redis (where the app's client is traced)
//	  ├ enqueue cache:invalidate
//	  │ └ process cache:invalidate      in a worker, once for each try
//	  └ apply invalidations     in the worker that was first, with the commands to the cache Redis below it
//
//	stoker warm                 the command line, the console's form, or a tick of the schedule
//	└ enqueue warm:run
//	  └ process warm:run
//	    └ enqueue warm:batch
//	      └ process warm:batch          in any worker
//	        ├ GET                       the origin, which is told of the trace as well
//	        └ EVALSHA, PIPELINE         Redis
//
// The trace's context travels in a task's headers, as the W3C's traceparent and tracestate, and with
// each call in the record of the invalidation log, because a record is usually applied before its
// task is taken up. Calls that were recorded together, or are applied together, each have
// a span in their own trace; the commands to Redis are below one of them, to which the others are linked.
//
// # What is never in a span
//
// Keys, values, tags, targets, the arguments of commands, queries of addresses, passwords. Spans name commands,
// task types, task IDs, releases' lanes, hosts and paths.
//
// # What it costs
//
// Without a collector's address in the environment nothing is wired: no hook, no transport, no handler,
// and what is left is a comparison with nil. With one, spans are queued in memory and sent in batches
// by a goroutine of their own: when the collector is slow or down, spans are dropped and work goes on.
// Only commands and requests within a recorded trace make spans, so polling makes none.
package tracing
