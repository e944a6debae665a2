package verbtest_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

const (
	entries   = 500_000 // of a namespace
	valueSize = 1_000
	poolSize  = 64 << 20
	loadStep  = 2_000
)

// site is a world with three large namespaces: r1, which is worked on, live, which is visited,
// and other. r9 is the release that a carry fills.
type site struct {
	*verbtest.World
	pool   string // what values are cut from
	jobs   int
	latest *timed
	paced  map[tasks.Pace]*namespace.Cache
}

// loadScript fills keys from a pool: each value is a cut of it that no other value shares much of.
// Nine entries in ten expire, between an hour and a day from now. What exists stays as it is.
const loadScript = `
math.randomseed(ARGV[5])
local size, pool, now = tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[7])
for i = ARGV[2], ARGV[3] - 1 do
  local at, key = math.random(0, pool - size), ARGV[1] .. string.format('page:/articles/%07d', i)
  local value = redis.call('GETRANGE', KEYS[1], at, at + size - 1)
  if i % 10 == 0 then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PXAT', now + math.random(3600000, 86400000))
  end
end
return ARGV[3]`

// newSite loads the keys: a few seconds, and some 2.5 GB of the server's memory.
func newSite(b *testing.B) *site {
	s := &site{World: verbtest.New(b), pool: text(poolSize), paced: map[tasks.Pace]*namespace.Cache{}}
	s.Create("live")
	_, err := s.Ledger.Flip(b.Context(), "live", release.New, verbtest.By)
	s.Must(err)
	for _, id := range []string{"live", "other"} {
		s.load(id)
	}
	return s
}

// load fills a namespace.
func (s *site) load(id string) {
	s.T.Helper()
	ctx, pool := context.Background(), "pool"
	s.Must(s.Client.Set(ctx, pool, s.pool, 0).Err())
	for from := 0; from < entries; from += loadStep {
		s.Must(s.Client.Eval(ctx, loadScript, []string{pool}, s.Template.Prefix(id), from, from+loadStep, valueSize, from, poolSize, time.Now().UnixMilli()).Err())
	}
	s.Must(s.Client.Del(ctx, pool).Err())
}

// text returns a fragment of a page after another: half words as a page has them, half
// characters without a pattern, as in numbers, addresses and what the site has compressed. zstd at its
// fastest makes two thirds of it.
func text(size int) string {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4_000)
	for i := range words {
		word := make([]byte, 2+r.IntN(9))
		for j := range word {
			word[j] = byte('a' + r.IntN(26))
		}
		words[i] = string(word) + " "
	}
	zipf := rand.NewZipf(r, 1.1, 10, uint64(len(words)-1))
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/"
	out := make([]byte, 0, size+200)
	for len(out) < size {
		for end := len(out) + 100; len(out) < end; {
			out = append(out, words[zipf.Uint64()]...)
		}
		for end := len(out) + 100; len(out) < end; {
			out = append(out, digits[r.IntN(64)])
		}
	}
	return string(out[:size])
}

// rebirth makes a release anew in a state: standby as an adopted one, archived without an archive.
func (s *site) rebirth(id string, state release.State) {
	s.T.Helper()
	ctx := s.T.Context()
	if active, err := s.Ledger.Active(ctx); err == nil && active == id { // after a rollback to it
		_, err := s.Ledger.Flip(ctx, "live", release.Standby, verbtest.By)
		s.Must(err)
	}
	s.Must(s.Client.Del(ctx, s.Keys.Release(id), s.Keys.History(id)).Err())
	s.Create(id)
	if state == release.New {
		return
	}
	s.Must(s.Ledger.Move(ctx, id, release.New, release.Standby, verbtest.By))
	if state == release.Archived {
		s.Must(s.Ledger.Move(ctx, id, release.Standby, release.Archived, verbtest.By))
	}
}

// archive takes r1, which has a recorded archive, back to archived after a rollback to it.
func (s *site) archive() {
	s.T.Helper()
	ctx := s.T.Context()
	if s.State("r1") == release.Active {
		_, err := s.Ledger.Flip(ctx, "live", release.Standby, verbtest.By)
		s.Must(err)
	}
	s.Must(s.Ledger.Move(ctx, "r1", release.Standby, release.Archived, verbtest.By))
	s.Purge("r1")
	s.Purged("r1")
}

// wantEntries ends the benchmark unless a namespace has that many.
func (s *site) wantEntries(id string, want int64) {
	s.T.Helper()
	u, err := s.Cache.Usage(s.T.Context(), id)
	s.Must(err)
	if u.Entries != want {
		s.T.Fatalf("%s has %d entries, want %d", id, u.Entries, want)
	}
}
