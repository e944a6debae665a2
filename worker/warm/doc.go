// Package warm fills a release's namespace before visitors come, and certifies the result.
//
// # Words
//
// A plan names sources; a run carries out a plan for one release; a batch is one task's part of
// a run; a chunk is what a batch reads, writes and counts at a time.
//
// # A run
//
//	claim    one run a release; the release moves from new or ready to warming. An active or
//	         standby release may be warmed as well and stays what it is.
//	cut      the hot list is read. Each query and carry is one batch; a crawl's addresses are
//	         listed and cut into batches. What visitors want most of a crawl or a query makes
//	         batches of its own, which go first. The plan is copied into the run's record first,
//	         so it cannot change.
//	open     the IDs of all batches become the run's open set, in one step. Only then
//	enqueue  are the batches enqueued, under task IDs made of run and batch: a try that died
//	         between two of them is repeated and makes none twice.
//	batch    in any order, on any worker; the last to leave the open set finishes the run.
//	finish   certificate, then the ledger (warming → ready on a pass, back to new otherwise),
//	         then the run's status. Each step may be repeated.
//
// # A batch
//
//	1  open the mark, signed with the task's ID          a retry keeps the first mark
//	2  resume at the cursor, where the source can
//	3  for each chunk, read after the mark:
//	4      check      leave out what was invalidated since the mark
//	5      put        (a crawl's pages were put by the site, a carry's entries by the server)
//	6      check      remove what was invalidated meanwhile
//	7      count, save the cursor
//	8  replay everything after the mark
//	   wait until the replicas of the cache Redis have all of that, close the mark
//	9  record the figures and leave the open set, in one step
//
// An invalidation that is recorded before 4 or 6 is seen there; one recorded later reaches the
// namespace by itself, because the release is live. What 4 to 6 cannot know (the tags of an
// entry that a crawl or a carry brought) is what 8 is for: until it is done the open mark keeps
// the release from becoming ready or active.
//
// A release may be archived or expired meanwhile, by hand or by the rule, unless its state is warming. From
// then on it is not live: 4 and 6 take everything for invalidated, the batch ends its run as failed, and
// has the next expiry purge the namespace again, since a put that was under way may have come too late.
//
// The cursor of 2 names the servers of the cache Redis that it speaks of. When one of them was promoted or
// has started again, it may lack what was written last, and a tag index with it: the batch begins anew,
// also when that is noticed only at 8. A carry then first takes out of the namespace all that the log
// holds, for it may have copied what had come back to the source.
//
// # Figures
//
// Every planned entry ends as stored, invalidated (an edit overtook it: the site fills it fresh
// when it is asked for) or failed. Coverage is (stored + invalidated) / planned, and is demanded
// of each source as well as of all: a source that failed whole must not hide behind a large one.
//
// What failed is counted by kind, with examples. A page that answers for another release, with an
// unexpected status or redirect, with a cookie, with no-store or private, with nothing or with too much is
// never counted as stored, although the site's instance may have stored it: the entry that such a
// visit has left behind is removed.
//
// # Samples, and then the rest
//
// A sampled run takes a share of the keys, by their ranks ([source.Picks]), so that a larger sample holds
// every smaller one. With a hot list half of the sample is taken so; the other half is of the
// list, where an entry's share grows with what it is asked for ([source.ShareOf]). The next run keeps what it finds, if the source
// is defined as it was, the entry is still there (it would have been removed by an invalidation) and has as
// long to live as has passed since the earlier run began. So it is after every run that did not pass; after
// one that passed all is warmed anew.
//
// # The hit rate
//
// At its end a run looks up the whole hot list in its own release and in the active one. What a crawl of the
// run visits counts, and what either release has: the rest of the list is not the cache's. A release
// fails that would serve less than the plan demands, or, without a demand, less than the active one does,
// where uses are counted. An entry that an edit removed meanwhile counts as served. Where tags
// were invalidated, what is missing may be for that: then the run is inconclusive, and the next one,
// which keeps what is there, is short.
//
// # Not promised
//
// That an entry is still there tomorrow: lifetimes end, and a cache Redis may evict. The
// certificate samples stored entries at the end of the run and fails when too many are gone.
// Nor that a crawled page is fresh at its origin: a canary that reads from a lagging replica
// needs STOKER_ORIGIN_LAG like every other reader of it.
package warm
