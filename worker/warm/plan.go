package warm

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/carry"
	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/source"
)

// PlanVersion is the version of the plan's format that this package reads.
const PlanVersion = 1

// Schema is the JSON Schema of a plan.
//
//go:embed plan.schema.json
var Schema []byte

// maxPlan bounds a plan's size in bytes: it is stored with every run.
const maxPlan = 1 << 20

// Plan says what to warm and what a warm release must show: a file in the site's repository.
type Plan struct {
	Version     int      `yaml:"version"`
	Sources     []Source `yaml:"sources"`
	Certificate Demand   `yaml:"certificate,omitempty"`
	Probes      *Probes  `yaml:"probes,omitempty"`
}

// Source is one origin of entries: exactly one of Query, Crawl and Carry is set.
type Source struct {
	Name   string        `yaml:"name"`
	Query  *query.Spec   `yaml:"query,omitempty"`
	Entry  *query.Entry  `yaml:"entry,omitempty"` // with Query
	Crawl  *crawl.Spec   `yaml:"crawl,omitempty"`
	Expect *crawl.Expect `yaml:"expect,omitempty"` // with Crawl
	Carry  *carry.Spec   `yaml:"carry,omitempty"`
}

// Demand is what a run must reach for its certificate to pass.
type Demand struct {
	Coverage source.Percent `yaml:"coverage,omitempty"` // of each source and of all; "" means 99%
	Sample   *int           `yaml:"sample,omitempty"`   // entries looked up at the end, 0 to 10,000; nil means 200
}

// Probes are the pages that are measured before and after a switch.
type Probes struct {
	Base  string   `yaml:"base"`  // scheme and host of the site
	Paths []string `yaml:"paths"` // each with its leading slash
	Count int      `yaml:"count"` // requests in one measurement, 1 to 100,000; 0 means 1000
}

// Defaults and limits of a plan.
const (
	DefaultCoverage = 0.99
	DefaultSample   = 200
	DefaultProbes   = 1000
	maxSample       = 10_000
	maxProbes       = 100_000
	maxSources      = 100
)

var sourceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Kind returns which of the source's origins is set: "query", "crawl" or "carry".
func (s Source) Kind() string {
	switch {
	case s.Query != nil:
		return "query"
	case s.Crawl != nil:
		return "crawl"
	}
	return "carry"
}

// ParsePlan reads a plan and checks it whole. Its errors wrap [tasks.ErrInvalid] and name line
// and column of everything that is wrong.
func ParsePlan(text []byte) (plan *Plan, err error) {
	defer func() { // the library panics on some malformed files
		if recover() != nil {
			plan, err = nil, fmt.Errorf("plan: %w: malformed YAML", tasks.ErrInvalid)
		}
	}()
	if len(text) > maxPlan {
		return nil, fmt.Errorf("plan: %w: %d bytes: at most %d", tasks.ErrInvalid, len(text), maxPlan)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)), yaml.Strict())
	p := new(Plan)
	if err := dec.Decode(p); err != nil {
		return nil, planError(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("plan: %w: more than one YAML document: keep one", tasks.ErrInvalid)
	}
	var ps source.Problems
	p.check(&ps)
	return p, locate(text, ps)
}

// planError turns the decoder's error into one line with its place.
func planError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("plan: %w: empty: it needs version and sources", tasks.ErrInvalid)
	}
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil {
		pos := at.GetToken().Position
		return fmt.Errorf("plan: %w: line %d, column %d: %s", tasks.ErrInvalid, pos.Line, pos.Column, at.GetMessage())
	}
	return fmt.Errorf("plan: %w: %v", tasks.ErrInvalid, err)
}

// locate adds line and column to problems and joins them; nil when there are none.
func locate(text []byte, ps source.Problems) error {
	if len(ps) == 0 {
		return nil
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return planError(err)
	}
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
		if line, column := position(file, p.Path); line > 0 {
			lines[i] = fmt.Sprintf("line %d, column %d: %s", line, column, p.Error())
		}
	}
	return fmt.Errorf("plan: %w: %s", tasks.ErrInvalid, strings.Join(lines, "\n  "))
}

func (p *Plan) check(ps *source.Problems) {
	if p.Version != PlanVersion {
		ps.Add("$.version", "version %d: this stoker reads version %d", p.Version, PlanVersion)
	}
	if len(p.Sources) == 0 || len(p.Sources) > maxSources {
		ps.Add("$.sources", "%d sources: use 1 to %d", len(p.Sources), maxSources)
	}
	names := map[string]bool{}
	for i, s := range p.Sources {
		path := fmt.Sprintf("$.sources[%d]", i)
		if names[s.Name] {
			ps.Add(path+".name", "%q is the name of two sources", s.Name)
		}
		names[s.Name] = true
		s.check(path, ps)
	}
	p.Certificate.check("$.certificate", ps)
	if p.Probes != nil {
		p.Probes.check("$.probes", ps)
	}
}

func (s Source) check(path string, ps *source.Problems) {
	if !sourceName.MatchString(s.Name) {
		ps.Add(path+".name", "%q: use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", s.Name)
	}
	kinds := 0
	for _, set := range []bool{s.Query != nil, s.Crawl != nil, s.Carry != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		ps.Add(path, "source %q has %d of query, crawl and carry: give it exactly one", s.Name, kinds)
		return
	}
	if s.Entry != nil && s.Query == nil {
		ps.Add(path+".entry", "belongs to a query: source %q is a %s", s.Name, s.Kind())
	}
	if s.Expect != nil && s.Crawl == nil {
		ps.Add(path+".expect", "belongs to a crawl: source %q is a %s", s.Name, s.Kind())
	}
	s.checkKind(path, ps)
}

func (s Source) checkKind(path string, ps *source.Problems) {
	switch {
	case s.Query != nil && s.Entry == nil:
		ps.Add(path, "source %q is a query without an entry: say which key its rows have", s.Name)
	case s.Query != nil:
		s.Query.Check(path+".query", ps)
		s.Entry.Check(path+".entry", ps)
	case s.Carry != nil:
		s.Carry.Check(path+".carry", ps)
	default:
		s.Crawl.Check(path+".crawl", ps)
		if s.Expect != nil {
			s.Expect.Check(path+".expect", ps)
		}
	}
}

func (d Demand) check(path string, ps *source.Problems) {
	_, err := d.Coverage.Parse()
	ps.Check(path+".coverage", err)
	if n := d.sample(); n < 0 || n > maxSample {
		ps.Add(path+".sample", "%d entries: use 0 to %d", n, maxSample)
	}
}

func (d Demand) coverage() float64 { return d.Coverage.Or(DefaultCoverage) }

func (d Demand) sample() int {
	if d.Sample == nil {
		return DefaultSample
	}
	return *d.Sample
}

func (p *Probes) check(path string, ps *source.Problems) {
	u, err := url.Parse(p.Base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		ps.Add(path+".base", "base %q: use scheme and host of the site, such as https://www.example.com", p.Base)
	}
	if len(p.Paths) == 0 {
		ps.Add(path+".paths", "empty: name the pages to measure")
	}
	if i := slices.IndexFunc(p.Paths, func(s string) bool { return !strings.HasPrefix(s, "/") }); i >= 0 {
		ps.Add(fmt.Sprintf("%s.paths[%d]", path, i), "path %q: begin it with /", p.Paths[i])
	}
	if p.Count < 0 || p.Count > maxProbes {
		ps.Add(path+".count", "%d requests: use 1 to %d", p.Count, maxProbes)
	}
	if p.Count == 0 {
		p.Count = DefaultProbes
	}
}

// pick returns the plan's sources with those names, all of them when none is named.
func (p *Plan) pick(names []string) ([]Source, error) {
	if len(names) == 0 {
		return p.Sources, nil
	}
	var picked []Source
	for _, name := range names {
		i := slices.IndexFunc(p.Sources, func(s Source) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: the plan has no source %q: use one of %q", tasks.ErrInvalid, name, p.names())
		}
		if !slices.ContainsFunc(picked, func(s Source) bool { return s.Name == name }) {
			picked = append(picked, p.Sources[i])
		}
	}
	return picked, nil
}

func (p *Plan) names() []string {
	names := make([]string, len(p.Sources))
	for i, s := range p.Sources {
		names[i] = s.Name
	}
	return names
}

// position returns where the field at path stands, or the nearest field around it.
func position(file *ast.File, path string) (line, column int) {
	for path != "$" {
		if at, err := yaml.PathString(path); err == nil {
			if node, err := at.FilterFile(file); err == nil && node != nil {
				pos := node.GetToken().Position
				return pos.Line, pos.Column
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 1)]
	}
	return 0, 0
}
