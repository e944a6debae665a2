package warm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/warm/hot"
	"github.com/alphanode/stoker/worker/warm/source"
)

const (
	probeLimit  = 10 * time.Second // for what one source has to answer
	probeAtOnce = 8                // sources probed at a time
)

// CheckPlan checks a plan like [ParsePlan], and whether everything can be reached that it names: a query is
// tried on its database without reading a row, a crawl's base and sitemap are asked for, a carry's
// release and an access log must be there. release stands in for the one to warm; "" leaves out
// addresses that hold it. The error names line and column of all that is wrong, and wraps
// [tasks.ErrInvalid] where the plan itself is. Custom sources are known to a site's own worker only;
// notes says which were left out.
func (r *Runner) CheckPlan(ctx context.Context, text []byte, release string) (plan *Plan, notes []string, err error) {
	doc, err := readDocument(text)
	if err != nil {
		return nil, nil, err
	}
	wrong := doc.errors()
	probes := make([]error, len(doc.plan.Sources)+1)
	var group errgroup.Group
	group.SetLimit(probeAtOnce)
	for i, s := range doc.plan.Sources {
		switch {
		case doc.hasProblem(fmt.Sprintf("$.sources[%d]", i)):
		case s.Custom != nil && r.deps.Sources[s.Custom.Source] == nil:
			notes = append(notes, fmt.Sprintf("source %q was not reached: only the site's own worker knows %q", s.Name, s.Custom.Source))
		case release == "" && s.Crawl != nil && strings.Contains(s.Crawl.Base, ".Release"):
			notes = append(notes, fmt.Sprintf("source %q was not reached: its base depends on the release: name one", s.Name))
		default:
			group.Go(func() error { probes[i] = r.probe(ctx, s, release); return nil })
		}
	}
	if doc.plan.Hot != nil && !doc.hasProblem("$.hot") {
		group.Go(func() error { probes[len(doc.plan.Sources)] = r.probeHot(ctx, *doc.plan.Hot); return nil })
	}
	_ = group.Wait() // never an error
	var unreached findings
	for i, err := range probes {
		path := fmt.Sprintf("$.sources[%d]", i)
		if i == len(doc.plan.Sources) {
			path = "$.hot"
		}
		for _, p := range problemsOf(err, path) {
			unreached = append(unreached, doc.locate(p))
		}
	}
	switch {
	case len(wrong) > 0:
		return doc.plan, notes, append(wrong, unreached...).join()
	case len(unreached) > 0:
		return doc.plan, notes, unreached.because(errUnreached)
	}
	return doc.plan, notes, ctx.Err()
}

// errUnreached is the cause of a check that found the plan sound, and something that it names out of reach.
var errUnreached = errors.New("not everything that it names can be used from here")

// hasProblem reports whether anything is wrong with the field at path or below.
func (d *document) hasProblem(path string) bool {
	for _, p := range d.problems {
		if strings.HasPrefix(p.Path, path) {
			return true
		}
	}
	return false
}

// problemsOf returns what an error holds as problems of the field at path, or of those that it names
// below that.
func problemsOf(err error, path string) source.Problems {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all source.Problems
		for _, one := range joined.Unwrap() {
			all = append(all, problemsOf(one, path)...)
		}
		return all
	}
	var p *source.Problem
	if errors.As(err, &p) {
		return source.Problems{{Path: path + p.Path, Text: oneLine(p.Text)}}
	}
	return source.Problems{{Path: path, Text: oneLine(err.Error())}}
}

// oneLine is an error's text as a list of problems takes it: drivers write several lines, and the
// list says by itself whether the plan is wrong.
func oneLine(text string) string {
	return strings.TrimPrefix(strings.Join(strings.Fields(text), " "), tasks.ErrInvalid.Error()+": ")
}

// probe tries a source out.
func (r *Runner) probe(ctx context.Context, s Source, release string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if s.Carry != nil {
		if _, err := r.liveRelease(ctx, s.Carry.From, hot.Active); err != nil {
			return &source.Problem{Path: ".carry.from", Text: err.Error()}
		}
		return nil
	}
	if release == "" {
		release = "r1" // nothing that is asked for depends on it
	}
	src, closeSource, err := r.openSource(s, release, "")
	if err != nil && s.Query != nil { // the plan itself is sound: it is the DSN
		return &source.Problem{Path: ".query.dsn_env", Text: err.Error()}
	}
	if err != nil {
		return err
	}
	defer closeSource()
	if p, ok := src.(source.Prober); ok {
		return p.Probe(ctx)
	}
	return nil
}

// probeHot tries the hot list out.
func (r *Runner) probeHot(ctx context.Context, spec hot.Spec) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	if spec.AccessLog != "" {
		if err := hot.ProbeLog(ctx, spec.AccessLog); err != nil {
			return &source.Problem{Path: ".access_log", Text: err.Error()}
		}
		return nil
	}
	if _, err := r.liveRelease(ctx, spec.KeysOf, hot.Active); err != nil {
		return &source.Problem{Path: ".keys_of", Text: err.Error()}
	}
	return nil
}
