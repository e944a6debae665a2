package source

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Problem is what is wrong with one field of a plan. The plan's parser adds the line and
// column. It wraps [tasks.ErrInvalid].
type Problem struct {
	Path string // YAML path from the plan's root, such as "$.sources[0].query.driver"
	Text string
}

// Error implements error.
func (p *Problem) Error() string { return strings.TrimPrefix(p.Path, "$.") + ": " + p.Text }

// Unwrap implements the contract of [tasks.ErrInvalid].
func (p *Problem) Unwrap() error { return tasks.ErrInvalid }

// Problems collects what is wrong with a plan.
type Problems []*Problem

// Add notes a problem of the field at path.
func (ps *Problems) Add(path, format string, args ...any) {
	*ps = append(*ps, &Problem{path, fmt.Sprintf(format, args...)})
}

// Check notes err, if there is one, as a problem of the field at path.
func (ps *Problems) Check(path string, err error) {
	if err != nil {
		ps.Add(path, "%v", err)
	}
}

// Duration is a length of time as a plan writes it: "90s", "24h"; "" means not given.
type Duration string

// Parse returns the duration, 0 when it is not given. It is never negative.
func (d Duration) Parse() (time.Duration, error) {
	if d == "" {
		return 0, nil
	}
	v, err := time.ParseDuration(string(d))
	if err != nil || v <= 0 {
		return 0, fmt.Errorf("duration %q: use a positive one such as 90s, 15m or 24h", string(d))
	}
	return v, nil
}

// Or returns the duration, or def when it is not given. The plan has been validated.
func (d Duration) Or(def time.Duration) time.Duration {
	if v, err := d.Parse(); err == nil && v > 0 {
		return v
	}
	return def
}

// Percent is a share as a plan writes it: "10%", "99.5%"; "" means not given.
type Percent string

// Parse returns the share, in [0, 1]; 0 when it is not given.
func (p Percent) Parse() (float64, error) {
	if p == "" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(string(p), "%")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("share %q: use 0%% to 100%%, with the percent sign", string(p))
	}
	return v / 100, nil
}

// Or returns the share, or def when it is not given. The plan has been validated.
func (p Percent) Or(def float64) float64 {
	if v, err := p.Parse(); err == nil && p != "" {
		return v
	}
	return def
}
