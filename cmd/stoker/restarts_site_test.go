package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/alphanode/stoker/scheduler"
	"github.com/alphanode/stoker/tasks"
)

// roster is the schedule of the crew: entries that are all due every minute.
type roster struct {
	s       *press
	path    string
	entries []hired
}

// hired is an entry, with the tick that was overdue when it was hired.
type hired struct {
	name string
	task string
	args string
	due  time.Time
}

// hiredFor are the tasks that the entries ask for, in turn.
var hiredFor = []string{"health:check, args: {}", "namespace:prune, args: {}", "namespace:snapshot, args: {release: active}", "namespace:expire, args: {}"}

func newRoster(s *press) *roster { return &roster{s: s, path: filepath.Join(s.dir, "crew.yaml")} }

// hire adds n entries whose last tick was a minute before the one that is due.
func (o *roster) hire(n int) {
	o.s.Helper()
	if n == 0 {
		return
	}
	ctx := context.Background()
	due := time.Now().UTC().Truncate(time.Minute)
	for range n {
		what := hiredFor[len(o.entries)%len(hiredFor)]
		task, args, _ := strings.Cut(what, ", ")
		e := hired{fmt.Sprintf("entry-%d", len(o.entries)), task, args, due}
		if err := o.s.queue.HSet(ctx, tasks.KeysOf("site").Ticks(), e.name, due.Add(-time.Minute).Unix()).Err(); err != nil {
			o.s.Fatal(err)
		}
		o.entries = append(o.entries, e)
	}
	var text strings.Builder
	text.WriteString("entries:\n")
	for _, e := range o.entries {
		fmt.Fprintf(&text, "  - {name: %s, cron: \"* * * * *\", task: %s, %s}\n", e.name, e.task, e.args)
	}
	if err := os.WriteFile(o.path+".new", []byte(text.String()), 0o600); err != nil {
		o.s.Fatal(err)
	}
	if err := os.Rename(o.path+".new", o.path); err != nil {
		o.s.Fatal(err)
	}
}

// made lists the ticks of an entry that became tasks, in order.
func (e hired) made(all *enqueuings) (ticks []time.Time) {
	for id := range all.of(e.name + "@") {
		_, text, _ := strings.Cut(id, "@")
		tick, err := time.Parse("20060102T1504Z", text)
		if err == nil && scheduler.TaskID(e.name, tick) == id {
			ticks = append(ticks, tick)
		}
	}
	slices.SortFunc(ticks, time.Time.Compare)
	return ticks
}

// complete reports whether every entry's last tick up to a moment became a task.
func (o *roster) complete(all *enqueuings, at time.Time) bool {
	for _, e := range o.entries {
		ticks := e.made(all)
		if len(ticks) == 0 || ticks[len(ticks)-1].Before(at.UTC().Truncate(time.Minute)) {
			return false
		}
	}
	return true
}

// wrong lists the ticks that are missing, were made twice, or whose task did not come to a good end.
func (o *roster) wrong(all *enqueuings) (found []string) {
	for _, e := range o.entries {
		ticks := e.made(all)
		if len(ticks) == 0 {
			found = append(found, e.name+" never became a task")
			continue
		}
		// What was overdue is made up for once, and may be overtaken by the next minute.
		if ticks[0].After(e.due.Add(time.Minute)) || ticks[0].Before(e.due) {
			found = append(found, fmt.Sprintf("%s, due at %v, began at %v", e.name, e.due, ticks[0]))
		}
		for i := 1; i < len(ticks); i++ {
			if gap := ticks[i].Sub(ticks[i-1]); gap != time.Minute {
				found = append(found, fmt.Sprintf("%s missed what is between %v and %v", e.name, ticks[i-1], ticks[i]))
			}
		}
		made := all.of(e.name + "@")
		if len(made) != len(ticks) {
			found = append(found, fmt.Sprintf("%s: %d ticks became %d tasks", e.name, len(ticks), len(made)))
		}
		for id, n := range made {
			lane, err := tasks.LaneOf(e.task)
			if err != nil {
				o.s.Fatal(err)
			}
			info, err := asynq.NewInspectorFromRedisClient(o.s.queue).GetTaskInfo(lane.Queue("site"), id)
			if n != 1 || err != nil || info.State != asynq.TaskStateCompleted {
				found = append(found, fmt.Sprintf("%s was made %d times: %v, %+v", id, n, err, info))
			}
		}
	}
	return found
}

// count returns how many ticks became tasks, and the most tasks that one tick became.
func (o *roster) count(all *enqueuings) (ticks, most int) {
	for _, e := range o.entries {
		for _, n := range all.of(e.name + "@") {
			ticks, most = ticks+1, max(most, n)
		}
	}
	return ticks, most
}

// enqueuings is what the queue Redis says of the tasks that asynq makes there.
type enqueuings struct {
	mu   sync.Mutex
	made map[string]int // guarded by mu; task → how often
}

// taskMade is what only asynq's making of a task sends.
var taskMade = regexp.MustCompile(`^\S+ \[\d+ lua\] "HSET" "asynq:\{[^}]+\}:t:([^"]+)" "msg" ".*" "state" "pending" "pending_since" `)

// watch has the server tell every command from now on.
func (w *enqueuings) watch(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	_, err = conn.Write([]byte("MONITOR\r\n"))
	if answer, e := lines.ReadString('\n'); err != nil || answer != "+OK\r\n" {
		t.Fatalf("MONITOR: %q, %v", answer, errors.Join(err, e))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			w.note(strings.TrimPrefix(line, "+"))
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
}

func (w *enqueuings) note(line string) {
	if !strings.Contains(line, `"state"`) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := taskMade.FindStringSubmatch(line); m != nil {
		w.made[m[1]]++
	}
}

// of returns the tasks whose IDs begin so.
func (w *enqueuings) of(prefix string) map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]int{}
	for id, n := range maps.All(w.made) {
		if strings.HasPrefix(id, prefix) {
			found[id] = n
		}
	}
	return found
}

// desks are editors who look after each edit whether it has taken effect, and readers.
type desks struct {
	s       *press
	r2      *tasks.Client
	pause   time.Duration // between the edits of one desk; readers make half of it
	mu      sync.Mutex
	applied [articles]int // guarded by mu, as all below; of each article the version that is gone from everywhere before it
	edits   int
	reads   int
	glimpse int             // reads of a value on probation that an invalidation had just overtaken
	hurt    int             // edits that met a queue Redis which did not answer
	took    []time.Duration // of the others, from the call to where it is applied
}

const (
	editingDesks = 8
	readingDesks = 4
)

func newDesks(s *press, pause time.Duration) *desks {
	s.Helper()
	r2, err := tasks.NewClient(tasks.Config{App: "site", RedisURL: s.queueURL(), CacheURL: s.redis.URL, FillLimit: time.Second, Release: "r2"})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = r2.Close() })
	return &desks{s: s, r2: r2, pause: pause}
}

// queueURL is where the paper finds the queue Redis.
func (s *press) queueURL() string { return "redis://" + s.queue.Options().Addr + "/0" }

// open has editors and readers at work until the function that it returns is called.
func (d *desks) open() (close func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for desk := range editingDesks {
		all.Go(func() {
			for pause := time.NewTicker(d.pause); ctx.Err() == nil; <-pause.C {
				d.edit(desk + editingDesks*rand.IntN(articles/editingDesks))
			}
		})
	}
	for range readingDesks {
		all.Go(func() {
			for pause := time.NewTicker(d.pause / 2); ctx.Err() == nil; <-pause.C {
				d.read(ctx, rand.IntN(articles))
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// edit changes an article, tells stoker, waits until that has taken effect, and looks.
func (d *desks) edit(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cache := d.s.paper.cache
	version, err := cache.HIncrBy(ctx, keyWritten, article(i), 1).Result()
	if err != nil {
		d.s.Error(err)
		return
	}
	target := tasks.Target{Kind: tasks.KindKey, Name: tasks.Bytes(article(i))}
	if i%2 == 1 {
		target.Kind = tasks.KindTag
	}
	begun, hurt := time.Now(), false
	again := func(do func() error) { // as an editor would whose call fails
		for err = do(); err != nil && ctx.Err() == nil; err = do() {
			hurt = true
			<-time.After(20 * time.Millisecond)
		}
	}
	var receipt tasks.Receipt
	again(func() (err error) {
		receipt, err = d.s.client.Invalidate(ctx, tasks.Invalidation{Targets: []tasks.Target{target}, By: tasks.By{Actor: "editor"}})
		if errors.Is(err, tasks.ErrNotEnqueued) {
			err = nil
		}
		return err
	})
	if err == nil {
		err = cache.HSet(ctx, keyTold, article(i), version).Err()
	}
	if err == nil {
		again(func() error { _, err := d.s.client.Wait(ctx, receipt); return err })
	}
	if err != nil {
		d.s.Errorf("edit %d of %s: %v", version, article(i), err)
		return
	}
	took := time.Since(begun)
	d.mu.Lock()
	d.applied[i] = int(version)
	d.edits++
	if hurt {
		d.hurt++
	} else {
		d.took = append(d.took, took)
	}
	d.mu.Unlock()
	for _, id := range []string{"r1", "r2"} {
		d.look(i, int(version), func() (int, error) { return cache.Get(ctx, "site:"+id+":"+article(i)).Int() })
	}
}

// read fetches an article from one of the releases.
func (d *desks) read(ctx context.Context, i int) {
	client := d.s.client
	if rand.IntN(2) == 0 {
		client = d.r2
	}
	d.mu.Lock()
	least := d.applied[i]
	d.reads++
	d.mu.Unlock()
	d.look(i, least, func() (int, error) {
		got, err := client.Fetch(ctx, article(i), []string{article(i)}, time.Hour, func(ctx context.Context) ([]byte, error) {
			return d.s.paper.cache.HGet(ctx, keyWritten, article(i)).Bytes()
		})
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(string(got.Value))
	})
}

// look fails the test when a version older than the least one is served. A value on probation may be
// seen for one round trip after its invalidation (see package tasks): it has to be gone at once.
func (d *desks) look(i, least int, serve func() (int, error)) {
	const probation = 2 * time.Second
	seen := false
	for begun := time.Now(); ; {
		got, err := serve()
		if err != nil || got >= least { // nothing is served, or nothing stale
			break
		}
		if !seen {
			seen = true
			d.mu.Lock()
			d.glimpse++
			d.mu.Unlock()
		}
		if time.Since(begun) > probation {
			d.s.Errorf("%s is served at version %d %v after version %d was invalidated everywhere", article(i), got, probation, least-1)
			break
		}
	}
}

func (d *desks) figures() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.took)
	at := func(q float64) time.Duration {
		if len(d.took) == 0 {
			return 0
		}
		return d.took[int(q*float64(len(d.took)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%d edits, from the call to gone everywhere p50 %v, p99 %v, p99.9 %v, slowest %v, but for %d that met the queue Redis dead; %d reads, %d glimpses of a value on probation",
		d.edits, at(0.5), at(0.99), at(0.999), at(1), d.hurt, d.reads, d.glimpse)
}
