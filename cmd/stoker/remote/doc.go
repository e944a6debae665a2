// Package remote is the command line's way to the API of a `stoker web`: one request an operation, JSON there
// and back.
//
// Every write carries an Idempotency-Key of its own, so a request whose answer was lost is sent again without
// its being done twice: up to three times within some seconds, when no connection came about, when it broke, or
// when a proxy or the server said that it cannot now (502, 503, 504). Redirects are not followed: they would
// take the token elsewhere.
//
// A problem that the API answers (RFC 9457) becomes an error with the words and the cause that the operation
// gave it at the server, so that commands end with the same message and exit code as beside the Redises. One
// of the guard (401, 403) wraps [tasks.ErrRefused].
package remote
