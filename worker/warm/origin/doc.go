// Package origin keeps warms gentle to what they read from: it decides how many requests may be under
// way at a site's origin, and when. All workers of an app share one origin.
//
// # The rule
//
// The first requests go alone, one after the other. How long they take is the origin's idle time, by a
// high quantile, so that pages of different weight are compared as a mix. From then on the number of
// requests at a time follows how much slower they are than that:
//
//	ratio   = high quantile of a window of requests / idle time
//	next    = limit × (tolerance − 1) / (ratio − 1)      within half and twice the limit
//
// which is the limit that would meet the tolerance if latency grew in proportion. Tolerance is 1.5, so
// that the 95th percentile stays below twice its idle value. Once a limit was too high it grows by one
// a window, and each time that was too high as well the next try comes later, by up to
// 62 times of a request. One request at a time that is slow lowers nothing: then it is not the load.
// Only requests that began after the limit's last change count. Every quarter of a minute, by the clock of the queue Redis, all
// workers go down to one request at a time for a moment and take the idle time anew: a limiter that
// compares with a moving average of its own load follows that load upwards (failsafe-go's adaptive
// limiter let the latency grow to 4.6 times its idle value within a minute, where it grows by a fifth
// with every request).
//
// Answers within [Quick] are never too slow. The picture origin.svg, which `make plot` draws by playing this
// package against an origin in a test's own time, shows the rule and what comes next at work.
//
// # Trouble
//
// An answer of 429 or 5xx, a request without an answer and one that takes too long are trouble. A window
// with a tenth of it halves the limit. Where most requests are trouble a circuit breaker opens: nothing
// is sent for some seconds, then one request, and when that succeeds the ramp begins again at one.
// Retry-After closes the origin to all workers until then. An origin that gave nothing but trouble for
// STOKER_ORIGIN_PATIENCE, or asks for more than that, is away: who waits for it fails at once, so that
// a run ends and can say what is missing; a request every few seconds finds out whether it is back.
//
// # Shared among workers
//
// In the queue Redis, an origin has one hash. Every worker that reads from it renews a lease there twice a
// second and is granted a part of the two ceilings, STOKER_ORIGIN_CONCURRENCY and STOKER_ORIGIN_RATE. What
// is granted never adds up to more than a ceiling: a newcomer gets what is left, and the others give
// back at their next renewal what is more than their share, and no sooner than it is unused. A worker that
// could not renew stops by itself before its lease ends. No request waits for Redis.
//
// # The brake
//
// What else tells to go slower (the cache Redis's latency, invalidations that wait) divides the limit;
// a cache Redis without room ends the warm, with an error.
//
// # Not promised
//
// Workers do not know one another's latencies: each finds its own limit within its grant, and where
// together they are too much, all see it. Where a ceiling is lower than the number of workers, some wait
// until others are done.
package origin
