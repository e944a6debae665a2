package invalidation

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// On a Cluster a tag's index and the entries that it lists are on different servers, so no script sees
// both. What tag.lua does in one step is done here in three: read a slice of the index, unlink the
// entries, mark their members. In between, a writer may list an entry and set it. It is unlinked
// then, or it stays with its member marked: the next removal looks at marked members as well, a prune
// gives the member its score back, and whether the value is from before the invalidation is for its
// writer's check to find out.

//go:embed members.lua
var membersLua string

var membersScript = redis.NewScript(membersLua)

// members is one slice of a tag's index.
type members struct {
	cursor string // to go on from: the run ID of the process that gave it, a colon, its own cursor; "0" at the end
	gone   string // the score of what is gone by now
	names  []string
	marked []bool // by an earlier removal
}

// members reads a slice of each of some indexes, from a cursor on, "0" for the beginning.
func (a *Applier) members(ctx context.Context, indexes, cursors []string) ([]members, error) {
	cmds := make([]*redis.Cmd, len(indexes))
	err := a.pipelined(ctx, membersScript, func(p redis.Pipeliner) {
		for i, index := range indexes {
			run, at, _ := strings.Cut(cursors[i], ":")
			cmds[i] = membersScript.EvalSha(ctx, p, []string{index}, run, at, slice)
		}
	})
	if err != nil {
		return nil, err
	}
	found := make([]members, len(indexes))
	for i, cmd := range cmds {
		if found[i], err = readMembers(cmd); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func readMembers(cmd *redis.Cmd) (members, error) {
	reply, err := cmd.StringSlice()
	if err != nil {
		return members{}, err
	}
	if len(reply) < 3 || len(reply)%2 == 0 {
		return members{}, fmt.Errorf("want a cursor, a score and members with theirs, got %d values", len(reply))
	}
	m := members{cursor: reply[0] + ":" + reply[1], gone: reply[2]}
	if reply[1] == "0" {
		m.cursor = "0"
	}
	for i := 3; i < len(reply); i += 2 {
		m.names = append(m.names, reply[i])
		m.marked = append(m.marked, strings.HasPrefix(reply[i+1], "-"))
	}
	return m, nil
}

// slicesApart removes from a release one slice of what each of some indexes lists, and marks the members
// when the indexes are the release's own.
func (a *Applier) slicesApart(ctx context.Context, release string, indexes, cursors []string, own bool) ([]tagSlice, error) {
	found, err := a.members(ctx, indexes, cursors)
	if err != nil {
		return nil, err
	}
	type place struct{ index, member int }
	var entries []string
	var places []place
	for i, m := range found {
		for j, name := range m.names {
			entries, places = append(entries, a.tmpl.Key(release, name)), append(places, place{i, j})
		}
	}
	out := make([]tagSlice, len(indexes))
	marks := make([][]any, len(indexes))
	for i, m := range found {
		out[i].cursor = m.cursor
	}
	err = a.removeKeys(ctx, entries, func(int, int) bool { return false }, func(i int, n int64) {
		at := places[i]
		out[at.index].removed += n
		if m := found[at.index]; n > 0 || !m.marked[at.member] {
			marks[at.index] = append(marks[at.index], m.gone, m.names[at.member])
		}
	})
	if err != nil || !own {
		return out, err
	}
	_, err = a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, mark := range marks {
			if len(mark) > 0 {
				p.Do(ctx, append([]any{"ZADD", indexes[i], "XX"}, mark...)...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("mark what was removed: %w", err)
	}
	return out, nil
}

// pipelined sends commands that call a script, which it loads where it is not known.
func (a *Applier) pipelined(ctx context.Context, script *redis.Script, fill func(redis.Pipeliner)) error {
	send := func() error {
		_, err := a.cache.Pipelined(ctx, func(p redis.Pipeliner) error { fill(p); return nil })
		return err
	}
	err := send()
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err := tasks.LoadScripts(ctx, a.cache, script); err != nil {
			return err
		}
		err = send()
	}
	return err
}
