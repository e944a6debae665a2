package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// pointerAge is how long a client trusts what it knows of the active release without a message.
// A message can be lost with its connection; a reader that lags behind by this much still reads
// a namespace that is fresh, because standby releases receive invalidations too.
const pointerAge = 2 * time.Second

// pointer follows the active release. Pinned, it never asks.
type pointer struct {
	queue redis.UniversalClient
	keys  Keys

	once   sync.Once // starts the subscription at the first use
	cancel context.CancelFunc
	ended  sync.WaitGroup
	ctx    context.Context // the subscription's: it ends with the client, not with a call

	mu     sync.Mutex
	pinned string
	active string    // guarded by mu
	asked  time.Time // guarded by mu; when active was read or told
}

func newPointer(queue redis.UniversalClient, keys Keys, pinned string) *pointer {
	ctx, cancel := context.WithCancel(context.Background())
	return &pointer{queue: queue, keys: keys, pinned: pinned, ctx: ctx, cancel: cancel}
}

func (p *pointer) close() {
	p.once.Do(func() {}) // no subscription after this
	p.cancel()
	p.ended.Wait()
}

func (p *pointer) release(ctx context.Context) (string, error) {
	if p.pinned != "" {
		return p.pinned, nil
	}
	p.once.Do(p.subscribe)
	p.mu.Lock()
	active, fresh := p.active, time.Since(p.asked) < pointerAge
	p.mu.Unlock()
	if active != "" && fresh {
		return active, nil
	}
	id, err := p.queue.Get(ctx, p.keys.Active()).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", fmt.Errorf("%w: activate one with `stoker release activate ID`, or pin this client to one (STOKER_RELEASE)", ErrNoRelease)
	case err != nil && active != "":
		return active, nil // the queue Redis is away: go on with what was true last
	case err != nil:
		return "", fmt.Errorf("read active release: %w", err)
	}
	p.set(id)
	return id, nil
}

func (p *pointer) set(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active, p.asked = id, time.Now()
}

func (p *pointer) subscribe() {
	sub := p.queue.Subscribe(p.ctx, p.keys.ActiveChannel())
	p.ended.Add(1)
	go func() {
		defer p.ended.Done()
		defer sub.Close()
		for {
			select {
			case <-p.ctx.Done():
				return
			case m, ok := <-sub.Channel():
				if !ok {
					return
				}
				p.set(m.Payload)
			}
		}
	}()
}
