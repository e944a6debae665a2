// Package health looks: at both Redises and the lanes every minute, at the site's pages before and
// after a switch, and at the installation when asked. It changes nothing but its own records.
//
// # Gathering and judging
//
// Everything here is done in two steps. Gathering does the I/O, each question with its own
// timeout, and ends in a plain struct ([Sample], [Baseline], [Setup]); a question that was not
// answered leaves its error there and spoils nothing else. Judging ([Judge], [Compare],
// [Diagnose]) is pure, so that every rule is a row of a table in a test.
//
// # Words
//
//   - check: one question with its answer: ok, unknown, warn or fail, in that order of weight.
//     Unknown means that the server would not say (an embedded Redis has no INFO to speak of,
//     an ACL may withhold CONFIG); it is never counted as a failure.
//   - report: all checks of one moment. Its status is the worst of theirs.
//   - baseline: how the site's pages answered, measured under one release.
//   - verdict: two baselines compared: better, same, worse or inconclusive. Too little
//     evidence is inconclusive, never same.
//   - first visit: the first request for a page in a baseline, or in a watch's first look. Right after
//     a switch these show whether the cache was warm; they are compared with one another only.
//   - look: one measurement of a watch. Watch: all looks since one switch, and what follows from them.
//
// # How two measurements are compared
//
// Seven measures: errors, latency, slow tail, database calls and hit rate of later visits, latency and hit
// rate of first visits ([Compare]). A measure is worse when the difference is both unlikely to be
// chance and large enough to matter ([minRequests] and what stands below it).
//
//   - Latency is compared page by page: ranks within each page, summed over the pages (the
//     Mann-Whitney-Wilcoxon test as P. van Elteren stratified it), so that a slow page that is asked for
//     more often is not a slower site.
//   - With a cache most answers make no database call, and a mean over all of them scatters so much
//     that three times the calls pass for chance. So two questions are put instead: do more answers make
//     any (R. A. Fisher's exact test), and do those that do make more (the test above, page by page)?
//   - Shares (errors, misses, slow answers) are compared by Fisher's exact test.
//   - The same is claimed only where a rise of the errors by 1 % and a slowdown by a quarter are ruled
//     out with 95 % confidence.
//
// False alarms are bounded for all measures together ([falseAlarm]): errors take half, the others share
// the rest; a watch divides each part by the number of its looks.
//
// # A watch
//
//  1. activating a release enqueues look 0
//  2. measure the site while the release is active; otherwise the watch ends
//  3. keep the answers with those of the looks before (Keys.Watch), once however often the task is
//     tried; compare all of them with the baseline of the release before
//  4. write verdict and watch into the ledger: from here on the look has been taken, and a retry
//     only repeats what follows, each part of which has an ID that makes it happen once
//  5. clearly worse, or the last look: tell people. Clearly worse and allowed to: note that the rollback
//     is asked for, and enqueue release:rollback, which refuses what is not fresh, or when the release is
//     not the active one any more
//  6. otherwise enqueue the next look
//
// Errors are clear at once. Anything else is clear when two looks in a row say worse and the second by itself
// as well, for a later visit's measure: a moment's load is not the release's fault, and a cold cache
// passes.
//
// # What is not promised
//
// A verdict speaks of the pages that the plan's probes name, as seen from where the worker runs. The test
// takes chance into account, not the time of day: a baseline of Sunday says little of Monday, and
// what slows the whole machine for two looks in a row passes for the release's fault. To exclude that, ask
// both releases at the same time ([Monitor.ComparePages]).
// A report is as old as the last health task; [Monitor.Latest] says how old.
package health
