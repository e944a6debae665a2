package invalidation_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// turn is how one step of an actor ends.
type turn string

const (
	well    turn = ""        // as it should
	dies    turn = "dies"    // its process is gone before the step
	refused turn = "refused" // an error, and nothing was done
	lost    turn = "lost"    // it was done, but the reply was lost
)

var (
	errDied  = errors.New("the process is gone")
	errFault = errors.New("the connection was lost")
)

// actor is one process's work, cut into steps: the real code runs in a coroutine and waits
// before each round trip to Redis, and at the model's own steps, until the scheduler lets it go
// on. Between two steps nobody else runs.
type actor struct {
	w     *world
	id    string
	work  func(ctx context.Context, a *actor) error
	tries int // how often it is begun again after an error or a death

	began  int // tries so far
	next   func() (struct{}, bool)
	stop   func()
	yield  func() bool
	writes bool // the step that it waits before may change something
	turn   turn
	dead   bool
	hurt   bool // some step did not go well
	over   bool // done, or given up
	err    error

	executed func() // called once, when the server has carried out the next round trip
}

type actorKey struct{}

// actorOf returns the actor whose work ctx belongs to, nil without one.
func actorOf(ctx context.Context) *actor {
	a, _ := ctx.Value(actorKey{}).(*actor)
	return a
}

// begin runs the actor up to its first step.
func (a *actor) begin() {
	a.began++
	a.dead = false
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	a.next, a.stop = iter.Pull(func(yield func(struct{}) bool) {
		a.yield = func() bool { return yield(struct{}{}) }
		a.err = a.work(ctx, a)
	})
	a.advance(well)
}

// advance lets the actor take the step it waits for, and runs it up to the next one.
func (a *actor) advance(t turn) {
	a.turn = t
	if _, more := a.next(); more {
		return
	}
	a.stop()
	switch {
	case a.err == nil:
		a.over = true
	case a.began <= a.tries:
		a.begin()
	default:
		a.over = true
		a.w.gone[a.id] = true
	}
}

// step waits for the actor's turn, then calls do. A dead actor's steps all fail.
func (a *actor) step(label fmt.Stringer, do func() error) error {
	if a.dead {
		return errDied
	}
	a.writes = mayWrite(label)
	if !a.yield() {
		a.dead = true
		return errDied
	}
	a.w.notes = append(a.w.notes, note{a.id, label, a.turn})
	a.hurt = a.hurt || a.turn != well
	switch a.turn {
	case dies:
		a.dead = true
		return errDied
	case refused:
		return errFault
	}
	err := do()
	if a.executed != nil && err == nil {
		a.executed()
		a.executed = nil
	}
	if a.turn == lost {
		return errFault
	}
	return err
}

// stepper makes an actor's round trips wait for their turn. It is a hook of the Redis client.
type stepper struct{}

var _ redis.Hook = stepper{}

func (stepper) DialHook(next redis.DialHook) redis.DialHook { return next }

func (stepper) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		a := actorOf(ctx)
		if a == nil || cmd.Name() == "info" || cmd.Name() == "time" { // these read nothing that others write
			return next(ctx, cmd)
		}
		return a.step(sent{cmd}, func() error { return a.w.carryOut(a, cmd, func() error { return next(ctx, cmd) }) })
	}
}

// ProcessPipelineHook takes a pipeline that writes apart: it is no transaction, so others may
// come in between any two of its commands.
func (stepper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		a := actorOf(ctx)
		if a == nil {
			return next(ctx, cmds)
		}
		if !writes(cmds) {
			return fail(cmds, a.step(sent{cmds[0]}, func() error { return next(ctx, cmds) }))
		}
		var first error
		for i, cmd := range cmds {
			send := func() error { return next(ctx, cmds[i:i+1]) }
			var err error
			if cmd.Name() == "time" {
				err = send()
			} else {
				err = a.step(sent{cmd}, func() error { return a.w.carryOut(a, cmd, send) })
			}
			if errors.Is(err, errDied) || errors.Is(err, errFault) {
				return fail(cmds, err) // the connection is gone, and with it all replies
			}
			if first == nil {
				first = err
			}
		}
		return first
	}
}

// fail gives every command of a pipeline an error.
func fail(cmds []redis.Cmder, err error) error {
	if errors.Is(err, errDied) || errors.Is(err, errFault) {
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
	return err
}

func writes(cmds []redis.Cmder) bool {
	for _, cmd := range cmds {
		switch cmd.Name() {
		case "set", "zadd", "unlink", "evalsha":
			return true
		}
	}
	return false
}

// mayWrite reports whether a step may change what others see.
func mayWrite(label fmt.Stringer) bool {
	cmd, ok := label.(sent)
	return !ok || cmd.Name() == "evalsha" || writes([]redis.Cmder{cmd})
}

// doing names a step of the model's own.
type doing string

func (d doing) String() string { return string(d) }

// sent names a round trip.
type sent struct{ redis.Cmder }

func (s sent) String() string {
	var b strings.Builder
	b.WriteString(s.Name())
	args := s.Args()[1:]
	if s.Name() == "evalsha" {
		args = args[2:] // its keys tell which script it is
	}
	for _, arg := range args {
		fmt.Fprintf(&b, " %v", arg)
	}
	text := strings.NewReplacer("stoker:{site}:", "", "site:", "").Replace(b.String())
	return strconv.Quote(text[:min(len(text), 100)])
}
