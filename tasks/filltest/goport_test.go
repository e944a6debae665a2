package filltest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// goPort is tasks.Client behind the suite's protocol.
type goPort struct {
	lines  *bufio.Reader
	out    *json.Encoder
	fault  fault
	client *tasks.Client
	conns  []redis.UniversalClient // queue and cache, and both once more for a fault's own use
}

// servePort answers requests until its input ends, and returns the process's exit code.
func servePort(in io.Reader, out io.Writer, fault string) int {
	p := &goPort{lines: bufio.NewReader(in), out: json.NewEncoder(out), fault: faults()[fault]}
	redis.SetLogger(silent{})
	for {
		r, err := p.next()
		switch {
		case errors.Is(err, io.EOF):
			return 0
		case err == nil && r.Do == "open":
			err = p.open(*r.Settings)
		case err == nil:
			err = p.fetch(r)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func (p *goPort) next() (Request, error) {
	line, err := p.lines.ReadBytes('\n')
	if err != nil {
		return Request{}, err
	}
	var r Request
	return r, json.Unmarshal(line, &r)
}

func (p *goPort) open(s Settings) error {
	if p.client != nil {
		_ = p.client.Close()
	}
	for _, c := range p.conns {
		_ = c.Close()
	}
	if err := sameScripts(s.Scripts); err != nil {
		return err
	}
	p.conns = nil
	for _, url := range []string{s.QueueURL, s.CacheURL, s.QueueURL, s.CacheURL} {
		opt, err := redis.ParseURL(url)
		if err != nil {
			return err
		}
		opt.MaxRetries, opt.DialerRetries = -1, 1 // a Redis that is away stays away
		opt.ReadTimeout = 5 * time.Second
		p.conns = append(p.conns, redis.NewClient(opt))
	}
	queue, cache := p.conns[0], p.conns[1]
	hook := &spoiler{fault: p.fault, queue: p.conns[2], cache: p.conns[3]}
	queue.AddHook(hook)
	cache.AddHook(hook)
	if p.fault.open != nil {
		p.fault.open(p, &s)
	}
	var err error
	p.client, err = tasks.NewClientFrom(queue, cache, tasks.Config{
		App: s.App, KeyTemplate: s.KeyTemplate, FillLimit: time.Duration(s.FillLimit) * time.Millisecond,
		OriginLag: time.Duration(s.OriginLag) * time.Millisecond, Release: s.Release,
	})
	if err != nil {
		return err
	}
	return p.out.Encode(Reply{Say: "ready"})
}

// sameScripts reports whether a port is handed the scripts that the Go client runs.
func sameScripts(dir string) error {
	for name, want := range tasks.FillScripts() {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			return fmt.Errorf("%s is not the Go client's: %v", name, err)
		}
	}
	return nil
}

func (p *goPort) fetch(r Request) error {
	if p.fault.before != nil {
		if wrong := p.fault.before(p, r); wrong != "" {
			return p.out.Encode(Reply{Say: "done", Error: wrong})
		}
	}
	tags := make([]string, len(r.Tags))
	for i, t := range r.Tags {
		tags[i] = string(t)
	}
	load := func(context.Context) ([]byte, error) {
		if err := p.out.Encode(Reply{Say: "load"}); err != nil {
			return nil, err
		}
		r, err := p.next()
		if err == nil && r.Do == "failed" {
			err = errors.New(r.Reason)
		}
		return r.Value, err
	}
	got, err := p.client.Fetch(context.Background(), string(r.Key), tags, time.Duration(r.TTL)*time.Millisecond, load)
	done := Reply{Say: "done", Value: got.Value, Hit: got.Hit, Stored: got.Stored, Release: got.Release}
	if err != nil {
		done = Reply{Say: "done", Error: err.Error()}
	}
	return p.out.Encode(done)
}
