package namespace

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// clockScript tells the time of the server that a key belongs to: TIME itself has no key, so on a Cluster
// any server would answer it.
var clockScript = redis.NewScript("return redis.call('TIME')")

// clocks are the times, by each server's own clock, between the first and the last command that a pipeline
// has for it.
type clocks []*[2]*redis.Cmd

// queue queues what fill does, and before and behind each server's part of it a look at its clock.
func (c *clocks) queue(ctx context.Context, cluster *redis.ClusterClient, p redis.Pipeliner, fill func(redis.Pipeliner)) {
	draft := cluster.Pipeline()
	fill(draft)
	*c = nil
	servers, last := map[*redis.Client]*[2]*redis.Cmd{}, map[*redis.Client]string{}
	for _, cmd := range draft.Cmds() {
		if key, ok := keyOf(cmd); ok {
			server, err := cluster.MasterForKey(ctx, key)
			if err == nil && servers[server] == nil {
				servers[server] = &[2]*redis.Cmd{clockScript.EvalSha(ctx, p, []string{key})}
				*c = append(*c, servers[server])
			}
			last[server] = key
		}
		_ = p.Process(ctx, cmd)
	}
	for server, clock := range servers {
		clock[1] = clockScript.EvalSha(ctx, p, []string{last[server]})
	}
}

// took returns how long the server took that took longest, for they worked side by side. ok is false when
// a clock cannot be read, or went backwards: keys were moved meanwhile, and it is another server's.
func (c clocks) took() (longest time.Duration, ok bool) {
	for _, clock := range c {
		from, err1 := timeOf(clock[0])
		to, err2 := timeOf(clock[1])
		if err1 != nil || err2 != nil || to.Before(from) {
			return 0, false
		}
		longest = max(longest, to.Sub(from))
	}
	return longest, len(c) > 0
}

// timeOf reads the reply of TIME.
func timeOf(cmd *redis.Cmd) (time.Time, error) {
	var at [2]int64
	reply, err := cmd.StringSlice()
	for i := range min(len(reply), len(at)) {
		if err == nil {
			at[i], err = strconv.ParseInt(reply[i], 10, 64)
		}
	}
	return time.Unix(at[0], at[1]*1000), err
}

// keyOf returns the first key of a command that has any.
func keyOf(cmd redis.Cmder) (string, bool) {
	args, at := cmd.Args(), 1
	if name := cmd.Name(); name == "eval" || name == "evalsha" {
		at = 3
	}
	if at >= len(args) {
		return "", false
	}
	key, ok := args[at].(string)
	return key, ok
}
