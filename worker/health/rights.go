package health

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Rights is what a Redis lets its user do, as far as it was tried.
type Rights struct {
	Excess  []string // may, and stoker has no use for it
	Missing []string // may not, and stoker needs it
}

// trial is a command that changes nothing, whether it is allowed or not: its arguments are wrong, or
// its key does not exist. Redis looks at the rights first.
type trial struct {
	what    string
	command []any
}

// elsewhere begins names that no app's keys and channels begin with.
const elsewhere = "stoker-doctor:elsewhere"

// excess are the trials of what nobody should be allowed for stoker's sake. FLUSHALL is not among
// them: a server that is not quite Redis might not mind its argument. Who may SWAPDB may flush as well,
// where rights are given by category.
func excess() []trial {
	return []trial{
		{"swap and flush databases", []any{"SWAPDB", "a", "b"}},
		{"change settings", []any{"CONFIG", "SET", elsewhere, "1"}},
		{"see and change users", []any{"ACL", "GETUSER", elsewhere}},
		{"end other connections", []any{"CLIENT", "KILL", "ID", "0"}},
		{"load modules", []any{"MODULE", "LIST"}},
		{"drop scripts", []any{"SCRIPT", "FLUSH", elsewhere}},
		{"make it a replica", []any{"REPLICAOF", elsewhere, "port"}},
		{"read other keys", []any{"EXISTS", elsewhere}},
		{"write other keys", []any{"PERSIST", elsewhere}},
		{"publish to other channels", []any{"PUBLISH", elsewhere, ""}},
	}
}

// needs are the trials of what stoker cannot do without on a Redis that holds keys named like these.
func needs(keys []string) []trial {
	all := []trial{
		{"scan", []any{"SCAN", "0", "COUNT", "1"}},
		{"run scripts", []any{"EVAL", "return 1", "0"}},
		{"read the time", []any{"TIME"}},
	}
	for _, key := range keys {
		all = append(all, trial{"read keys like " + key, []any{"EXISTS", key}}, trial{"write keys like " + key, []any{"PERSIST", key}})
	}
	return all
}

// restores are the trials of what a rollback to an archive needs as well.
func restores(keys []string) []trial {
	var all []trial
	for _, key := range keys {
		all = append(all, trial{"restore keys like " + key, []any{"RESTORE", key, "0", ""}})
	}
	return all
}

// walks are the trials of what work on whole namespaces needs as well on a Cluster.
func walks(cache redis.UniversalClient) []trial {
	if _, ok := cache.(*redis.ClusterClient); !ok {
		return nil
	}
	return []trial{
		{"see the Cluster's primaries", []any{"CLUSTER", "SHARDS"}},
		{"see how each of them sees the others", []any{"CLUSTER", "NODES"}},
		{"ask for a key's slot", []any{"CLUSTER", "KEYSLOT", elsewhere}},
	}
}

// tryRights tries what client may do.
func tryRights(ctx context.Context, client redis.UniversalClient, needed []trial) (found Rights, err error) {
	try := func(trials []trial, tell bool) (told []string) {
		for _, t := range trials {
			if err != nil {
				return nil
			}
			var ok bool
			if ok, err = allowed(ctx, client, t); ok == tell {
				told = append(told, t.what)
			}
		}
		return told
	}
	found = Rights{Excess: try(excess(), true), Missing: try(needed, false)}
	return found, err
}

// allowed reports whether the user may call that command: whatever else the server has against it. A
// command that the server does not know nobody may call.
func allowed(ctx context.Context, client redis.UniversalClient, t trial) (bool, error) {
	err := client.Do(ctx, t.command...).Err()
	var answer redis.Error
	switch {
	case err == nil, errors.Is(err, redis.Nil):
		return true, nil
	case !errors.As(err, &answer):
		return false, err
	}
	text := answer.Error()
	return !strings.HasPrefix(text, "NOPERM") && !strings.HasPrefix(text, "ERR unknown command"), nil
}

// judgeRights: what the user may do is what an error in stoker, or who takes its password, can do.
func judgeRights(name string, a Answer[Rights], e Endpoint) Check {
	c := Check{Name: name + ".rights", Status: OK, Detail: "what stoker needs, and nothing of what it does not"}
	switch {
	case !a.Asked:
		return unknown(c, "what the user of the "+name+" Redis may do", nil)
	case a.Err != nil:
		return unknown(c, "what the user of the "+name+" Redis may do", a.Err)
	}
	c.Value = float64(len(a.Value.Excess))
	switch {
	case len(a.Value.Missing) > 0:
		c.Status, c.Detail = Fail, "the user may not, and has to: "+strings.Join(a.Value.Missing, ", ")
		c.Remedy = "give it the rights that deploy/users.acl gives, with this app's name"
	case len(a.Value.Excess) > 0:
		c.Detail = "the user may also: " + strings.Join(a.Value.Excess, ", ")
		if !e.local() || e.Password {
			c.Status = Warn
			c.Remedy = fmt.Sprintf("give it the rights that deploy/users.acl gives and no more: ACL SETUSER %s …", user(e))
		}
	}
	return c
}

func user(e Endpoint) string {
	if e.User == "" {
		return "stoker"
	}
	return e.User
}
