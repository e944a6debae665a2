// Package throttle puts the governor to work in one process: it samples the servers while work is
// under way, and makes every work wait its turn.
//
// All works of a process share one sampler. It pings each primary as a visitor would reach it, reads
// its memory (INFO takes it some 5 µs) and counts who waits in the queue; with the last work it ends
// by itself. Works of one pace share that pace's part of a server's time: four batches of a warm at
// normal take a third together, not a third each. Urgent work shares with none but urgent work.
//
// A [Task] in the context says what a task's works have in common: the pace it was asked for, and
// the sizes that its slices have come to, so that the first slice of its next call is not a
// beginner's. Work outside of any task goes at the process's own pace.
package throttle

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

// Deps is what a Throttle works with.
type Deps struct {
	Config governor.Config
	Cache  redis.UniversalClient
	// Waiting counts the invalidations and releases that wait; nil means that none ever do.
	Waiting func(ctx context.Context) (int, error)
	// Publish makes a report known to other processes, about once a second while work is under way;
	// nil means to nobody. Its errors cost nothing but the report.
	Publish func(ctx context.Context, r Report) error
}

// Throttle paces the works of one process. It is safe for concurrent use.
type Throttle struct {
	deps   Deps
	stop   context.CancelFunc
	ctx    context.Context // ends with stop
	ending sync.WaitGroup

	mu      sync.Mutex
	now     *sampling // nil while no work is under way
	used    time.Time // when a work last was
	added   time.Time // when one last was that adds memory
	turns   map[share]time.Time
	figures map[kind]*Figures
	brakes  map[tasks.Pace]Brake
}

// share is whose works take turns: the next one's begins at the time in [Throttle.turns].
type share struct {
	node   string
	pace   tasks.Pace
	urgent bool
}

// kind is what figures are kept by.
type kind struct {
	verb string
	pace tasks.Pace
}

// New returns a throttle that does nothing yet. Close it.
func New(d Deps) *Throttle {
	t := &Throttle{deps: d, turns: map[share]time.Time{}, figures: map[kind]*Figures{}, brakes: map[tasks.Pace]Brake{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// Close ends the sampling. Works go on at the pace they had come to.
func (t *Throttle) Close() {
	t.stop()
	t.ending.Wait()
}

// Task is what the works of one task have in common. It is safe for concurrent use.
type Task struct {
	mu      sync.Mutex
	pace    tasks.Pace
	urgent  bool
	streams map[stream]*flow
	brake   Brake
}

// Brake is how much slower than its pace work is, and why.
type Brake struct {
	Factor float64         `json:"factor"`
	Why    governor.Reason `json:"why,omitempty"` // "": it is not braked
}

// stream is one kind of slices on one server.
type stream struct{ node, verb string }

// flow is how a stream goes.
type flow struct {
	governor *governor.Governor
	period   time.Duration // of the last slice and the pause after it
	rest     time.Time     // no slice before this, after one that failed
}

// NewTask returns a task of that pace; "" means the process's own. Urgent work is what others wait
// for: invalidations and rollbacks.
func NewTask(p tasks.Pace, urgent bool) *Task {
	return &Task{pace: p, urgent: urgent, streams: map[stream]*flow{}}
}

// SetPace changes the pace of the works to come; "" leaves it.
func (k *Task) SetPace(p tasks.Pace) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p != "" && p != k.pace {
		k.pace, k.streams = p, map[stream]*flow{}
	}
}

// Pace returns the task's pace, "" for the process's own, and how its last slice was braked.
func (k *Task) Pace() (tasks.Pace, Brake) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pace, k.brake
}

// flow returns the flow of a stream, a new one the first time. pace is that of a task without one.
func (k *Task) flow(s stream, pace tasks.Pace) (*flow, tasks.Pace) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pace == "" {
		k.pace = pace
	}
	f := k.streams[s]
	if f == nil {
		f = &flow{governor: governor.New(k.pace)}
		k.streams[s] = f
	}
	return f, k.pace
}

func (k *Task) braked(b Brake) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.brake = b
}

type taskKey struct{}

// With returns a context whose works are the task's.
func With(ctx context.Context, k *Task) context.Context {
	return context.WithValue(ctx, taskKey{}, k)
}

// Of returns the task that a context's works are of, nil without one.
func Of(ctx context.Context) *Task {
	k, _ := ctx.Value(taskKey{}).(*Task)
	return k
}
