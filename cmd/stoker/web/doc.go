// Package web is what operators see in a browser and what monitoring reads: the first page, one
// page a release, asynq's own UI, probes and metrics. It reads the rooms' records and changes
// nothing itself; the only writes are those of asynq's UI, behind the guard.
//
//	route            scope      what
//	GET /            view       releases, what is served, whether a rollback is safe, lanes, health
//	GET /releases/…  view       one release: notes, moves, documents
//	/queues/…        view       asynq's UI, read-only
//	/queues/…        operate    the same, with its buttons
//	GET /metrics     view       Prometheus
//	GET /healthz     none       the process is up
//	GET /readyz      none       both Redises answer
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
// # Not promised
//
// No TLS: put a proxy before it. Behind a proxy all clients share its address, and with it the
// slow-down for wrong tokens. The tokens file is read once, at the start.
package web
