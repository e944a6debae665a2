package demo

import (
	"bytes"
	"strings"
	"text/template"
)

// DSNVariable is the environment variable in which a worker finds the site's database.
const DSNVariable = "STOKER_DEMO_DSN"

// planText is the demo's warm plan: the site's posts as rows of its database, the families
// that no release changes from the release before, and then every page by visiting the new
// build, which finds the carried fragments in place.
var planText = template.Must(template.New("plan").Delims("[[", "]]").Parse(`version: 1
sources:
  - name: posts
    query: {driver: sqlite, dsn_env: [[.DSN]], sql: "[[.SQL]]", page: {by: slug, size: 500}}
    entry: {key: "post:{{.slug}}", value: json, ttl: 1h, jitter: 10%, tags: ["post:{{.slug}}"]}
[[- if .Carry]]
  - name: unchanged
    carry: {from: active, families: ["nav:", "frag:"]}
[[- end]]
  - name: pages
    crawl: {base: "[[.Build]]", sitemap: /sitemap.xml, headers: {X-Release: "{{.Release}}"}, concurrency: 2}
    expect: {key: "page:{{.Path}}", header: {X-Release: "{{.Release}}"}}
certificate: {coverage: 99%, sample: 200}
probes: {base: "[[.Site]]", paths: [[.Paths]], count: 500}
`))

// plan writes the warm plan for one build; carry is for a release that has one before it.
func plan(build, site string, probes []string, carry bool) ([]byte, error) {
	var b bytes.Buffer
	err := planText.Execute(&b, map[string]any{
		"DSN": DSNVariable, "SQL": postsSQL, "Carry": carry, "Build": build, "Site": site,
		"Paths": `["` + strings.Join(probes, `", "`) + `"]`,
	})
	return b.Bytes(), err
}
