// Package refresh reloads entries from the plan's sources after an invalidation that asked for it.
//
// # Words
//
//	dirty    a key of a release that was removed and shall be loaded again, with the number of the
//	         invalidation that last removed it
//	drain    one task's work: it loads a release's dirty keys, hottest first, until none is left
//	lease    who drains a release: one task at a time, so a key is loaded by one at a time
//	rest     a key that was taken rests for a second before it may be taken again
//
// # An invalidation with refresh
//
//	1  note     before the removal, because afterwards nobody knows what was hot, or what lay under
//	            a prefix: the targets' keys become dirty, in the queue Redis
//	2  remove   as always
//	3  ask      a task to drain the release, unless one is at it
//
// A drain repeats, until no key is dirty and none rests:
//
//	4  take     the hottest keys with their numbers; from now on they rest
//	5  lease    the keys, as an app server does that fills them; a key that one fills is left to rest
//	6  mark     a key whose number lies above the mark was taken too early and is left to rest
//	7  load     ask the sources for the entries as they are now
//	8  put, check, settle: see package tasks. What an edit overtook is dropped and left to rest
//	9  done     a key is clean if its number is still the one it was taken with
//
// A key that is edited again and again is therefore loaded about once a second, and once more after
// the last edit: its number has changed by then, or the check has failed, and either keeps it dirty.
//
// # What is never stale
//
// A load is a fill like an app server's (see package tasks): its value is on probation until it is
// checked, so it needs no open mark, holds up no activation and leaves nothing behind when it dies.
// A crawl's page is filled by the site itself.
//
// # What happens on failure
//
// A worker that dies after (1) leaves the invalidation pending: the next to apply it notes again. One
// that dies in a drain leaves its lease to end and its keys to rest; they are still dirty, and the
// sweep asks for another task. A source that cannot be read makes the task fail and try again later;
// keys that could not be loaded for an hour are given up. A key that alone cannot be loaded is
// counted and given up at once: the site fills it when it is asked for.
//
// # Not promised
//
// That everything is reloaded: one invalidation refreshes at most Config.RefreshLimit keys of a
// release, the hottest of the first ten times as many; a log line says when it was more. A release
// without a plan, and keys that no source of it owns, are counted and left to the site.
package refresh
