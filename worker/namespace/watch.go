package namespace

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// toldChannel is where a server tells an older client which keys were written to.
	toldChannel = "__redis__:invalidate"
	// maxTold is how many changed keys a watch remembers; with more it knows nothing.
	maxTold = 10_000
	// watchPatience is how long a server may take to confirm that a watch has heard of everything.
	watchPatience = 10 * time.Second
)

// watch hears from the server which keys under a prefix anybody writes to, by its client-side caching
// in broadcast mode. It tells what came while a SCAN was under way, without another one.
//
// One connection asks for it and another is told; while both live, nothing goes unheard. A nil watch
// is one of a server that does not offer this, or not to this user.
type watch struct {
	client *redis.Client
	asker  *redis.Conn
	told   *redis.PubSub
	id     int64         // of the connection that is told
	pong   chan struct{} // an answer to a ping of that connection
	ended  chan struct{} // closed when it hears no more

	mu   sync.Mutex
	keys map[string]bool // nil when there were too many
}

// watch begins to listen, unless the server is one of several, or not able or willing to tell.
func (c *Cache) watch(ctx context.Context, prefix string) *watch {
	shared, ok := c.client.(*redis.Client)
	if !ok {
		return nil
	}
	opt := *shared.Options()
	opt.Protocol = 2 // where what is told comes as messages
	opt.MinIdleConns, opt.PoolSize = 0, 2
	opt.DisableIdentity = true
	w := &watch{pong: make(chan struct{}, 1), ended: make(chan struct{}), keys: map[string]bool{}}
	opt.OnConnect = func(ctx context.Context, cn *redis.Conn) (err error) {
		if first := shared.Options().OnConnect; first != nil {
			err = first(ctx, cn)
		}
		if err == nil && w.id == 0 { // the first connection is the one that is told
			w.id, err = cn.ClientID(ctx).Result()
		}
		return err
	}
	w.client = redis.NewClient(&opt)
	if err := w.begin(ctx, prefix); err != nil {
		close(w.ended)
		w.close()
		return nil
	}
	go w.listen()
	return w
}

// begin makes both connections.
func (w *watch) begin(ctx context.Context, prefix string) error {
	w.told = w.client.Subscribe(ctx, toldChannel)
	if _, err := w.told.ReceiveTimeout(ctx, watchPatience); err != nil {
		return err
	}
	w.asker = w.client.Conn()
	return w.asker.Do(ctx, "CLIENT", "TRACKING", "ON", "REDIRECT", w.id, "BCAST", "PREFIX", prefix).Err()
}

// listen remembers what it is told, until the connection ends.
func (w *watch) listen() {
	defer close(w.ended)
	for {
		message, err := w.told.Receive(context.Background())
		if err != nil { // also what a FLUSHALL makes the server say
			return
		}
		switch m := message.(type) {
		case *redis.Pong:
			w.pong <- struct{}{}
		case *redis.Message:
			w.hear(m.PayloadSlice)
		}
	}
}

func (w *watch) hear(keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if w.keys == nil {
			return
		}
		w.keys[key] = true
		if len(w.keys) > maxTold {
			w.keys = nil
		}
	}
}

// changed returns the keys that were written to or deleted between the watch's beginning and the call;
// ok is false where some may be missing.
func (w *watch) changed(ctx context.Context) (keys []string, ok bool) {
	if w == nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	// A server forgets what a connection asked for when that breaks, and tells the one that followed it
	// so. What was written before this command's answer is told before the ping is answered.
	if to, err := w.asker.Do(ctx, "CLIENT", "GETREDIR").Int64(); err != nil || to != w.id {
		return nil, false
	}
	if err := w.told.Ping(ctx); err != nil {
		return nil, false
	}
	select {
	case <-w.pong:
	case <-w.ended:
		return nil, false
	case <-ctx.Done():
		return nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.keys {
		keys = append(keys, key)
	}
	return keys, w.keys != nil
}

// close ends the watch.
func (w *watch) close() {
	if w == nil {
		return
	}
	if w.told != nil {
		_ = w.told.Close()
	}
	<-w.ended
	if w.asker != nil {
		_ = w.asker.Close()
	}
	_ = w.client.Close()
}
