package filltest

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/alicebob/miniredis/v2/proto"
)

// proxy stands between a port and one Redis. It passes on one command of a connection at a time,
// and the next only after the reply, also of a pipeline: between any two, the suite may act.
type proxy struct {
	url      string
	upstream string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	before func(command []string) // guarded by mu; called before each command is passed on
	conns  map[net.Conn]bool      // guarded by mu; nil once the proxy is cut

	gone chan struct{} // closed by cut
}

func newProxy(upstream string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{url: "redis://" + l.Addr().String() + "/0", upstream: upstream, listener: l, conns: map[net.Conn]bool{}, gone: make(chan struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// cut ends every connection, and no other is taken: to the port, the Redis is away. What is held
// back is never passed on.
func (p *proxy) cut() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	if conns == nil {
		return
	}
	close(p.gone)
	_ = p.listener.Close()
	for c := range conns {
		_ = c.Close()
	}
	p.running.Wait()
}

// watch has f called before each command, on the connection's own goroutine; nil ends it.
func (p *proxy) watch(f func(command []string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = f
}

// held is a command that a proxy does not pass on yet.
type held struct {
	reached chan struct{} // closed when such a command has come
	release func()
}

// hold holds back the commands that match.
func (p *proxy) hold(match func(command []string) bool) held {
	reached, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.watch(func(command []string) {
		if !match(command) {
			return
		}
		once.Do(func() { close(reached) })
		select {
		case <-released:
		case <-p.gone:
		}
	})
	return held{reached, sync.OnceFunc(func() { close(released) })}
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.upstream)
		if err != nil || !p.keep(c, server) {
			_ = c.Close()
			continue
		}
		p.running.Go(func() {
			defer p.drop(c, server)
			p.serve(c, server)
		})
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.conns == nil {
			_ = c.Close()
			continue
		}
		p.conns[c] = true
	}
	return p.conns != nil
}

func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// serve passes on commands and replies until either side ends.
func (p *proxy) serve(client, server net.Conn) {
	requests, replies := bufio.NewReader(client), bufio.NewReader(server)
	for {
		raw, err := proto.Read(requests)
		if err != nil {
			return
		}
		command, err := proto.ReadStrings(raw)
		if err != nil || len(command) == 0 {
			return
		}
		if !p.pass(command) {
			return
		}
		if _, err := io.WriteString(server, raw); err != nil {
			return
		}
		if strings.EqualFold(command[0], "subscribe") { // from here on the server speaks by itself
			p.running.Go(func() { _, _ = io.Copy(server, requests); _ = server.Close() })
			_, _ = io.Copy(client, replies)
			return
		}
		reply, err := proto.Read(replies)
		if err != nil {
			return
		}
		if _, err := io.WriteString(client, reply); err != nil {
			return
		}
	}
}

// pass waits until the command may go on; false when the proxy was cut meanwhile.
func (p *proxy) pass(command []string) bool {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(command)
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}
