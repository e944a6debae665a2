package crawl_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/source"
)

// hey is the peer in the same language.
const hey = "github.com/rakyll/hey@v0.1.4"

// BenchmarkCrawl crawls static pages of 11 kB from an nginx with one worker process, through the governor and
// with every answer judged, against wrk and hey at the same concurrency in the same run.
func BenchmarkCrawl(b *testing.B) {
	for _, tool := range []string{"nginx", "wrk"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skip(tool + " is not installed")
		}
	}
	const concurrency = 32
	lasts := 4 * time.Second
	base := startNginx(b)
	cfg := here()
	cfg.OriginConcurrency = concurrency
	spec := crawl.Spec{Base: base}
	expect := crawl.Expect{Key: "page:{{.Path}}", Header: map[string]string{"Content-Type": "text/html"}}
	items := make([]string, 20_000)
	for i := range items {
		items[i] = fmt.Sprintf("/articles/%d/a-title-of-usual-length", i)
	}
	peers := map[string][]string{
		"wrk": {"wrk", "-c", strconv.Itoa(concurrency), "-t", "1", "-d", lasts.String(), base + items[0]},
		"hey": {"go", "run", hey, "-c", strconv.Itoa(concurrency), "-z", lasts.String(), base + items[0]},
	}
	sum := map[string]float64{}
	src := openWith(b, spec, expect, cfg, nil)
	crawlFor(b, src, items, time.Second) // the ramp
	for b.Loop() {
		sum["stoker"] += crawlFor(b, src, items, lasts)
		for name, command := range peers {
			sum[name] += requestsPerSecond(b, command)
		}
	}
	for name, all := range sum {
		b.ReportMetric(all/float64(b.N), name+"-req/s")
	}
	b.ReportMetric(sum["stoker"]/sum["wrk"], "of-wrk")
	b.ReportMetric(sum["stoker"]/sum["hey"], "of-hey")
}

// crawlFor crawls again and again for a while, and returns the pages a second.
func crawlFor(b *testing.B, s *crawl.Source, items []string, lasts time.Duration) float64 {
	b.Helper()
	pages := 0
	begun := time.Now()
	for time.Since(begun) < lasts {
		err := s.Walk(b.Context(), source.Part{Items: items}, "", func(c source.Chunk) error {
			if len(c.Failed) > 0 {
				b.Fatalf("%+v", c.Failed[0])
			}
			pages += len(c.Entries)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return float64(pages) / time.Since(begun).Seconds()
}

var perSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

func requestsPerSecond(b *testing.B, command []string) float64 {
	b.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	m := perSecond.FindSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("%s: %v\n%s", command[0], err, out)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// startNginx serves one page of 11 kB at every address and returns its base.
func startNginx(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	conf := fmt.Sprintf(`worker_processes 1; daemon off; pid %[1]s/pid; error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 1000000000; default_type text/html;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { listen %[2]s; root %[1]s; location / { try_files /page.html =404; } }
}`, dir, addr)
	for name, text := range map[string][]byte{"nginx.conf": []byte(conf), "page.html": bytes.Repeat([]byte("x"), 11_000)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // its worker is another user where it is started by root
		if err := os.Chmod(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	var stderr bytes.Buffer
	cmd := exec.Command("nginx", "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for range 500 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return "http://" + addr
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatalf("nginx does not answer: %s", stderr.String())
	return ""
}
