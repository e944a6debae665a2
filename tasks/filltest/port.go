package filltest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// patience is far more than a port takes for a step, also on a busy machine.
const patience = 30 * time.Second

// Request is what the suite tells a port: open, fetch, or the answer to its load.
type Request struct {
	Do       string    `json:"do"` // "open", "fetch", "loaded" or "failed"
	Settings *Settings `json:"settings,omitempty"`
	Key      []byte    `json:"key,omitempty"`  // base64 in JSON, as all bytes are
	Tags     [][]byte  `json:"tags,omitempty"` // none is as good as an empty list
	TTL      int64     `json:"ttl_ms,omitempty"`
	Value    []byte    `json:"value,omitempty"` // of "loaded"; none is the empty value
	Reason   string    `json:"reason,omitempty"`
}

// Settings is what an app server is configured with. Opening again replaces the settings and every
// connection; a port does not connect before the first fetch.
type Settings struct {
	App         string `json:"app"`
	QueueURL    string `json:"queue_url"`
	CacheURL    string `json:"cache_url"`
	KeyTemplate string `json:"key_template"`
	FillLimit   int64  `json:"fill_limit_ms"`
	OriginLag   int64  `json:"origin_lag_ms"`
	Release     string `json:"release"` // "" to follow the active one
	Scripts     string `json:"scripts"` // the directory that `stoker fill-scripts` writes
}

// Reply is what a port says: ready (to open), load (it asks for the value), or done.
type Reply struct {
	Say     string `json:"say"`   // "ready", "load" or "done"
	Error   string `json:"error"` // of done: what the fetch failed with; "" when it did not
	Value   []byte `json:"value"`
	Hit     bool   `json:"hit"`
	Stored  bool   `json:"stored"`
	Release string `json:"release"`
}

// process is a running port.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan Reply // closed when the process ends
	idle    bool       // it owes no reply
	stderr  bytes.Buffer
	bad     error // what it said that is no reply; to be read once replies is closed
}

func startProcess(command []string, env []string) (*process, error) {
	p := &process{cmd: exec.Command(command[0], command[1:]...), replies: make(chan Reply, 1), idle: true}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the port: %w", err)
	}
	go p.read(out)
	return p, nil
}

func (p *process) read(out io.Reader) {
	defer close(p.replies)
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var r Reply
		if err := json.Unmarshal(line, &r); err != nil {
			p.bad = fmt.Errorf("the port said %.200q: %w", line, err)
			return
		}
		p.replies <- r
	}
}

func (p *process) tell(r Request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	p.idle = false
	_, err = p.in.Write(append(line, '\n'))
	return err
}

// hear returns the port's next reply.
func (p *process) hear() (Reply, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case r, ok := <-p.replies:
		if !ok {
			return r, p.ended()
		}
		p.idle = r.Say != "load"
		return r, nil
	case <-limit.C:
		return Reply{}, fmt.Errorf("the port said nothing for %v", patience)
	}
}

// ended says why there are no more replies.
func (p *process) ended() error {
	if p.bad != nil {
		return p.bad
	}
	_ = p.cmd.Wait()
	return fmt.Errorf("the port ended: %v\n%s", p.cmd.ProcessState, p.stderr.String())
}

// kill ends the process as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	for range p.replies { // until it is gone
	}
	_ = p.in.Close()
	_ = p.cmd.Wait()
}
