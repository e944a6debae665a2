package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/redistest"
)

const (
	articles = 256
	editors  = 64

	// asPaper makes this test binary run as an app server that edits until it is killed.
	asPaper = "STOKER_TEST_AS_PAPER"
)

// The paper's database is in the cache's server, beside the entries: article → its version, and
// article → the version that stoker was told of, by a call that returned nil.
const (
	keyWritten = "paper:written"
	keyTold    = "paper:told"
)

// paper is a newspaper's site: editors who change articles and tell stoker, readers who fill the
// cache. Its cache Redis is never hurt.
type paper struct {
	client *tasks.Client
	cache  *redis.Client

	errs   sync.Mutex
	failed map[string]int // guarded by errs; what Invalidate said when it failed → how often
}

// newPaper returns a paper that reads release r1.
func newPaper(queueURL, cacheURL string, replicas int) (*paper, error) {
	client, err := tasks.NewClient(tasks.Config{
		App: "site", RedisURL: queueURL, CacheURL: cacheURL, FillLimit: time.Second, Release: "r1", LogReplicas: replicas,
	})
	if err != nil {
		return nil, err
	}
	opt, err := redis.ParseURL(cacheURL)
	if err != nil {
		return nil, err
	}
	return &paper{client: client, cache: redis.NewClient(opt), failed: map[string]int{}}, nil
}

func (p *paper) close() {
	_ = p.client.Close()
	_ = p.cache.Close()
}

func article(i int) string { return "post:" + strconv.Itoa(i) }

// edit changes an article and tells stoker, as often as it takes: even ones by key, odd ones by
// tag. It returns false when ctx has ended first.
func (p *paper) edit(ctx context.Context, i int) bool {
	version, err := p.cache.HIncrBy(ctx, keyWritten, article(i), 1).Result()
	if err != nil {
		return false
	}
	target := tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(article(i))}
	if i%2 == 1 {
		target.Kind = tasks.KindTag
	}
	for ctx.Err() == nil {
		_, err := p.client.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{target}, By: tasks.By{Actor: "editor"}})
		if err == nil || errors.Is(err, tasks.ErrNotEnqueued) {
			return p.cache.HSet(ctx, keyTold, article(i), version).Err() == nil
		}
		p.note(err)
		select { // an editor's patience
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

func (p *paper) note(err error) {
	p.errs.Lock()
	defer p.errs.Unlock()
	p.failed[err.Error()]++
}

// failures is what failed calls said.
func (p *paper) failures() string {
	p.errs.Lock()
	defer p.errs.Unlock()
	var all []string
	for text, n := range p.failed {
		all = append(all, fmt.Sprintf("%d× %s", n, text))
	}
	return strings.Join(all, "\n")
}

// read fetches an article through the cache.
func (p *paper) read(ctx context.Context, i int) {
	_, _ = p.client.Fetch(ctx, article(i), []string{article(i)}, time.Hour, func(ctx context.Context) ([]byte, error) {
		return p.cache.HGet(ctx, keyWritten, article(i)).Bytes()
	}) // an article that nobody has edited yet is missing
}

// busy edits and reads on every desk until ctx ends, and returns how many edits were told.
func (p *paper) busy(ctx context.Context) int {
	var desks sync.WaitGroup
	done := make([]int, editors)
	for desk := range editors {
		desks.Go(func() {
			for ctx.Err() == nil {
				i := desk + editors*rand.IntN(articles/editors) // no two desks share an article
				if p.edit(ctx, i) {
					done[desk]++
				}
				p.read(ctx, rand.IntN(articles))
			}
		})
	}
	desks.Wait()
	n := 0
	for _, d := range done {
		n += d
	}
	return n
}

// editAll edits every article once.
func (p *paper) editAll(ctx context.Context) {
	var desks sync.WaitGroup
	for desk := range editors {
		desks.Go(func() {
			for i := desk; i < articles; i += editors {
				p.edit(ctx, i)
			}
		})
	}
	desks.Wait()
}

// runPaper is the app server's process.
func runPaper() int {
	p, err := newPaper(os.Getenv("STOKER_REDIS_URL"), os.Getenv("STOKER_CACHE_URL"), 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	p.busy(context.Background())
	return exitDone
}

// press is an installation with a paper on it, whose queue Redis may fail.
type press struct {
	*install
	*paper
	queue *redis.Client // straight to the queue Redis, for looking
}

// newPress sets up r1, which is served, r2, which is live as well, and r0, which is archived.
// queue is the queue Redis, as the paper reaches it by url; the cache Redis is the installation's own.
func newPress(t *testing.T, queue *redis.Client, url string, replicas int) *press {
	t.Helper()
	in := newInstall(t)
	in = in.with("STOKER_REDIS_URL="+url, "STOKER_CACHE_URL="+in.redis.URL, "STOKER_LOG_REPLICAS="+strconv.Itoa(replicas))
	p, err := newPaper(url, in.redis.URL, replicas)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	s := &press{install: in, paper: p, queue: queue}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("failed calls:\n%s", s.failures())
		}
	})
	for _, id := range []string{"r0", "r1", "r2"} {
		_, err := p.cache.Pipelined(context.Background(), func(pipe redis.Pipeliner) error {
			for i := range articles {
				pipe.ZAdd(context.Background(), "site:"+id+":#tag:"+article(i), redis.Z{Score: 1e18, Member: article(i)})
				pipe.Set(context.Background(), "site:"+id+":"+article(i), 0, 0)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.must("release", "create", "r1", "--adopt", "--active")
	s.must("release", "create", "r2", "--adopt")
	s.must("release", "create", "r0", "--adopt")
	return s
}

// archive takes r0 to its archive. A worker must be running.
func (s *press) archive() {
	s.Helper()
	s.must("expire", "--release", "r0", "--wait")
}

// log is the invalidation log of the site, as a new process sees it.
func (s *press) log() *invalidation.Log {
	return invalidation.Open(s.queue, tasks.KeysOf("site"), invalidation.Config{FillLimit: time.Second})
}

// assertFresh waits until nothing is pending and fails unless no release holds an article that is
// older than what stoker was told: then no call was lost, and nothing stale was stored.
func (s *press) assertFresh(releases ...string) {
	s.Helper()
	ctx := context.Background()
	redistest.Eventually(s.T, "every invalidation to be applied", func() bool {
		st, err := s.log().Status(ctx)
		return err == nil && st.Pending == 0
	})
	versions, err := s.paper.cache.HGetAll(ctx, keyTold).Result()
	if err != nil || len(versions) == 0 {
		s.Fatalf("stoker was told of nothing: %v", err)
	}
	for _, id := range releases {
		var stale []string
		look := func() bool { // what is on probation is given its time to vanish
			stale = stale[:0]
			for name, v := range versions {
				want, _ := strconv.Atoi(v)
				got, err := s.paper.cache.Get(ctx, "site:"+id+":"+name).Int()
				if err == nil && got < want {
					stale = append(stale, fmt.Sprintf("%s has version %d, stoker was told of %d", name, got, want))
				}
			}
			return len(stale) == 0
		}
		for deadline := time.Now().Add(5 * time.Second); !look(); {
			if time.Now().After(deadline) {
				s.Errorf("release %s: %d of %d articles are stale: %.400s", id, len(stale), len(versions), strings.Join(stale, "; "))
				break
			}
		}
	}
}

// during lets the paper work while do happens, and returns how many edits were told.
func (s *press) during(do func()) int {
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan int)
	go func() { told <- s.busy(ctx) }()
	do()
	cancel()
	return <-told
}

// progress waits until n more calls have returned nil: the paper is at work, or again.
func (s *press) progress(n int64) {
	s.Helper()
	count := func() (sum int64) {
		for _, v := range s.paper.cache.HVals(context.Background(), keyTold).Val() {
			version, _ := strconv.ParseInt(v, 10, 64)
			sum += version
		}
		return sum
	}
	from := count()
	redistest.Eventually(s.T, "editors to get on", func() bool { return count() >= from+n })
}

// listening waits until n workers are subscribed to new records.
func (s *press) listening(n int64) {
	s.Helper()
	channel := tasks.KeysOf("site").Nudge()
	redistest.Eventually(s.T, "the workers to listen", func() bool {
		return s.queue.PubSubNumSub(context.Background(), channel).Val()[channel] == n
	})
}
