// Package release is the ledger: which releases an app has, the state of each, who moved it
// there and why, and which one is served.
//
// # States
//
//	new → warming → ready → active ⇄ standby → archived → expired
//	 ↑       │                 ↑        ↑          │
//	 └───────┘ (failed)        │        └ restoring ┘
//	                           └ one is active; the flip moves both
//
// A release is live in every state but archived and expired: its namespace receives
// invalidations. It is live before the first write to it, and what is served is always live.
//
// # Moves
//
// Every move is a compare-and-set in one script: it names the state it expects, and the script
// changes state, live set, pointer and history together or nothing. Of two commands at once one
// wins; the other is refused with the state it found. The flip changes two releases and the
// active pointer in one step, so there is never a moment with two active releases or none.
//
// A release whose namespace has an unfinished writer (an open mark, see package invalidation)
// can become neither ready nor active: what that writer put is suspect until its last check.
//
// # Versions
//
// A record's version (tasks.Ledgers) is read before anything else of it. A process that does not read it
// refuses to move, pin or write to the release; invalidations reach its namespace all the same, for the live
// set needs no record. Fields and documents that are not known are left alone.
//
// # Not promised
//
// A move is as durable as the queue Redis: one that fsyncs every second can lose the last
// second of moves with the machine. A lost reply leaves the caller not knowing; asking again is
// safe, because a move that already happened is reported as refused with the state it led to.
package release
