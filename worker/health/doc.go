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
//
// # What is not promised
//
// A verdict speaks of the pages that the plan's probes name, as seen from where the worker runs.
// A report is as old as the last health task; [Monitor.Latest] says how old.
package health
