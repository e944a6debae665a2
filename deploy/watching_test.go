package deploy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/worker/governor/throttle"
	"github.com/alphanode/stoker/worker/warm"
	"github.com/alphanode/stoker/worker/warm/origin"
)

const (
	rules        = "prometheus/rules.yaml"
	rulesTest    = "prometheus/rules_test.yaml"
	dashboard    = "grafana/stoker.json"
	metricsTable = "metrics.md"
	runbooks     = "runbooks.md"
	runbookRoot  = "https://github.com/alphanode/stoker/blob/main/deploy/runbooks.md#"
)

type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readYAML[T any](t *testing.T, path string) (v T) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// anchors returns the fragments that a Markdown file's headings can be reached by, as GitHub makes them.
func anchors(markdown string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(markdown, -1) {
		name := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// metric is one that stoker tells Prometheus.
type metric struct{ name, labels, help string }

// metrics returns them, by name.
func metrics(t *testing.T) []metric {
	t.Helper()
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		web.Describe(described)
		throttle.Collector{}.Describe(described)
		origin.Collector{}.Describe(described)
		warm.Collector{}.Describe(described)
	}()
	var all []metric
	for d := range described {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("unknown form of a description: %s", d)
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, metric{m[1], strings.ReplaceAll(m[3], ",", ", "), help})
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all
}

var description = regexp.MustCompile(`^Desc\{fqName: "([a-z_]+)", help: (".*"), unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

// metricNames returns the names that a query may hold.
func metricNames(t *testing.T) []string {
	t.Helper()
	names := []string{"up"}
	for _, m := range metrics(t) {
		names = append(names, m.name)
	}
	return names
}

var update = flag.Bool("update", false, "rewrite the table of metrics")

// TestMetricsTable: the document lists what there is, in the code's own words.
func TestMetricsTable(t *testing.T) {
	const begin, end = "<!-- metrics -->\n", "<!-- /metrics -->"
	table := begin + "| metric | labels | tells |\n|---|---|---|\n"
	for _, m := range metrics(t) {
		labels := ""
		if m.labels != "" {
			labels = "`" + strings.ReplaceAll(m.labels, ", ", "`, `") + "`"
		}
		table += fmt.Sprintf("| `%s` | %s | %s |\n", m.name, labels, m.help)
	}
	text := read(t, metricsTable)
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", metricsTable)
	}
	want := before + table + end + after
	if *update {
		if err := os.WriteFile(metricsTable, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("%s is not what the code tells (-want +got); rewrite it with -update:\n%s", metricsTable, diff)
	}
}

var metricName = regexp.MustCompile(`\b(?:stoker|asynq)_[a-z_]+|\bup\b`)

// TestAlerts: each alert asks for metrics that there are, leads to a runbook that there is, and has a test
// in which it fires and one in which it does not.
func TestAlerts(t *testing.T) {
	known, places := metricNames(t), anchors(read(t, runbooks))
	tests := readYAML[struct {
		Tests []struct {
			Name   string `yaml:"name"`
			Alerts []struct {
				Name   string           `yaml:"alertname"`
				Expect []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}](t, rulesTest)
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, a := range test.Alerts {
			if len(a.Expect) > 0 {
				fires[a.Name] = true
			} else {
				rests[a.Name] = true
			}
		}
	}
	n := 0
	for _, group := range readYAML[ruleFile](t, rules).Groups {
		for _, r := range group.Rules {
			n++
			for _, name := range metricName.FindAllString(r.Expr, -1) {
				if !slices.Contains(known, name) {
					t.Errorf("%s: no metric is named %s", r.Alert, name)
				}
			}
			if place, ok := strings.CutPrefix(r.Annotations["runbook_url"], runbookRoot); !ok || !slices.Contains(places, place) {
				t.Errorf("%s: no runbook at %s", r.Alert, r.Annotations["runbook_url"])
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" || r.Annotations["summary"] == "" {
				t.Errorf("%s: severity %q, summary %q", r.Alert, s, r.Annotations["summary"])
			}
			if !fires[r.Alert] || !rests[r.Alert] && r.Alert != "StokerStaleEntries" { // which waits for nothing
				t.Errorf("%s: tested to fire %v, to rest %v", r.Alert, fires[r.Alert], rests[r.Alert])
			}
		}
	}
	if n == 0 {
		t.Error("no alerts")
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	bin, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool here (Debian's package prometheus has it): rules were not checked by Prometheus itself")
	}
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlertsFire plays each alert's series to Prometheus.
func TestAlertsFire(t *testing.T) {
	promtool(t, "check", "rules", rules)
	promtool(t, "test", "rules", rulesTest)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"stoker_rules.yaml": read(t, rules), "stoker_token": "any",
		"prometheus.yml": strings.ReplaceAll(read(t, "prometheus/scrape.yaml"), "/etc/prometheus", dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
}

// TestDashboard: the dashboard asks for metrics that there are, in queries that Prometheus can read.
func TestDashboard(t *testing.T) {
	var board struct {
		UID    string `json:"uid"`
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(read(t, dashboard)), &board); err != nil {
		t.Fatal(err)
	}
	known := metricNames(t)
	ids := map[int]bool{}
	var asRules strings.Builder
	asRules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("panel %d %q: %d queries", p.ID, p.Title, len(p.Targets))
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				if !slices.Contains(known, name) {
					t.Errorf("panel %q: no metric is named %s", p.Title, name)
				}
			}
			// Grafana puts an interval in for this variable.
			fmt.Fprintf(&asRules, "      - {record: \"q%d\", expr: %q}\n", n, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
			n++
		}
	}
	if n == 0 || board.UID == "" {
		t.Errorf("%d queries, uid %q", n, board.UID)
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, []byte(asRules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
