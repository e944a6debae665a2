package warm

import (
	"fmt"
	"slices"
	"time"
)

// Verdict is what a certificate says of a release.
type Verdict string

// The verdicts. A run that could show nothing is inconclusive, never a pass.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// Certificate is the outcome of a warm run: DocCertificate of the release's record.
//
// Its JSON grows by fields and never changes one, so that every reader reads every version: what a
// reader does not know it passes over, and what an older one did not write is zero.
type Certificate struct {
	Verdict Verdict   `json:"verdict"`
	Reasons []string  `json:"reasons,omitempty"` // why it is not a pass; empty on a pass
	Run     string    `json:"run"`
	At      time.Time `json:"at"`
	Figures
	Coverage      float64         `json:"coverage"`                // (stored + invalidated) / planned
	Demanded      float64         `json:"demanded"`                // the plan's least coverage, of all and of each source
	Sample        float64         `json:"sample,omitempty"`        // share of the entries that the run was asked for; 0 means all
	Sampled       int             `json:"sampled"`                 // stored entries that were looked up at the end, without those whose fate is unclear
	SampleMissing int             `json:"sample_missing"`          // of them, gone without having been invalidated
	FirstExpiry   time.Duration   `json:"first_expiry_ns"`         // shortest lifetime left among the sampled; 0 when none ends
	SameMinute    float64         `json:"same_minute"`             // largest share of the sampled whose lifetimes end within one minute
	Entries       int64           `json:"entries"`                 // entries of the whole namespace at the end
	EntriesAbout  bool            `json:"entries_about,omitempty"` // they were estimated: the cache Redis is large
	Sources       []SourceFigures `json:"sources"`                 // in the plan's order
	Hot           *HotFigures     `json:"hot,omitempty"`           // of a plan with a hot list
	Warnings      []string        `json:"warnings,omitempty"`      // what does not change the verdict
}

// Figures count a part of a run. Planned = Stored + Invalidated + Failed.
type Figures struct {
	Planned     int64 `json:"planned"`
	Stored      int64 `json:"stored"`      // in the namespace when last looked at
	Invalidated int64 `json:"invalidated"` // overtaken by an edit: left to the site, which fills it fresh
	Failed      int64 `json:"failed"`
}

// Coverage is the share of the planned entries that are warm, or that visitors' edits removed
// meanwhile; 0 when nothing was planned.
func (f Figures) Coverage() float64 {
	if f.Planned == 0 {
		return 0
	}
	return float64(f.Stored+f.Invalidated) / float64(f.Planned)
}

func (f *Figures) add(g Figures) {
	f.Planned += g.Planned
	f.Stored += g.Stored
	f.Invalidated += g.Invalidated
	f.Failed += g.Failed
}

// SourceFigures are one source's.
type SourceFigures struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Figures
	Coverage float64  `json:"coverage"`
	Examples []string `json:"examples,omitempty"` // the first few failures
	Kept     int64    `json:"kept,omitempty"`     // of the stored: an earlier run's, that were not visited again
	Cost
	// Failures are the failed by kind, the commonest first.
	Failures []Failures `json:"failures,omitempty"`
}

// outcome is everything that a verdict rests on.
type outcome struct {
	run     string
	demand  Demand
	share   float64  // of the keys that was asked for; 0 means all
	left    []string // the plan's sources that were not asked for
	sources []SourceFigures
	sampled int
	missing int
	first   time.Duration
	minute  float64       // share of the sampled that ends within one minute
	begins  time.Duration // in which that minute begins
	hot     *HotFigures   // nil without a hot list
	unclear bool          // whether an edit is why hot entries are missing
	entries int64
	about   bool // entries is an estimate
	at      time.Time
	gaveUp  string // why the run ended before its batches did; "" when it did not
}

// certify judges a run. It is pure.
func certify(o outcome) Certificate {
	c := Certificate{
		Run: o.run, At: o.at, Demanded: o.demand.coverage(), Sample: o.share,
		Sampled: o.sampled, SampleMissing: o.missing, FirstExpiry: o.first, Entries: o.entries, EntriesAbout: o.about,
		SameMinute: o.minute, Hot: o.hot,
	}
	if warning := warnAtOnce(o.minute, o.begins, o.sampled); warning != "" {
		c.Warnings = append(c.Warnings, warning)
	}
	c.Sources = slices.Clone(o.sources)
	for i, s := range c.Sources {
		c.Sources[i].Coverage = s.Figures.Coverage()
		c.Figures.add(s.Figures)
	}
	c.Coverage = c.Figures.Coverage()
	failed, unclear := c.failures(o), c.doubts(o)
	switch {
	case len(failed) > 0:
		c.Verdict, c.Reasons = Fail, append(failed, unclear...)
	case len(unclear) > 0:
		c.Verdict, c.Reasons = Inconclusive, unclear
	default:
		c.Verdict = Pass
	}
	return c
}

// failures says what the run showed to be wrong.
func (c Certificate) failures(o outcome) (reasons []string) {
	if o.gaveUp != "" {
		reasons = append(reasons, "gave up: "+o.gaveUp)
	}
	for _, s := range c.Sources {
		if s.Planned > 0 && s.Coverage < c.Demanded {
			reasons = append(reasons, fmt.Sprintf("source %q: coverage %s of %d is below %s%s", s.Name, percent(s.Coverage), s.Planned, percent(c.Demanded), s.missing()))
		}
	}
	if o.sampled > 0 && float64(o.missing)/float64(o.sampled) > 1-c.Demanded+1e-9 {
		reasons = append(reasons, fmt.Sprintf("%d of %d sampled entries are gone although nobody invalidated them: does the cache Redis evict?", o.missing, o.sampled))
	}
	if o.hot != nil && !o.partial() && !o.unclear {
		if why := o.hot.shortfall(o.demand); why != "" {
			reasons = append(reasons, why)
		}
	}
	return reasons
}

// partial reports whether the run was asked for a part of the plan only.
func (o outcome) partial() bool { return o.share > 0 && o.share < 1 || len(o.left) > 0 }

// missing says what is missing of the source, by kind.
func (s SourceFigures) missing() string {
	if len(s.Failures) == 0 {
		return ""
	}
	return ": " + byKind(s.Failures)
}

// doubts says what the run could not show.
func (c Certificate) doubts(o outcome) (reasons []string) {
	if c.Planned == 0 && o.gaveUp == "" {
		reasons = append(reasons, "nothing was planned")
	} else if c.Planned > 0 && c.Invalidated == c.Planned {
		reasons = append(reasons, "everything planned was invalidated meanwhile, so nothing is stored")
	}
	for _, s := range c.Sources {
		// A carry may find nothing to carry: the first release has none before it.
		if s.Planned == 0 && s.Kind != "carry" && c.Planned > 0 {
			reasons = append(reasons, fmt.Sprintf("source %q planned nothing", s.Name))
		}
	}
	if o.share > 0 && o.share < 1 {
		reasons = append(reasons, "sampled "+percent(o.share))
	}
	reasons = append(reasons, o.hotDoubts()...)
	if len(o.left) > 0 {
		reasons = append(reasons, fmt.Sprintf("sources left out: %q", o.left))
	}
	return reasons
}

// hotDoubts says what the hot list could not show.
func (o outcome) hotDoubts() (reasons []string) {
	switch {
	case o.hot == nil || o.gaveUp != "" || o.partial():
	case o.hot.Items == 0 && o.hot.From == noKeys:
		// The first release has none before it.
	case o.hot.Items == 0:
		reasons = append(reasons, fmt.Sprintf("hot list: nothing is in it (%s)", o.hot.From))
	case o.hot.Judged == 0:
		reasons = append(reasons, "hot list: none of it is for the cache: give a crawl an expect with a key, or say which entries its paths need")
	case o.unclear:
		if why := o.hot.shortfall(o.demand); why != "" {
			reasons = append(reasons, why+"; tags were invalidated meanwhile, which may be why: warm it again")
		}
	}
	return reasons
}

// percent writes a share with up to two decimals, rounded down: 99.999% is not yet 100%.
func percent(share float64) string {
	return fmt.Sprintf("%.4g%%", float64(int64(share*10_000+1e-6))/100)
}
