package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
	"github.com/alphanode/stoker/worker/governor/throttle"
)

// progressEvery is the shortest time between two progress lines of one phase.
const progressEvery = 200 * time.Millisecond

// Progress is what a running task's result holds until the handler's own result replaces it.
type Progress struct {
	Phase string `json:"phase"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0 means unknown

	Pace   tasks.Pace      `json:"pace,omitempty"`   // "" where nothing was paced yet
	Braked governor.Reason `json:"braked,omitempty"` // why the last slice was slower than that
}

// progressLine is a Progress as a task's result holds it, apart from every handler's result.
type progressLine struct {
	Progress *Progress `json:"progress"`
}

// ParseProgress reads a task's result; false when it is not (or no longer) a progress line.
func ParseProgress(result []byte) (Progress, bool) {
	var line progressLine
	if json.Unmarshal(result, &line) != nil || line.Progress == nil {
		return Progress{}, false
	}
	return *line.Progress, true
}

// job is the tasks.Job of an asynq task. Its methods are safe for concurrent use.
type job struct {
	id       string
	cursor   string // key
	queue    redis.UniversalClient
	result   io.Writer
	draining <-chan struct{}
	work     *throttle.Task

	mu       sync.Mutex
	phase    string    // of the last progress line
	shown    time.Time // when it was written
	showing  sync.WaitGroup
	inFlight bool
}

var _ tasks.Job = (*job)(nil)

// ID implements [tasks.Job].
func (j *job) ID() string { return j.id }

// Load implements [tasks.Job].
func (j *job) Load(ctx context.Context, v any) (bool, error) {
	raw, err := j.queue.Get(ctx, j.cursor).Bytes()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("load cursor of task %q: %w", j.id, err)
	}
	var head struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return false, fmt.Errorf("load cursor of task %q: %w", j.id, err)
	}
	if head.V != nil { // else it was written before cursors had versions
		if err := tasks.Cursors.Check(*head.V); err != nil {
			return false, fmt.Errorf("load cursor of task %q: %w", j.id, err)
		}
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("load cursor of task %q: %w", j.id, err)
	}
	return true, nil
}

// Save implements [tasks.Job]. The cursor outlives the task: asynq runs a finished task again when
// its ack was lost, and that run must find what the first one did.
func (j *job) Save(ctx context.Context, v any) error {
	raw, err := json.Marshal(v)
	if err == nil && !bytes.HasPrefix(raw, []byte("{")) {
		err = fmt.Errorf("%s is no JSON object", raw)
	}
	if err != nil {
		return fmt.Errorf("save cursor of task %q: %w", j.id, err)
	}
	head := fmt.Appendf(nil, `{"v":%d`, tasks.Cursors.For(1))
	if string(raw) != "{}" {
		head = append(head, ',')
	}
	raw = append(head, raw[1:]...)
	if err := j.queue.Set(ctx, j.cursor, raw, keep).Err(); err != nil {
		return fmt.Errorf("save cursor of task %q: %w", j.id, err)
	}
	return nil
}

// Progress implements [tasks.Job]: at most one write at a time, and five a second within a
// phase. What comes too soon is left out.
func (j *job) Progress(phase string, done, total int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	if j.inFlight || phase == j.phase && now.Sub(j.shown) < progressEvery {
		return
	}
	pace, brake := j.work.Pace()
	line, err := json.Marshal(progressLine{&Progress{phase, done, total, pace, brake.Why}})
	if err != nil {
		return
	}
	j.inFlight, j.phase, j.shown = true, phase, now
	j.showing.Go(func() {
		_, _ = j.result.Write(line) // for eyes only: an error shows nothing, and costs nothing
		j.mu.Lock()
		defer j.mu.Unlock()
		j.inFlight = false
	})
}

// Draining implements [tasks.Job].
func (j *job) Draining() <-chan struct{} { return j.draining }

// settle ends the progress lines, so that none can replace the result that is written next.
func (j *job) settle() { j.showing.Wait() }
