package invalidation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

// shards is a Cluster as cache Redis, with two live releases, and an app server that fills r1.
type shards struct {
	*site
	*redistest.Cluster
	app *tasks.Client
}

func newShards(t *testing.T, template string) *shards {
	t.Helper()
	c := redistest.StartCluster(t, 3, 1)
	queue := redistest.Start(t)
	s := siteWith(t, queue.Client, nil, "r1", "r2")
	tmpl, err := tasks.ParseTemplate(template, "site")
	s.check(err)
	s.rdb, s.tmpl = c.Client, tmpl
	s.apply = NewApplier(s.log, c.Client, tmpl, s.apply.live, unlinker{c.Client, tmpl})
	app, err := tasks.NewClientFrom(queue.Client, c.Client, tasks.Config{App: "site", KeyTemplate: template, Release: "r1", FillLimit: 30 * time.Second})
	s.check(err)
	t.Cleanup(func() { _ = app.Close() })
	return &shards{s, c, app}
}

// apart returns the names of so many entries of r1 that are all on one server, and a tag whose index is on another.
func (s *shards) apart(n int) (names []string, tagName string) {
	s.Helper()
	server := s.Owner(s.tmpl.Key("r1", "post:0"))
	for i := 0; len(names) < n; i++ {
		if name := fmt.Sprint("post:", i); s.Owner(s.tmpl.Key("r1", name)) == server {
			names = append(names, name)
		}
	}
	for i := 0; ; i++ {
		tagName = fmt.Sprint("tag:", i)
		if s.Owner(s.tmpl.Key("r1", tasks.TagIndex(tagName))) != server && s.Owner(s.tmpl.Key("r2", tasks.TagIndex(tagName))) != server {
			return names, tagName
		}
	}
}

// fill reads entries through the cache.
func (s *shards) fill(names []string, tags ...string) {
	s.Helper()
	for _, name := range names {
		got, err := s.app.Fetch(ctx, name, tags, time.Hour, func(context.Context) ([]byte, error) { return []byte("v"), nil })
		if err != nil || !got.Hit && !got.Stored {
			s.Fatalf("fill %s: %+v, %v", name, got, err)
		}
	}
}

// writes is a hook that notes what pipelines list and set.
type writes struct{ of []string }

func (w *writes) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (w *writes) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (w *writes) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var step []string
		for _, cmd := range cmds {
			if name := cmd.Name(); name == "zadd" || name == "set" {
				step = append(step, fmt.Sprint(name, " ", cmd.Args()[1]))
			}
		}
		if len(step) > 0 {
			w.of = append(w.of, strings.Join(step, ", "))
		}
		return next(ctx, cmds)
	}
}

// A fill on a Cluster notes what it will list, in the entry's own slot, lists it, and sets it, each when the one before
// is done: whoever loads for others as well as an app server.
func TestWhatIsListedIsNotedFirst(t *testing.T) {
	s := newShards(t, tasks.DefaultTemplate)
	var seen writes
	s.Client.AddHook(&seen)
	s.fill([]string{"a"}, "x", "y")
	filler := tasks.NewFiller(tasks.NewJournal(s.log.queue, keys, 0, 0), s.Client, s.tmpl, 30*time.Second)
	filling, err := filler.Begin(ctx, "r1", nil)
	s.check(err)
	stored, err := filling.Store(ctx, []tasks.Filled{{Entry: tasks.Entry{Key: "a", Type: tasks.EntryString, Value: "w"}, Tags: []string{"x", "y"}}})
	if err != nil || !stored[0] {
		t.Fatalf("stored %v, %v", stored, err)
	}
	entry := s.tmpl.Key("r1", "a")
	note := tasks.ListingKeys(s.tmpl, "r1")[s.Slot(entry)]
	if s.Slot(note) != s.Slot(entry) || s.rdb.PTTL(ctx, note).Val() <= 0 {
		t.Errorf("the note is in slot %d, the entry in %d; it has %v to live", s.Slot(note), s.Slot(entry), s.rdb.PTTL(ctx, note).Val())
	}
	steps := []string{"zadd " + note, "zadd " + s.tmpl.Key("r1", tasks.TagIndex("x")) + ", zadd " + s.tmpl.Key("r1", tasks.TagIndex("y")), "set " + entry}
	if diff := cmp.Diff(append(steps, steps...), seen.of); diff != "" {
		t.Error(diff)
	}
	// What is not set yet is listed again in its own release: its fill may be about to set it.
	absent := []tasks.Listing{{Key: "absent", Tags: []string{"x"}}}
	if n := must(s.apply.listIn(ctx, "r1", absent, true)); n != 1 {
		t.Errorf("%d members of an entry that is not there yet, want 1", n)
	}
	if n := must(s.apply.listIn(ctx, "r2", absent, false)); n != 0 {
		t.Errorf("%d members in a release that it was not copied to, want none", n)
	}
	// A mark that a removal has left stays: it tells its age.
	s.invalidate(tag("x"))
	index := s.tmpl.Key("r1", tasks.TagIndex("x"))
	marked := s.rdb.ZScore(ctx, index, "a").Val()
	must(s.apply.relist(ctx, []string{"r1"}))
	if now := s.rdb.ZScore(ctx, index, "a").Val(); marked >= 0 || now != marked {
		t.Errorf("the score %v of what was removed became %v", marked, now)
	}
}

// deafen cuts a primary's replicas off: they hear of nothing more before it dies.
func (s *shards) deafen(primary *redistest.Server) []*redistest.Server {
	s.Helper()
	replicas := s.Replicas(primary)
	written := offset(primary, "master_repl_offset")
	for _, r := range replicas {
		redistest.Eventually(s.T, "the replica to follow", func() bool { return offset(r, "slave_repl_offset") >= written })
	}
	for _, r := range replicas {
		r.Freeze()
	}
	s.check(primary.Client.ClientKillByFilter(ctx, "TYPE", "replica").Err())
	return replicas
}

// offset reads how much a server has written, or heard, of what is replicated.
func offset(s *redistest.Server, name string) int64 {
	_, rest, _ := strings.Cut(s.Client.Info(ctx, "replication").Val(), name+":")
	text, _, _ := strings.Cut(rest, "\r")
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// replace kills a primary and has a deaf replica of it take its place. It returns the servers that were known.
func (s *shards) replace(primary *redistest.Server, replicas []*redistest.Server) (before string) {
	s.Helper()
	before = must(s.log.queue.HGet(ctx, keys.CacheServers(), "servers").Result())
	primary.Kill()
	for _, r := range replicas {
		r.Thaw()
	}
	s.check(replicas[0].Client.Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err())
	s.Heir(replicas)
	return before
}

// seeTo looks until other servers are known than before.
func (s *shards) seeTo(before string) *Failover {
	s.Helper()
	redistest.Eventually(s.T, "the promoted server to be known", func() bool {
		_, err := s.apply.Look(ctx)
		return err == nil && must(s.log.queue.HGet(ctx, keys.CacheServers(), "servers").Result()) != before
	})
	return s.lastFailover()
}

func (s *shards) wantGone(when, release string, names ...string) {
	s.Helper()
	for _, name := range names {
		if s.has(release, name) {
			s.Errorf("%s: %s still has %s", when, release, name)
		}
	}
}

// Entries and their tags' indexes lie on different servers. Whichever of them is replaced by a replica that
// lacks the last that happened, what a tag names leaves, in a release that it was copied to as well.
func TestAFailoverOnAClusterLosesNoTag(t *testing.T) {
	s := newShards(t, "<app>:<release>:{<key>}")
	names, about := s.apart(6)
	old, lost, copied := names[:2], names[2:4], names[4:]
	index := s.tmpl.Key("r1", tasks.TagIndex(about))
	s.fill(old, about)
	s.look()
	s.look()

	// The index's server forgets what it has listed.
	primary := s.Owner(index)
	replicas := s.deafen(primary)
	s.fill(append(lost, copied...), about)
	before := s.replace(primary, replicas)
	redistest.Eventually(t, "the client to find the promoted one", func() bool { return s.rdb.ZCard(ctx, index).Err() == nil })
	if n := s.rdb.ZCard(ctx, index).Val(); n != int64(len(old)) { // the hole
		t.Fatalf("the index has %d members, want the %d that the replica knew", n, len(old))
	}
	// A copy in the hole, from which the index lacks what was copied.
	s.check(namespace.New(s.rdb, s.tmpl, keys, nil).CopyKeys(ctx, "r1", "r2", copied, func(namespace.CopySlice) error { return nil }))
	if !s.has("r2", copied[0]) {
		t.Fatal("nothing was copied")
	}
	if f := s.seeTo(before); f == nil || f.Relisted != int64(len(lost)+2*len(copied)) {
		t.Errorf("noted %+v, want %d members listed again", f, len(lost)+2*len(copied))
	}
	s.invalidate(tag(about))
	s.wantGone("after the index's server failed over", "r1", names...)
	s.wantGone("after the index's server failed over", "r2", names...)

	// The entries' server brings back what was removed.
	s.Rejoin(primary)
	s.fill(names, about)
	s.look()
	primary = s.Owner(s.tmpl.Key("r1", names[0]))
	replicas = s.deafen(primary)
	s.invalidate(tag(about))
	s.wantGone("by its tag", "r1", names...)
	if f := s.seeTo(s.replace(primary, replicas)); f.Removed != int64(len(names)) {
		t.Errorf("noted %+v, want the %d entries removed that had come back", f, len(names))
	}
	s.wantGone("after the entries' server failed over", "r1", names...)
}

// Both at once: what the entries' server forgot too is not there, and what it kept is found.
func TestBothServersOfATagFailOver(t *testing.T) {
	s := newShards(t, tasks.DefaultTemplate)
	names, about := s.apart(4)
	kept, forgotten := names[:2], names[2:]
	index := s.tmpl.Key("r1", tasks.TagIndex(about))
	s.look()
	s.look()
	listing, holding := s.Owner(index), s.Owner(s.tmpl.Key("r1", names[0]))
	deaf := s.deafen(listing)
	s.fill(kept, about)
	deafToo := s.deafen(holding)
	s.fill(forgotten, about)
	s.invalidate(tag(about))

	before := must(s.log.queue.HGet(ctx, keys.CacheServers(), "servers").Result())
	listing.Kill()
	holding.Kill()
	for _, r := range append(deaf, deafToo...) {
		r.Thaw()
		s.check(r.Client.Do(ctx, "CLUSTER", "FAILOVER", "TAKEOVER").Err())
	}
	s.Heir(deaf)
	s.Heir(deafToo)
	if f := s.seeTo(before); f == nil || f.Removed != int64(len(kept)) || f.Relisted != int64(len(kept)) {
		t.Errorf("noted %+v, want the %d entries listed again and removed that came back", f, len(kept))
	}
	s.wantGone("after both failed over", "r1", names...)
	s.fill(names, about)
	s.invalidate(tag(about))
	s.wantGone("by its tag", "r1", names...)
}
