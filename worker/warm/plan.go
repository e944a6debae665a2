package warm

import (
	_ "embed"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/carry"
	"github.com/alphanode/stoker/worker/warm/crawl"
	"github.com/alphanode/stoker/worker/warm/hot"
	"github.com/alphanode/stoker/worker/warm/query"
	"github.com/alphanode/stoker/worker/warm/source"
)

// PlanVersion is the version of the plan's format that this package reads.
const PlanVersion = 1

// plans are what runs keep of plans: whoever asked for a run may be newer than the worker that carries it out.
var plans = tasks.NewFormat("warm plan", PlanVersion)

// newerPlan refuses the plan of a run that only a newer worker can read.
func newerPlan(text []byte) error {
	var head struct {
		Version int `yaml:"version"`
	}
	if yaml.Unmarshal(text, &head) != nil || head.Version <= plans.Last() {
		return nil // whatever else is wrong with it, ParsePlan says
	}
	return plans.Check(head.Version)
}

// Schema is the JSON Schema of a plan.
//
//go:embed plan.schema.json
var Schema []byte

// maxPlan bounds a plan's size in bytes: it is stored with every run.
const maxPlan = 1 << 20

// Plan says what to warm and what a warm release must show: a file in the site's repository.
type Plan struct {
	Version     int       `yaml:"version"`
	Hot         *hot.Spec `yaml:"hot,omitempty"` // what visitors want most: warmed first, and weighed with
	Sources     []Source  `yaml:"sources"`
	Certificate Demand    `yaml:"certificate,omitempty"`
	Probes      *Probes   `yaml:"probes,omitempty"`
}

// Source is one origin of entries: exactly one of Query, Crawl, Carry and Custom is set.
type Source struct {
	Name   string        `yaml:"name"`
	Query  *query.Spec   `yaml:"query,omitempty"`
	Entry  *query.Entry  `yaml:"entry,omitempty"` // with Query
	Crawl  *crawl.Spec   `yaml:"crawl,omitempty"`
	Expect *crawl.Expect `yaml:"expect,omitempty"` // with Crawl
	Carry  *carry.Spec   `yaml:"carry,omitempty"`
	Custom *Custom       `yaml:"custom,omitempty"`
}

// Custom is a source that a site's own worker brings along: see worker.ServeWarm.
type Custom struct {
	Source string            `yaml:"source"`         // the name under which the worker knows it
	With   map[string]string `yaml:"with,omitempty"` // what it is told
}

// Demand is what a run must reach for its certificate to pass.
type Demand struct {
	Coverage source.Percent `yaml:"coverage,omitempty"` // of each source and of all; "" means 99%
	Sample   *int           `yaml:"sample,omitempty"`   // entries looked up at the end, 0 to 10,000; nil means 200
	Hot      source.Percent `yaml:"hot,omitempty"`      // of the hot list's requests, least share that must find their entry; "" means about the active release's, where uses are counted
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

// Kind returns which of the source's origins is set: "query", "crawl", "carry" or "custom".
func (s Source) Kind() string {
	switch {
	case s.Query != nil:
		return "query"
	case s.Crawl != nil:
		return "crawl"
	case s.Custom != nil:
		return "custom"
	}
	return "carry"
}

// hot reports whether the source takes the plan's hot list itself for what it visits.
func (s Source) hot() bool { return s.Crawl != nil && s.Crawl.Hot || s.Carry != nil && s.Carry.Hot }

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
		if s.hot() && p.Hot == nil {
			ps.Add(path+"."+s.Kind()+".hot", "source %q wants the hot list: say under hot where to find it", s.Name)
		}
	}
	if p.Hot != nil {
		p.Hot.Check("$.hot", ps)
	}
	if p.Hot == nil && p.Certificate.Hot != "" {
		ps.Add("$.certificate.hot", "%s of no list: say under hot what visitors want most", string(p.Certificate.Hot))
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
	for _, set := range []bool{s.Query != nil, s.Crawl != nil, s.Carry != nil, s.Custom != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		ps.Add(path, "source %q has %d of query, crawl, carry and custom: give it exactly one", s.Name, kinds)
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
	case s.Custom != nil:
		if !sourceName.MatchString(s.Custom.Source) {
			ps.Add(path+".custom.source", "%q: use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", s.Custom.Source)
		}
	default:
		s.Crawl.Check(path+".crawl", ps)
		if s.Expect != nil {
			s.Expect.Check(path+".expect", ps)
			s.Crawl.CheckWith(*s.Expect, path+".crawl", ps)
		} else {
			s.Crawl.CheckWith(crawl.Expect{}, path+".crawl", ps)
		}
	}
}

func (d Demand) check(path string, ps *source.Problems) {
	_, err := d.Coverage.Parse()
	ps.Check(path+".coverage", err)
	_, err = d.Hot.Parse()
	ps.Check(path+".hot", err)
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
