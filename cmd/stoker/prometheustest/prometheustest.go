// Package prometheustest runs a real Prometheus for tests.
package prometheustest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/alphanode/stoker/worker/redistest"
)

// Prometheus is a server on loopback that scrapes one console every second.
type Prometheus struct {
	URL  string
	addr string
	bin  string
}

// Find returns a Prometheus that has not been started, so that its address can be told before. The test is
// skipped where none is installed.
func Find(t *testing.T) *Prometheus {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: Prometheus was not asked")
	}
	bin, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("no prometheus on the PATH (Debian's package prometheus has it): Prometheus was not asked")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &Prometheus{URL: "http://" + l.Addr().String(), addr: l.Addr().String(), bin: bin}
}

// Scrape runs it until the test ends, on the console at host:port with a token, and returns when the console
// was read twice: from then on rates have a value.
func (p *Prometheus) Scrape(t *testing.T, console, token string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: stoker, authorization: {credentials: %q}, static_configs: [{targets: [%q]}]}]\n", token, console)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(p.bin, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", p.addr, "--log.level", "warn")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("prometheus said:\n%s", said)
		}
	})
	redistest.Eventually(t, "two scrapes", func() bool {
		n, err := p.Query(`count_over_time(up{job="stoker"}[1m]) >= 2 and up == 1`)
		return err == nil && n == 1
	})
}

// client keeps no connection, so that none outlives a test.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// Query returns how many series an expression has had at any second of the last five minutes.
func (p *Prometheus) Query(expr string) (series int, err error) {
	now := time.Now()
	asked := url.Values{"query": {expr}, "start": {now.Add(-5 * time.Minute).Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)}, "step": {"1"}}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.URL+"/api/v1/query_range?"+asked.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("query %q: %s", expr, answer.Error)
	}
	return len(answer.Data.Result), nil
}
