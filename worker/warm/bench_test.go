package warm

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/worker/warm/query/sqltest"
)

// benchRows is how many rows the table has whose warm is measured: STOKER_TEST_ROWS, or 100,000.
func benchRows(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("STOKER_TEST_ROWS"))
	if err != nil {
		return 100_000
	}
	return n
}

// tableOf makes a table of n rows of about 540 bytes in a PostgreSQL server and returns its DSN. The values
// hold no space and no quote, so that the peer can write them as plain commands.
func tableOf(t testing.TB, n int) string {
	t.Helper()
	dsn := sqltest.Postgres(t)
	db, err := sql.Open("pgx", dsn)
	must(t, err)
	defer db.Close()
	for _, text := range []string{
		"CREATE TABLE posts (id bigint PRIMARY KEY, slug text NOT NULL, body text NOT NULL)",
		fmt.Sprintf("INSERT INTO posts SELECT i, 'article-'||i, repeat(md5(i::text), 16) FROM generate_series(1, %d) i", n),
		"ANALYZE posts",
	} {
		_, err := db.ExecContext(t.Context(), text)
		must(t, err)
	}
	return dsn
}

// rowPlans are ways to read the table, and what peers write of a row, as commands: first the entry alone.
var rowPlans = []struct {
	name, query, entry string
	peers              []string
}{
	{"column", `sql: "SELECT slug, body FROM posts"`, `value: "column:body", ttl: 24h`, []string{setBody}},
	{"column, paged", `sql: "SELECT id, slug, body FROM posts", page: {by: id, size: 10000}`, `value: "column:body", ttl: 24h`, []string{setBody}},
	{"json, a tag", `sql: "SELECT slug, body FROM posts"`, `value: json, ttl: 24h, jitter: 10%, tags: ["post:{{.slug}}"]`, []string{setBody, addTag + ", " + setJSON}},
}

const (
	setBody = `'SET site:peer:post:'||slug||' '||body||' PX 86400000'`
	setJSON = `'SET site:peer:post:'||slug||' '''||json_build_object('body', body, 'slug', slug)::text||''' PX 86400000'`
	addTag  = `'ZADD site:peer:#tag:post:'||slug||' 1800000000000 post:'||slug`
)

func rowPlan(query, entry string) string {
	return fmt.Sprintf("version: 1\nsources:\n- name: articles\n  query: {driver: postgres, dsn_env: SITE_DSN, %s}\n  entry: {key: \"post:{{.slug}}\", %s}\n", query, entry)
}

// BenchmarkRows warms the rows of a PostgreSQL table, and compares with the shell's way for the same
// rows in the same run: COPY by psql into redis-cli --pipe. Where a plan gives entries a tag there is a second
// peer, which does as much: it makes the row JSON and writes the tag's index, too.
func BenchmarkRows(b *testing.B) {
	n := benchRows(b)
	g := newRig(b)
	dsn := tableOf(b, n)
	g.deps.Getenv = func(string) string { return dsn }
	for _, plan := range rowPlans {
		b.Run(plan.name, func(b *testing.B) {
			var ours time.Duration
			peers := make([]time.Duration, len(plan.peers))
			for i := range b.N {
				for j, commands := range plan.peers {
					must(b, g.client.FlushAllAsync(b.Context()).Err())
					peers[j] += copyRows(b, dsn, g.client.Options().Addr, commands, n)
				}
				g.reset()
				p := g.start(fmt.Sprint("run", i), "r1", rowPlan(plan.query, plan.entry))
				began := time.Now()
				s := g.warm(p)
				ours += time.Since(began)
				if s.Status != string(Pass) || s.Sources[0].Stored != int64(n) {
					b.Fatalf("run %+v %+v", s, s.Certificate)
				}
			}
			rows := float64(n * b.N)
			b.ReportMetric(rows/ours.Seconds(), "rows/s")
			b.ReportMetric(rows/peers[0].Seconds(), "peer-rows/s")
			b.ReportMetric(peers[0].Seconds()/ours.Seconds(), "of-peer")
			if len(peers) > 1 {
				b.ReportMetric(peers[1].Seconds()/ours.Seconds(), "of-equal-peer")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// TestRowsFlatMemory warms a table of STOKER_TEST_ROWS rows and a tenth of it: the heap's peak must not
// grow with the rows. Too long for every run.
func TestRowsFlatMemory(t *testing.T) {
	if os.Getenv("STOKER_TEST_ROWS") == "" {
		t.Skip("set STOKER_TEST_ROWS=1000000, or run make rows")
	}
	g := newRig(t)
	n := benchRows(t)
	dsn := tableOf(t, n)
	g.deps.Getenv = func(string) string { return dsn }
	for _, plan := range rowPlans {
		peaks := map[int]uint64{}
		for i, rows := range []int{n / 10, n} {
			g.reset()
			query := strings.Replace(plan.query, "FROM posts", fmt.Sprintf("FROM posts WHERE id <= %d", rows), 1)
			p := g.start(fmt.Sprint("run", i), "r1", rowPlan(query, plan.entry))
			var s RunStatus
			peaks[rows] = peakHeap(func() { s = g.warm(p) })
			if s.Status != string(Pass) || s.Sources[0].Stored != int64(rows) {
				t.Fatalf("run %+v, %+v", s, s.Certificate)
			}
		}
		t.Logf("%s: heap's peak %d MiB for %d rows, %d MiB for %d", plan.name, peaks[n/10]>>20, n/10, peaks[n]>>20, n)
		if peaks[n] > peaks[n/10]*3/2+16<<20 {
			t.Errorf("%s: the heap grows with the rows: %d bytes for %d, %d for %d", plan.name, peaks[n/10], n/10, peaks[n], n)
		}
	}
}

// peakHeap returns the largest heap in use while do runs.
func peakHeap(do func()) uint64 {
	runtime.GC()
	done := make(chan struct{})
	peak := make(chan uint64)
	go func() {
		var most uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			select {
			case <-done:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	do()
	close(done)
	return <-peak
}

// copyRows is the peer: it returns how long psql and redis-cli take for the commands of each of n rows.
func copyRows(b *testing.B, dsn, addr, commands string, n int) time.Duration {
	b.Helper()
	_, port, _ := strings.Cut(addr, ":")
	sql := "COPY (SELECT unnest(ARRAY[" + commands + "]) FROM posts) TO STDOUT"
	n *= strings.Count(commands, "site:peer:")
	cmd := exec.CommandContext(b.Context(), "sh", "-c", `"$1" -qAtX -c "$2" "$3" | redis-cli -p "$4" --pipe`, "sh", psql(b), sql, dsn, port)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("errors: 0, replies: %d", n)) {
		b.Fatalf("psql | redis-cli: %v\n%s", err, out)
	}
	return took
}

func psql(b *testing.B) string {
	b.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/psql")
	if err != nil || len(found) == 0 {
		b.Skip("psql is not installed")
	}
	return found[len(found)-1]
}
