package invalidation_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	lua "github.com/yuin/gopher-lua"
)

// memory is a Redis in this process's memory: miniredis's data and commands, a Lua state that
// lives as long as it does, and a connection without a network. A history makes a hundred round
// trips; over TCP, with a new Lua state for each script, they would take all of its time.
//
// One goroutine at a time may use it.
type memory struct {
	mini    *miniredis.Miniredis
	lua     *lua.LState
	scripts map[string]*lua.LFunction  // SHA-1 → compiled
	edit    func(script string) string // what a flaw makes of a script; nil for nothing
	replies bytes.Buffer               // of the commands inside a script
	inner   *server.Peer               // who sends them
	reader  *bufio.Reader              // reads them
}

func newMemory(t *testing.T) *memory {
	m := &memory{mini: miniredis.RunT(t), lua: lua.NewState(), scripts: map[string]*lua.LFunction{}, reader: bufio.NewReader(nil)}
	t.Cleanup(m.lua.Close)
	m.inner = server.NewPeer(bufio.NewWriter(&m.replies))
	calls := m.lua.NewTable()
	calls.RawSetString("call", m.lua.NewFunction(m.call))
	calls.RawSetString("pcall", m.lua.NewFunction(m.call)) // an error shows that the model lacks something
	calls.RawSetString("sha1hex", m.lua.NewFunction(func(l *lua.LState) int {
		l.Push(lua.LString(sha1hex(l.CheckString(1))))
		return 1
	}))
	m.lua.SetGlobal("redis", calls)
	return m
}

// client returns a client whose one connection ends here.
func (m *memory) client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: "memory", PoolSize: 1, MaxRetries: -1, Protocol: 2, DisableIdentity: true,
		ConnMaxIdleTime: -1, ReadTimeout: -1, WriteTimeout: -1,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			w := &wire{memory: m}
			w.peer = server.NewPeer(bufio.NewWriter(&w.out))
			return w, nil
		},
	})
}

// wire is a client's connection: what is written to it is carried out at once.
type wire struct {
	*memory
	peer    *server.Peer
	in, out bytes.Buffer
}

var _ net.Conn = (*wire)(nil)

func (w *wire) Write(p []byte) (int, error) {
	w.in.Write(p)
	for {
		args, n := parse(w.in.Bytes())
		if n == 0 {
			return len(p), nil
		}
		w.in.Next(n)
		w.do(w.peer, args)
	}
}

func (w *wire) Read(p []byte) (int, error) {
	if w.out.Len() == 0 {
		return 0, errors.New("nothing to read: a command without a reply")
	}
	return w.out.Read(p)
}

func (*wire) Close() error                     { return nil }
func (*wire) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (*wire) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*wire) SetDeadline(time.Time) error      { return nil }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

// parse returns the first command in a client's bytes and its length, 0 when it is not whole.
func parse(b []byte) (args []string, length int) {
	size := func(mark byte) (int, bool) {
		end := bytes.IndexByte(b[length:], '\n')
		if end < 0 {
			return 0, false
		}
		line := b[length : length+end]
		length += end + 1
		n, err := strconv.Atoi(string(bytes.TrimSuffix(line[1:], []byte("\r"))))
		if err != nil || line[0] != mark {
			panic(fmt.Sprintf("a client sent %q", line))
		}
		return n, true
	}
	n, ok := size('*')
	if !ok {
		return nil, 0
	}
	args = make([]string, n)
	for i := range args {
		n, ok := size('$')
		if !ok || len(b) < length+n+2 {
			return nil, 0
		}
		args[i] = string(b[length : length+n])
		length += n + 2
	}
	return args, length
}

// do carries a command out.
func (m *memory) do(peer *server.Peer, args []string) {
	switch strings.ToLower(args[0]) {
	case "eval":
		m.eval(peer, m.learn(args[1]), args[2:])
	case "evalsha":
		m.eval(peer, args[1], args[2:])
	case "script": // LOAD
		peer.WriteBulk(m.learn(args[2]))
	default:
		m.mini.Server().Dispatch(peer, args)
	}
	peer.Flush()
}

func sha1hex(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// learn compiles a script and returns its SHA-1.
func (m *memory) learn(source string) string {
	sha := sha1hex(source)
	if m.edit != nil {
		source = m.edit(source)
	}
	f, err := m.lua.LoadString(source)
	if err != nil {
		panic(err)
	}
	m.scripts[sha] = f
	return sha
}

// eval runs a script; args are the number of keys, the keys, the arguments.
func (m *memory) eval(peer *server.Peer, sha string, args []string) {
	f, ok := m.scripts[sha]
	if !ok {
		peer.WriteError("NOSCRIPT No matching script. Please use EVAL.")
		return
	}
	n, _ := strconv.Atoi(args[0])
	m.lua.SetGlobal("KEYS", m.table(args[1:1+n]))
	m.lua.SetGlobal("ARGV", m.table(args[1+n:]))
	if err := m.lua.CallByParam(lua.P{Fn: f, NRet: 1, Protect: true}); err != nil {
		peer.WriteError("ERR " + strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	reply := m.lua.Get(-1)
	m.lua.Pop(1)
	write(peer, reply)
}

func (m *memory) table(values []string) *lua.LTable {
	t := m.lua.CreateTable(len(values), 0)
	for _, v := range values {
		t.Append(lua.LString(v))
	}
	return t
}

// call is redis.call.
func (m *memory) call(l *lua.LState) int {
	args := make([]string, l.GetTop())
	for i := range args {
		args[i] = l.CheckString(i + 1)
	}
	m.mini.Server().Dispatch(m.inner, args)
	m.inner.Flush()
	m.reader.Reset(&m.replies)
	reply, err := server.ParseReply(m.reader)
	m.replies.Reset()
	if err != nil {
		l.RaiseError("%v", err)
	}
	l.Push(m.value(reply))
	return 1
}

// value turns a reply into what a script sees, as Redis converts it.
func (m *memory) value(reply any) lua.LValue {
	switch r := reply.(type) {
	case nil:
		return lua.LFalse
	case int:
		return lua.LNumber(r)
	case string:
		return lua.LString(r)
	case server.Simple:
		t := m.lua.NewTable()
		t.RawSetString("ok", lua.LString(r))
		return t
	case []any:
		t := m.lua.CreateTable(len(r), 0)
		for _, item := range r {
			t.Append(m.value(item))
		}
		return t
	}
	panic(fmt.Sprintf("a reply of type %T", reply))
}

// write sends what a script returns, as Redis converts it.
func write(peer *server.Peer, v lua.LValue) {
	switch v := v.(type) {
	case lua.LNumber:
		peer.WriteInt(int(v))
	case lua.LString:
		peer.WriteBulk(string(v))
	case *lua.LTable:
		peer.WriteLen(v.Len())
		for i := range v.Len() {
			write(peer, v.RawGetInt(i+1))
		}
	case lua.LBool:
		if v {
			peer.WriteInt(1)
		} else {
			peer.WriteNull()
		}
	default:
		peer.WriteNull()
	}
}
