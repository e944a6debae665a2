package namespace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxRounds is how often a walk looks after shards that have gained keys meanwhile, with a pause
	// that grows to maxPause in between: slots may be moved for some minutes on end.
	maxRounds = 30
	maxPause  = 10 * time.Second
	// failPatience is how long a shard may fail before a walk gives up.
	failPatience = time.Minute
	failPause    = 250 * time.Millisecond
)

// everywhere runs visit on the server, or on every primary of a Cluster in parallel, until no key that
// was there from the start to the end can have been missed; doc.go has the proof. So a primary may be
// visited again, and each visit goes over all of its keys.
func (c *Cache) everywhere(ctx context.Context, what Work, visit func(ctx context.Context, w *work) error) error {
	if !c.sharded {
		return visit(ctx, c.work(ctx, what))
	}
	return c.walk(ctx, what, &position{}, func(ctx context.Context, w *work, _ uint64) error { return visit(ctx, w) })
}

// walk goes over the primaries of a Cluster from a position on.
func (c *Cache) walk(ctx context.Context, what Work, at *position, visit func(ctx context.Context, w *work, from uint64) error) error {
	cl := newCluster(c.client.(*redis.ClusterClient))
	defer cl.close()
	now, err := cl.look(ctx)
	if err != nil {
		return err
	}
	at.begin(now)
	var failing time.Time // since when some shard does
	for round, late := 0, false; ; round, late = round+1, true {
		failed, err := c.round(ctx, cl, what, now, at, late, visit)
		if err != nil {
			return err
		}
		pause := time.Duration(0)
		switch {
		case failed == nil:
			failing, pause = time.Time{}, min(time.Duration(round)*failPause, maxPause)
		case failing.IsZero():
			failing, pause = time.Now(), failPause
		case time.Since(failing) > failPatience:
			return failed
		default:
			pause = failPause
		}
		if now, err = cl.look(ctx); err != nil {
			return errors.Join(err, failed)
		}
		left := at.advance(now)
		switch {
		case left == 0:
			return nil
		case failed != nil:
			round--
		case round+1 == maxRounds:
			return fmt.Errorf("the Cluster's slots are being moved: after %d passes keys may still have been missed; try again when that has ended", maxRounds)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// round visits the shards that a position has left, in parallel. failed is why some of them could
// not be gone through now; err ends the walk.
func (c *Cache) round(ctx context.Context, cl *cluster, what Work, now topology, at *position, late bool, visit func(ctx context.Context, w *work, from uint64) error) (failed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	for id, from := range at.left() {
		s := now[id]
		if s == nil || !at.same(s) {
			continue // another process has its keys, which is gone through from its start
		}
		running.Go(func() {
			what := what
			what.Node = s.addr
			w := c.work(ctx, what)
			w.on, w.shard, w.late = cl.server(s.addr), s, late
			one := visit(ctx, w, from)
			if one == nil {
				at.finish(id)
				return
			}
			one = fmt.Errorf("primary %s: %w", s.addr, one)
			mu.Lock()
			defer mu.Unlock()
			if transient(one) {
				failed = one
				return
			}
			if err == nil {
				err = one
			}
			cancel()
		})
	}
	running.Wait()
	return failed, err
}

// ended is an error of who is handed things by a walk: it ends the walk whatever it is.
type ended struct{ error }

func (e ended) Unwrap() error { return e.error }

// end marks such an error.
func end(err error) error {
	if err == nil {
		return nil
	}
	return ended{err}
}

// transient reports an error that a Cluster gives while a failover or the moving of slots is
// under way.
func transient(err error) bool {
	var reply redis.Error
	var network net.Error
	switch {
	case errors.As(err, new(ended)) || errors.Is(err, context.Canceled):
		return false
	case errors.Is(err, errNoSlots):
		return true
	case errors.As(err, &reply):
		text := reply.Error()
		for _, sign := range []string{"MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "EXECABORT"} {
			if strings.HasPrefix(text, sign) {
				return true
			}
		}
		return strings.Contains(text, nonLocal) || strings.Contains(text, "cluster is down")
	}
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// nonLocal is in the error of a script that touches a key which its server does not serve, or not
// for the moment.
const nonLocal = "access a non local key"

// patiently repeats something that is safe twice while a Cluster fails over or moves slots.
func (c *Cache) patiently(ctx context.Context, do func() error) error {
	cl, ok := c.client.(*redis.ClusterClient)
	for begun := time.Now(); ; {
		err := do()
		if err == nil || !ok || !transient(err) || ctx.Err() != nil || time.Since(begun) > failPatience {
			return err
		}
		cl.ReloadState(ctx)
		if err := sleep(ctx, failPause); err != nil {
			return err
		}
	}
}
