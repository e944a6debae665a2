package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
)

const (
	queuesRoot  = "/queues"
	maxPageSize = 200 // tasks in one answer of asynqmon, which itself sets no limit
)

// queuesUI is asynqmon as this console serves it: its page loads nothing from elsewhere, its
// inline scripts are allowed by hash, its lists are bounded.
type queuesUI struct {
	handler http.Handler
	index   []byte
	policy  string
	asks    chan struct{} // a place for each request that asks Prometheus; nil without one
}

// shared hands asynqmon a client that it does not own. asynqmon is never closed, so it never
// closes the client.
type shared struct{ client redis.UniversalClient }

// MakeRedisClient implements [asynq.RedisConnOpt].
func (s shared) MakeRedisClient() any { return s.client }

var _ asynq.RedisConnOpt = shared{}

// newQueuesUI renders asynqmon's page once, for it is the same at every address. It fails when
// the page, of another version, would load something from elsewhere.
func newQueuesUI(queue redis.UniversalClient, prometheus string, readOnly bool) (*queuesUI, error) {
	handler := asynqmon.New(asynqmon.Options{
		RootPath:          queuesRoot,
		RedisConnOpt:      shared{queue},
		PayloadFormatter:  asynqmon.PayloadFormatterFunc(func(_ string, raw []byte) string { return redact(raw) }),
		ResultFormatter:   asynqmon.ResultFormatterFunc(func(_ string, raw []byte) string { return redact(raw) }),
		PrometheusAddress: prometheus,
		ReadOnly:          readOnly,
	})
	r, err := http.NewRequest(http.MethodGet, queuesRoot+"/", nil)
	if err != nil {
		return nil, fmt.Errorf("render asynqmon's page: %w", err)
	}
	page := &pageBuffer{header: http.Header{}}
	handler.ServeHTTP(page, r)
	index := detach(page.body.Bytes())
	if left := outside.Find(index); left != nil {
		return nil, fmt.Errorf("render asynqmon's page: it loads something from elsewhere: %s", left)
	}
	q := &queuesUI{handler: handler, index: index, policy: queuesPolicy(index)}
	if prometheus != "" {
		q.asks = make(chan struct{}, mostAsks)
	}
	return q, nil
}

// ServeHTTP implements [http.Handler].
func (q *queuesUI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest := strings.TrimPrefix(r.URL.Path, queuesRoot)
	switch {
	case rest == "/api/metrics":
		q.askPrometheus(w, r)
	case strings.HasPrefix(rest, "/api/"):
		w.Header().Set("Content-Type", "application/json") // asynqmon sets none
		q.handler.ServeHTTP(w, bounded(r))
	case !safe(r.Method):
		http.Error(w, "Method not allowed.", http.StatusMethodNotAllowed)
	case assetPath.MatchString(rest):
		// asynqmon guesses types from contents, and nosniff makes a wrong guess count.
		q.handler.ServeHTTP(&typedWriter{ResponseWriter: w, kind: assetTypes[path.Ext(rest)]}, r)
	default:
		// The UI's own router knows the address; all of them start from the one page.
		w.Header().Set("Content-Security-Policy", q.policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(q.index) // the client is gone: nobody to tell
	}
}

var (
	assetPath  = regexp.MustCompile(`^/(static/.*|[^/]+\.(png|ico|txt))$`)
	assetTypes = map[string]string{
		".css": "text/css; charset=utf-8", ".ico": "image/x-icon", ".js": "text/javascript; charset=utf-8",
		".map": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
	}

	outside = regexp.MustCompile(`(?i)<[^>]*\b(?:src|href)\s*=\s*["']?\s*(?:https?:)?//[^>]*>`)
	// The manifest is fetched without credentials, and names icons at the site's root.
	manifest       = regexp.MustCompile(`(?i)<link\b[^>]*\brel="manifest"[^>]*>`)
	outsideLink    = regexp.MustCompile(`(?i)<link\b[^>]*\bhref="(?:https?:)?//[^>]*>`)
	prometheusFlag = regexp.MustCompile(`(FLAG_PROMETHEUS_SERVER_ADDRESS=)"[^"]+"`)
	inlineScript   = regexp.MustCompile(`(?is)<script>(.*?)</script>`)
)

// wayBack leads from asynqmon, which knows of nothing else, to the first page.
const wayBack = `<a href="/" style="position:fixed;top:22px;right:24px;z-index:2000;font:500 15px system-ui,sans-serif;color:#4379ff">stoker: releases</a>`

// detach removes from the page what it would load from elsewhere (fonts) or in vain, and the address of
// Prometheus, of which it only asks whether there is one; it adds the way back.
func detach(index []byte) []byte {
	index = manifest.ReplaceAll(outsideLink.ReplaceAll(index, nil), nil)
	index = prometheusFlag.ReplaceAll(index, []byte(`${1}"set"`))
	return bytes.Replace(index, []byte("</body>"), []byte(wayBack+"</body>"), 1)
}

// queuesPolicy allows the page its own files, its inline scripts by their hashes, and the inline
// styles that its UI library adds as it runs.
func queuesPolicy(index []byte) string {
	scripts := []string{"'self'"}
	for _, m := range inlineScript.FindAllSubmatch(index, -1) {
		sum := sha256.Sum256(m[1])
		scripts = append(scripts, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	return "default-src 'none'; script-src " + strings.Join(scripts, " ") + "; style-src 'self' 'unsafe-inline'; " +
		"img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}

// bounded returns the request with a page size that cannot ask for a whole queue at once.
func bounded(r *http.Request) *http.Request {
	query := r.URL.Query()
	if n, err := strconv.Atoi(query.Get("size")); err != nil || n >= 0 && n <= maxPageSize {
		return r
	}
	query.Set("size", strconv.Itoa(maxPageSize))
	r = r.Clone(r.Context())
	r.URL.RawQuery = query.Encode()
	return r
}

// typedWriter passes a file of asynqmon's on with the type given. Where there is no such file
// asynqmon writes its page, without a type; that becomes a 404.
type typedWriter struct {
	http.ResponseWriter
	kind   string
	absent bool
}

// Write implements [http.ResponseWriter].
func (w *typedWriter) Write(p []byte) (int, error) {
	h := w.Header()
	switch {
	case w.absent:
		return len(p), nil
	case h.Get("Content-Type") == "":
		w.absent = true
		http.Error(w.ResponseWriter, "Not found.", http.StatusNotFound)
		return len(p), nil
	case w.kind != "":
		h.Set("Content-Type", w.kind)
	}
	h.Set("Cache-Control", "private, max-age=3600")
	return w.ResponseWriter.Write(p)
}

// pageBuffer takes a page in memory.
type pageBuffer struct {
	header http.Header
	body   bytes.Buffer
}

func (p *pageBuffer) Header() http.Header         { return p.header }
func (p *pageBuffer) WriteHeader(int)             {}
func (p *pageBuffer) Write(b []byte) (int, error) { return p.body.Write(b) }
