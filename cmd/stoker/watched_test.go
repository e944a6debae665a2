package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/alphanode/stoker/cmd/stoker/prometheustest"
	"github.com/alphanode/stoker/worker/redistest"
)

// watched are the questions that people have ready: the dashboard's, the alerts', and those of the list of metrics.
func watched(t *testing.T) (queries []string) {
	t.Helper()
	read := func(path string) []byte {
		t.Helper()
		raw, err := os.ReadFile("../../deploy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var board struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(read("grafana/stoker.json"), &board); err != nil {
		t.Fatal(err)
	}
	for _, a := range board.Annotations.List {
		queries = append(queries, a.Expr)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries = append(queries, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Expr string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(read("prometheus/rules.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			queries = append(queries, r.Expr)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| [^`|]+ \\| `([^`]+)` \\|$").FindAllSubmatch(read("metrics.md"), -1) {
		queries = append(queries, string(m[1]))
	}
	return queries
}

// hotOnly is the metric that only a plan with a hot list has.
const hotOnly = "stoker_certificate_hit_ratio"

// TestWatched: a real Prometheus that scraped a real site answers every question there is for it, and whatever
// a site in good order has shows.
func TestWatched(t *testing.T) {
	t.Parallel()
	prometheus := prometheustest.Find(t)
	s := newShopOf(t, 1000, "STOKER_PROMETHEUS_URL="+prometheus.URL)
	site := newTold(t)
	plan := s.plan
	text, err := os.ReadFile(plan)
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for i := range 30 {
		pages = append(pages, fmt.Sprintf("/page-%d", i))
	}
	crawl := "  - name: pages\n    crawl: {base: \"" + site.URL + "\", urls: [" + strings.Join(pages, ", ") + "], headers: {X-Release: \"{{.Release}}\"}}\n    expect: {header: {X-Release: \"{{.Release}}\"}}\n" +
		"probes: {base: \"" + site.URL + "\", paths: [/page-0, /page-1], count: 20}\n"
	if err := os.WriteFile(plan, append(text, crawl...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start("worker")
	s.start("scheduler")
	web := s.start("web")
	address := web.address()
	prometheus.Scrape(t, address, "")
	s.must("release", "create", "r1")
	s.must("warm", "r1", "--wait")
	s.must("release", "activate", "r1", "--wait")
	s.must("release", "create", "r2")
	s.must("warm", "r2", "--wait")
	s.must("release", "activate", "r2", "--wait")
	s.edit(0, 50)
	s.must("snapshot", "r1", "--wait")
	s.must("drill", "--wait")
	s.must("baseline", "r2", "--wait")
	s.run("health") // whatever it thinks of this machine
	s.must("freshness", "--now")
	redistest.Eventually(t, "a scrape of all that", func() bool {
		n, err := prometheus.Query("stoker_drill_age_seconds and on () stoker_freshness_report_age_seconds")
		return err == nil && n == 1
	})

	page := scrape(t, address)
	problems, err := promlint.New(bytes.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		// asynq's own name, which asynqmon's page asks for; the other is Go's own collector.
		if p.Metric != "asynq_tasks_enqueued_total" {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile("../../deploy/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(table, -1) {
		name := string(m[1])
		family := families[name]
		if n, err := prometheus.Query(name); err != nil || (n == 0) != (name == hotOnly) {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
		counts := strings.HasSuffix(name, "_total") && name != "asynq_tasks_enqueued_total"
		if family != nil && counts != (family.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s is a %s", name, family.GetType())
		}
	}
	for _, query := range watched(t) {
		n, err := prometheus.Query(query)
		if err != nil {
			t.Error(err)
			continue
		}
		if n == 0 && !restful(query) {
			t.Errorf("no answer to %s", query)
		}
	}
}

// address is where a console listens.
func (p *process) address() (addr string) {
	p.t.Helper()
	redistest.Eventually(p.t, "the console to listen", func() bool {
		m := regexp.MustCompile(`"addr":"([^"]+)"`).FindStringSubmatch(p.text())
		if m != nil {
			addr = m[1]
		}
		return m != nil
	})
	return addr
}

// restful reports whether a query has no answer while all is well: a comparison, an absence, a change, or what
// only other sites have.
func restful(query string) bool {
	return regexp.MustCompile(`[<>]|==|absent|unless`).MatchString(query) || strings.Contains(query, hotOnly)
}

// scrape reads a console's metrics.
func scrape(t *testing.T, address string) []byte {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", resp.StatusCode, err)
	}
	return page
}
