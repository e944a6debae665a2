package tasks

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed witness.lua
	witnessLua string

	witnessScript = redis.NewScript(witnessLua)
)

// sight is the most that a process has seen of the log: of which one, and its highest number. A
// log that does not reach as far has lost records. It is safe for concurrent use.
type sight struct {
	mu   sync.Mutex
	mark Mark // guarded by mu
}

func (s *sight) get() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

// move takes in what a reply says, to a request that was made when asked had been seen. It
// reports false for a reply of a log that has been given up meanwhile.
func (s *sight) move(asked, now Mark) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.mark.Epoch {
	case now.Epoch:
		s.mark.Number = max(s.mark.Number, now.Number)
	case asked.Epoch:
		s.mark = now
	default:
		return false
	}
	return true
}

// Witness compares the log with what this journal has seen of it, by its records, by Saw and by
// earlier calls. It reports true when the log was lost, replaced, or came back without its last
// records; the log has another epoch then, no mark of the old one is fresh, and what was lost is
// for the caller to tell people of. It reports a loss once.
func (j *Journal) Witness(ctx context.Context) (lost bool, err error) {
	seen := j.sight.get()
	reply, held, err := j.run(ctx, glancePatience, witnessScript, []string{j.keys.LogMeta()}, seen.Epoch, seen.Number, rand.Text())
	if err != nil {
		return false, fmt.Errorf("witness log: %w", err)
	}
	if len(reply) != 3 {
		return false, fmt.Errorf("witness log: want three values, got %q", reply)
	}
	now, err := ParseMark(reply[:2])
	if err != nil {
		return false, fmt.Errorf("witness log: %w", err)
	}
	lost = reply[2] == "1"
	if !lost && held < j.replicas {
		return false, nil // it was acknowledged to nobody yet, and may be lost without harm
	}
	return j.sight.move(seen, now) && lost, nil
}

// Saw tells the journal of a number that the log has given. Where replicas must hold what is
// recorded it counts for nothing: nobody knows yet whether they do.
func (j *Journal) Saw(number int64) {
	if j.replicas > 0 {
		return
	}
	j.sight.mu.Lock()
	defer j.sight.mu.Unlock()
	if j.sight.mark.Epoch != "" {
		j.sight.mark.Number = max(j.sight.mark.Number, number)
	}
}
