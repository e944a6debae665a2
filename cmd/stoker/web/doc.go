// Package web is what operators see in a browser, what monitoring reads and what app servers call:
// the console's pages, asynq's own UI, probes, metrics and the API for
// invalidations. It reads the rooms' records and does no work itself: actions are carried out by
// tasks, whose progress it shows.
//
//	route                       scope        what
//	GET /                       view         releases, what is served, whether a rollback is safe, lanes, health
//	GET /releases               view         all releases and a timeline
//	GET /releases/…             view         one release: warm run, figures, notes, moves, documents, the whole note
//	GET /invalidations          view         the feed, with a search
//	GET /health                 view         each check and what it was before
//	GET /schedule               view         entries, last and next ticks, missed ones
//	/queues/…                   view         asynq's UI, read-only
//	/rollback, /invalidate, …   operate      actions: the plan first, then, with a reason, the deed
//	/releases/…/notes           operate      the notes' editor, with a preview
//	GET /tasks/…                view         how far a task has come
//	/queues/…                   operate      the same, with its buttons
//	GET /metrics                view         Prometheus
//	POST /v1/invalidations      invalidate   a call, a batch or a stream of calls
//	GET /v1/invalidations/…     any          what became of one
//	GET /v1/openapi.json        any          the API's description; deploy/api.md has examples
//	/signin…, POST /signout     none         signing in and out by browser
//	GET /assets/…               none         style sheet, script and icon
//	GET /healthz                none         the process is up
//	GET /readyz                 none         both Redises answer
//
// # The guard
//
// Every request passes, from the outside in: security headers; the audit line (writes only, one a
// request, whatever came of it); the limit on bodies; the same-origin check on writes; then, a
// route at a time, who asks and whether they may.
//
// Where nobody has to sign in the server must be bound to loopback, and whoever reaches it may
// operate: the machine's own users. A page elsewhere could still reach it through the operator's
// browser, so the Host header must name the machine itself (a name an attacker resolves to
// 127.0.0.1 does not), requests that a proxy forwarded are refused, and writes must come from the
// same origin.
//
// With any of the three ways to sign in, everybody has to, on loopback as well. Who asks is, in this
// order:
//
//  1. whom a trusted proxy names in its header. The header from anywhere else is refused, with a line in
//     the log; so is one that names nobody, or two
//  2. whose token the Authorization header bears (programs, curl --user NAME:TOKEN). Wrong ones
//     are slowed down by the address they come from: the proxies' X-Forwarded-For is believed from the
//     right, up to the first address that is no proxy of ours
//  3. whose session the cookie belongs to: begun with a token by the form, or at an OpenID Connect
//     provider (authorisation code, PKCE, a state and a nonce that are good once)
//
// A token has the scope that its line names. Those whom others sign in may view, and operate when
// STOKER_WEB_OPERATORS names them by what they cannot choose themselves: the proxy's user name, the
// provider's subject or verified address, a group.
//
// Sessions live in the queue Redis under the hash of the cookie's value, end after STOKER_WEB_SESSION
// whatever is done in them, and end with the token that they began with.
//
// # Actions
//
// GET shows the plan: what would happen now, about how long it takes, or why it would be refused. The form
// carries what the plan is about and what it rests on (the active release, the state of the other one, whether the
// lane is paused). POST makes the plan anew and does the deed only when both are the same, so neither a
// second click nor a colleague's switch in between does what nobody looked at; the rooms check once more. All of it
// works without scripts.
//
// # Live pages
//
// A page's own address answers a request that accepts text/event-stream with a stream (server-sent events): the
// whole page whenever what it shows has changed, and else the time, so that something is sent at every look, at
// least every 15 s. It is the page's handler that is asked, for whoever asks: a stream shows what the page would.
// At each look the guard identifies the sender anew; who is nobody any more gets the event "end" and no more. A stream
// lasts an hour at most, there are 64 at once at most, and they end when the server stops. The script puts the
// page's main part in place of the one shown, except under the hands of who types or selects.
//
// # Notes
//
// Notes are written by people and shown as Markdown that package health has quoted and goldmark renders without HTML.
// Saving names the notes that were edited, so that nobody's are overwritten unseen.
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
// No TLS: put a proxy before it, and name it (STOKER_WEB_PROXIES), or all clients share its address
// and with it the slow-down for wrong tokens. The tokens file is read once, at the start. A provider is
// asked when somebody signs in and not again: who is shut out there stays signed in here until the
// session's end.
package web
