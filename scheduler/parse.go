package scheduler

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/robfig/cron/v3"

	"github.com/alphanode/stoker/tasks"
)

// document is the file as it is written.
type document struct {
	Timezone string `yaml:"timezone"`
	Entries  []line `yaml:"entries"`
}

type line struct {
	Name string         `yaml:"name"`
	Cron string         `yaml:"cron"`
	Task string         `yaml:"task"`
	Args map[string]any `yaml:"args"`
}

var (
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	fields      = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
)

// ownArgs are the payload fields that the scheduler sets itself.
var ownArgs = []string{"v", "actor", "run"}

// Parse reads a schedule's file. Its errors wrap [tasks.ErrInvalid] and name the line.
func Parse(raw []byte) (Schedule, error) {
	doc, file, err := read(raw)
	if err != nil {
		return Schedule{}, syntax(err)
	}
	p := parsing{file}
	if len(file.Docs) > 1 {
		return Schedule{}, fmt.Errorf("%w: %d YAML documents in one file: use one", tasks.ErrInvalid, len(file.Docs))
	}
	if doc.Entries == nil {
		return Schedule{}, p.refuse("$", "no entries: list some, or write `entries: []` for none at all")
	}
	s := Schedule{Location: time.UTC}
	if doc.Timezone != "" {
		if s.Location, err = time.LoadLocation(doc.Timezone); err != nil {
			return Schedule{}, p.refuse("$.timezone", "timezone %q: use a name such as Europe/Berlin", doc.Timezone)
		}
	}
	names := map[string]bool{}
	for i, l := range doc.Entries {
		e, err := p.entry(fmt.Sprintf("$.entries[%d]", i), l, s)
		if err != nil {
			return Schedule{}, err
		}
		if names[e.Name] {
			return Schedule{}, p.refuse(fmt.Sprintf("$.entries[%d].name", i), "name %q is taken by an entry above", e.Name)
		}
		names[e.Name] = true
		s.Entries = append(s.Entries, e)
	}
	return s, nil
}

// read decodes the file twice: into its values, and into a tree that knows their lines. The
// library panics on some malformed files, which must not end a running scheduler.
func read(raw []byte) (doc document, file *ast.File, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = errors.New("malformed YAML")
		}
	}()
	if err = yaml.UnmarshalWithOptions(raw, &doc, yaml.Strict()); err != nil {
		return doc, nil, err
	}
	file, err = parser.ParseBytes(raw, 0)
	return doc, file, err
}

// parsing knows where in the file a value stands.
type parsing struct{ file *ast.File }

func (p parsing) entry(at string, l line, s Schedule) (Entry, error) {
	e := Entry{Name: l.Name, Cron: l.Cron, Task: l.Task, Args: []byte("{}")}
	if !namePattern.MatchString(l.Name) {
		return e, p.refuse(at+".name", "entry name %q: use 1 to 63 of a-z, 0-9 and -, not starting with -", l.Name)
	}
	var err error
	switch e.ticks, err = fields.Parse(l.Cron); {
	case strings.HasPrefix(l.Cron, "@every"):
		return e, p.refuse(at+".cron", "cron %q of entry %q: intervals count from each process's start, so copies and restarts would move the ticks: use five fields such as \"*/10 * * * *\"", l.Cron, l.Name)
	case err != nil || strings.Contains(l.Cron, "="):
		return e, p.refuse(at+".cron", "cron %q of entry %q: use five fields: minute, hour, day of month, month, day of week", l.Cron, l.Name)
	case s.Next(e, time.Now()).IsZero():
		return e, p.refuse(at+".cron", "cron %q of entry %q: such a time never comes", l.Cron, l.Name)
	}
	if payloads[l.Task] == nil {
		return e, p.refuse(at+".task", "task %q of entry %q: use one of %v", l.Task, l.Name, slices.Sorted(maps.Keys(payloads)))
	}
	for _, name := range ownArgs {
		if _, ok := l.Args[name]; ok {
			return e, p.refuse(at+".args."+name, "args of entry %q: %s is set by the scheduler", l.Name, name)
		}
	}
	if l.Args != nil {
		if e.Args, err = json.Marshal(l.Args); err != nil {
			return e, p.refuse(at+".args", "args of entry %q: %v", l.Name, err)
		}
	}
	if _, err := e.payload(activeRelease, "run"); err != nil {
		return e, p.refuse(p.culprit(at, l, err), "args of entry %q: %s", l.Name, strings.TrimPrefix(err.Error(), tasks.ErrInvalid.Error()+": "))
	}
	return e, nil
}

// culprit returns the path of the argument that err speaks of, or that of all of them.
func (p parsing) culprit(at string, l line, err error) string {
	for _, name := range slices.Sorted(maps.Keys(l.Args)) {
		if strings.Contains(err.Error(), name) {
			return at + ".args." + name
		}
	}
	if l.Args == nil {
		return at + ".task"
	}
	return at + ".args"
}

// refuse makes an error that names the line of the value at path, or of what is around it.
func (p parsing) refuse(path, format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	for path != "" {
		if n, ok := p.line(path); ok {
			return fmt.Errorf("%w: line %d: %s", tasks.ErrInvalid, n, reason)
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return fmt.Errorf("%w: %s", tasks.ErrInvalid, reason)
}

func (p parsing) line(path string) (int, bool) {
	yp, err := yaml.PathString(path)
	if err != nil {
		return 0, false
	}
	node, err := yp.FilterFile(p.file)
	if err != nil || node == nil || node.GetToken() == nil {
		return 0, false
	}
	return node.GetToken().Position.Line, true
}

// syntax is what the YAML library found, in one line.
func syntax(err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil {
		return fmt.Errorf("%w: line %d: %s", tasks.ErrInvalid, at.GetToken().Position.Line, at.GetMessage())
	}
	return fmt.Errorf("%w: %v", tasks.ErrInvalid, err)
}
