package web

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/alphanode/stoker/cmd/stoker/prometheustest"
	"github.com/alphanode/stoker/worker/redistest"
)

// TestMetricsPageInBrowser: a real Prometheus scrapes the console with a token, and asynqmon's page draws
// what it answers to somebody who may only view.
func TestMetricsPageInBrowser(t *testing.T) {
	bin, prometheus := chromium(t), prometheustest.Find(t)
	queue := redistest.Start(t)
	fillLanes(t, queue.Client)
	s := newSite(t, Config{WebTokensFile: tokensFile(t), PrometheusURL: prometheus.URL}, queue.Client)
	base := serve(t, s)
	prometheus.Scrape(t, strings.TrimPrefix(base, "http://"), viewSecret)

	var answer struct {
		Size struct {
			Data struct {
				Result []struct {
					Metric struct{ Queue string }
					Values [][2]any
				}
			}
		} `json:"queue_size"`
	}
	page := body(t, s.ask("GET", "/queues/api/metrics?duration=60", basic("vera", viewSecret)))
	if err := json.Unmarshal([]byte(page), &answer); err != nil {
		t.Fatalf("%v in %s", err, page)
	}
	sizes := map[string]any{}
	for _, r := range answer.Size.Data.Result {
		sizes[r.Metric.Queue] = slices.MaxFunc(r.Values, func(a, b [2]any) int { return strings.Compare(a[1].(string), b[1].(string)) })[1]
	}
	if sizes["alpha.warm"] != "27" || sizes["alpha.upkeep"] != "3" || sizes["alpha.health"] != "0" {
		t.Errorf("sizes %v", sizes)
	}

	b := openBrowser(t, bin, base)
	b.do(chromedp.Navigate(base+"/signin"), chromedp.SetValue("#token", viewSecret), chromedp.Submit("#token"))
	b.await("Sign out")
	b.visit("queues-metrics", "/queues/q/metrics", "alpha.warm")
	redistest.Eventually(t, "the curves", func() bool {
		return get(b, chromedp.Evaluate[int](`document.querySelectorAll("path.recharts-curve").length`)) > 0
	})
}
