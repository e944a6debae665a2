package tasks

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed check.lua
	checkLua string
	//go:embed since.lua
	sinceLua string

	checkScript = redis.NewScript(checkLua)
	sinceScript = redis.NewScript(sinceLua)
)

// Of many entries it costs the server less to tell the few targets that were invalidated since, mostly none,
// than to look for each entry: at 1,000 entries with a tag, hundredths of a millisecond instead of three.
const (
	manyEntries = 50
	fewTargets  = 1000
)

// Tagged is an entry's logical key with its tags: all that an invalidation can know it by.
type Tagged struct {
	Key  string
	Tags []string
}

// Check reports for each entry whether it was invalidated after m. With a release, everything
// counts as invalidated unless that release is live: nothing may be stored in a namespace that
// receives no invalidations.
func (j *Journal) Check(ctx context.Context, release string, m Mark, entries []Tagged) ([]bool, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if len(entries) >= manyEntries {
		since, known, err := j.since(ctx, release, m)
		if err != nil {
			return nil, err
		}
		if known {
			return since.verdicts(entries), nil
		}
	}
	return j.checkEach(ctx, release, m, entries)
}

// checkEach has the server look at the log for each entry.
func (j *Journal) checkEach(ctx context.Context, release string, m Mark, entries []Tagged) ([]bool, error) {
	args := make([]any, 0, 3+3*len(entries))
	args = append(args, m.Number, m.Epoch, release)
	for _, e := range entries {
		args = append(args, e.Key, len(e.Tags))
		for _, t := range e.Tags {
			args = append(args, t)
		}
	}
	reply, err := checkScript.Run(ctx, j.queue, []string{j.keys.LogMeta(), j.keys.Log(), j.keys.Prefixes(), j.keys.Live()}, args...).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("check %d entries against the log: %w", len(entries), err)
	}
	if len(reply) != len(entries) {
		return nil, fmt.Errorf("check %d entries against the log: %d verdicts", len(entries), len(reply))
	}
	stale := make([]bool, len(reply))
	for i, v := range reply {
		stale[i] = v == 1
	}
	return stale, nil
}

// invalidated is what was invalidated after a mark.
type invalidated struct {
	all      bool
	keys     map[string]bool
	tags     map[string]bool
	prefixes []string
}

// since asks what was invalidated after a mark; known is false when that is much.
func (j *Journal) since(ctx context.Context, release string, m Mark) (since invalidated, known bool, err error) {
	keys := []string{j.keys.LogMeta(), j.keys.Log(), j.keys.Prefixes(), j.keys.Live()}
	reply, err := sinceScript.Run(ctx, j.queue, keys, m.Number, m.Epoch, release, fewTargets).StringSlice()
	if err != nil {
		return since, false, fmt.Errorf("read log since mark %d: %w", m.Number, err)
	}
	switch reply[0] {
	case "all":
		since.all = true
	case "many":
		return since, false, nil
	case "newer":
		return since, false, newerLog(reply[1])
	}
	since.keys, since.tags = map[string]bool{}, map[string]bool{}
	for _, member := range reply[1:] {
		t, err := ParseMember(member)
		if err != nil {
			return since, false, fmt.Errorf("read log since mark %d: %w", m.Number, err)
		}
		switch t.Kind {
		case KindKey:
			since.keys[string(t.Name)] = true
		case KindTag:
			since.tags[string(t.Name)] = true
		case KindPrefix:
			since.prefixes = append(since.prefixes, string(t.Name))
		}
	}
	return since, true, nil
}

// newerLog is the error of a log of that version.
func newerLog(version string) error {
	v, _ := strconv.Atoi(version)
	return Logs.Check(v)
}

// verdicts reports for each entry whether it was invalidated.
func (i invalidated) verdicts(entries []Tagged) []bool {
	stale := make([]bool, len(entries))
	for n, e := range entries {
		stale[n] = i.all || i.keys[e.Key] ||
			slices.ContainsFunc(e.Tags, func(tag string) bool { return i.tags[tag] }) ||
			slices.ContainsFunc(i.prefixes, func(prefix string) bool { return strings.HasPrefix(e.Key, prefix) })
	}
	return stale
}
