// Package web is what operators see in a browser, what monitoring reads and what app servers call:
// the first page, one page a release, asynq's own UI, probes, metrics and the API for
// invalidations. It reads the rooms' records; the only writes are those of asynq's UI and the
// API's, behind the guard.
//
//	route                       scope        what
//	GET /                       view         releases, what is served, whether a rollback is safe, lanes, health
//	GET /releases/…             view         one release: notes, moves, documents
//	/queues/…                   view         asynq's UI, read-only
//	/queues/…                   operate      the same, with its buttons
//	GET /metrics                view         Prometheus
//	POST /v1/invalidations      invalidate   a call, a batch or a stream of calls
//	GET /v1/invalidations/…     any          what became of one
//	GET /v1/openapi.json        any          the API's description; deploy/api.md has examples
//	GET /healthz                none         the process is up
//	GET /readyz                 none         both Redises answer
//
// # The guard
//
// Every request passes, from the outside in: security headers; the audit line (writes only, one a
// request, whatever came of it); the limit on bodies; the same-origin check on writes; then, a
// route at a time, who asks and whether they may.
//
// Without a tokens file the server must be bound to loopback, and whoever reaches it may operate:
// the machine's own users. A page elsewhere could still reach it through the operator's browser,
// so the Host header must name the machine itself (a name an attacker resolves to 127.0.0.1 does
// not), requests that a proxy forwarded are refused, and writes must come from the same origin.
//
// With a tokens file everybody needs a token, on loopback as well. Wrong ones are slowed down by
// remote address.
//
// # Recording
//
// An answer of 202 is [tasks.Client.Invalidate]'s promise: the call is recorded and cannot be lost.
// After 429, 503 or no answer it may or may not be, and the client sends it again, which is
// harmless; after any other nothing is, but of a stream the lines before the bad one.
//
// An Idempotency-Key spares the second record: the key is claimed in the queue Redis (SET NX, for
// a minute), the calls are recorded, and their numbers are kept in its place for 24 h. A process
// that dies in between leaves the claim to expire.
//
// # Not promised
//
// No TLS: put a proxy before it. Behind a proxy all clients share its address, and with it the
// slow-down for wrong tokens. The tokens file is read once, at the start.
package web
