// Package demo is a small content site of its own, people who read it, and the story that
// `stoker demo` tells with them.
//
// # The cast
//
//   - [Corpus]: articles, and the edits that will be made to them; generated, or from files.
//   - store: an embedded SQL database, every query as slow as a database across a network.
//   - [Site]: one build of the site. Builds r1 and r2 render the same database into different
//     HTML, so that neither may serve what the other cached.
//   - front: what visitors reach. It follows the active release to that build.
//   - plain: the same site, deployed as is usual today: one cache, deletes on edit, a flush
//     on every deploy and every rollback. It goes through the same story at the same time.
//   - editor: applies edits, commits each and invalidates what it changed.
//   - visitors: read both sites all the while and judge every page they are given.
//   - [Operator]: stoker, as the story sees it.
//
// # What is stale
//
// Every edit has a number. Every page and fragment carries a stamp for each invalidation tag
// it depends on: the number of the last edit that changed it. A visitor notes, before asking,
// up to which number all edits have been applied, and calls the page stale when a stamp is
// older than the last such edit of that tag. Edits still under way are nobody's fault.
//
// Stamps say nothing about a bug that forgets a tag. So the story settles at the end of each
// phase: the editor pauses, and every page there is, and every page there was, is compared
// byte by byte with what the database says. Those requests forbid storing, so that looking
// does not warm the cache.
package demo
