package health

import (
	"slices"
)

// Outcome is the word of a verdict.
type Outcome string

// The outcomes.
const (
	Better       Outcome = "better"
	Same         Outcome = "same"
	Worse        Outcome = "worse"
	Inconclusive Outcome = "inconclusive" // too little evidence; never to be read as same
)

// Verdict is two baselines compared.
type Verdict struct {
	Verdict Outcome   `json:"verdict"`
	Reasons []string  `json:"reasons"`            // what was found, one line a measure
	Found   []Finding `json:"findings,omitempty"` // the same, apart
	Before  Baseline  `json:"before"`             // without samples
	After   Baseline  `json:"after"`              // without samples

	// Of a watch: how many looks the verdict rests on, of how many there will be.
	Look  int  `json:"look,omitempty"`
	Looks int  `json:"looks,omitempty"`
	Final bool `json:"final,omitempty"` // no look follows
}

// Finding is what one measure says.
type Finding struct {
	Measure Measure `json:"measure"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail"`
}

// falseAlarm is the probability that two measurements (in a watch: all its looks together) of
// sites that do not differ are called worse. Half of it is spent on errors, the rest in equal parts
// on the other measures (C. E. Bonferroni's bound), and each part in equal parts on the looks.
const falseAlarm = 0.002

// Compare judges after against before. A measure is worse (or better) when the difference is both
// unlikely to be chance and large enough to matter; one measure that is worse makes the verdict
// worse. It is the same only when what was seen rules out, with 95 % confidence, a slowdown of a
// quarter and a rise of the errors by one in a hundred; else it is inconclusive, and so are fewer
// than 100 answers on either side, unless even those show that it is worse. Of pairs that do not
// differ fewer than one in 500 are called worse. It is pure.
func Compare(before, after Baseline) Verdict { return compare(before, after, falseAlarm) }

// compare is [Compare] with the false alarms that it may give.
func compare(before, after Baseline, alarm float64) Verdict {
	v := Verdict{Before: before.Summary(), After: after.Summary()}
	a, b := before.Samples.all(), after.Samples.all()
	rest := alarm / 2 / float64(len(measures)-1)
	for _, m := range measures {
		p := rest
		if m.name == MeasureErrors {
			p = alarm / 2
		}
		f := m.compare(pair{before, after, a, b, p})
		f.Measure = m.name
		v.Found = append(v.Found, f)
		v.Reasons = append(v.Reasons, f.Detail)
	}
	v.Verdict = v.conclude()
	return v
}

// conclude draws the verdict from the findings. Database calls and the cache are inconclusive where
// a site does not report them, which must not spoil the verdict; errors and latency are always
// there to be measured.
func (v Verdict) conclude() Outcome {
	switch {
	case v.has(Worse):
		return Worse
	case v.found(MeasureErrors) == Inconclusive || v.found(MeasureLatency) == Inconclusive:
		return Inconclusive
	case v.has(Better):
		return Better
	}
	return Same
}

func (v Verdict) has(o Outcome) bool {
	return slices.ContainsFunc(v.Found, func(f Finding) bool { return f.Outcome == o })
}

// found returns the outcome of one measure.
func (v Verdict) found(m Measure) Outcome {
	i := slices.IndexFunc(v.Found, func(f Finding) bool { return f.Measure == m })
	if i < 0 {
		return Inconclusive
	}
	return v.Found[i].Outcome
}
