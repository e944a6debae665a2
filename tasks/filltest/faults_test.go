package filltest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// A fault breaks one rule of the contract on purpose, by changing what the Go client sends.
type fault struct {
	found   string // the check that must find it
	command func(*spoiler, redis.Cmder) (handled bool)
	put     func(*spoiler, []redis.Cmder) // changes the put, a pipeline
	before  func(*goPort, Request) string // says what the fetch fails with; "" lets it go on
	open    func(*goPort, *Settings)
}

// TestTheSuiteFindsEachFault runs ports that are broken on purpose.
func TestTheSuiteFindsEachFault(t *testing.T) {
	t.Parallel()
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := checks()
			at := slices.IndexFunc(all, func(c check) bool { return c.name == f.found })
			if at < 0 {
				t.Fatalf("there is no check %q", f.found)
			}
			// Once is enough: some faults show only when two callers meet, which a busy machine may prevent.
			for range 3 {
				w := newWorld(t, []string{os.Args[0]}, []string{asPort + "=" + name})
				w.patience = 5 * time.Second // more than the 2 s that a port may take to follow the active release
				if err := w.run(all[at]); err != nil {
					t.Log(err)
					return
				}
			}
			t.Errorf("%q passes", f.found)
		})
	}
}

func faults() map[string]fault {
	return map[string]fault{
		"no check":                {found: "an invalidation between put and check", command: on("check", answer([]any{int64(0)}))},
		"tags are not checked":    {found: "an invalidation of the tag author:ann during the load", command: onCheckTags},
		"the live set is ignored": {found: "a release that is not live", command: on("check", set(3, ""))},
		"any epoch will do":       {found: "another log", command: on("check", anyEpoch)},
		"the mark is taken late":  {found: "an invalidation of the key post:1 during the load", command: lateMark},
		"the mark ignores what is pending": {found: "an invalidation that is pending", command: on("mark", func(_ *spoiler, cmd redis.Cmder) bool {
			cmd.Args()[firstKey+1] = "stoker:{site}:none"
			return false
		})},
		"the origin's lag is ignored": {found: "the origin lags behind", command: on("mark", set(2, 0))},
		"no settle":                   {found: "a miss is loaded and stored", command: on("settle", answer(int64(1)))},
		"settles whatever is there":   {found: "a settle that comes late", command: on("settle", instead(settleAll))},
		"what is stale stays till its probation ends": {found: "an invalidation between put and check", command: on("settle", func(_ *spoiler, cmd redis.Cmder) bool {
			return fmt.Sprint(*arg(cmd, 2)) == "-1" && answer(int64(1))(nil, cmd)
		})},
		"no expiry after all":           {found: "a miss is loaded and stored", command: on("settle", set(2, 0))},
		"no lease":                      {found: "one loader at a time", command: on("lease", answerTime)},
		"no waiting":                    {found: "one loader at a time", command: named("exists", answer(int64(0)))},
		"the lease is kept":             {found: "a load that fails", command: on("release", answer(int64(1)))},
		"another's lease is given back": {found: "the lease of another", command: on("release", instead(`return redis.call('DEL', KEYS[1])`))},
		"the lease has no end":          {found: "the lease of another", command: on("lease", set(2, 1_000_000_000))},
		"hits are loaded":               {found: "a hit is not loaded", command: named("get", answer(nil))},
		"no probation": {
			found: "a crash between any two commands", command: on("settle", instead(settleAll)),
			put: eachSet(func(_ *spoiler, args []any) { args[4] = 4_102_444_800_000 }),
		},
		"the probation is relative":  {found: "a put that arrives late", put: eachSet(func(_ *spoiler, args []any) { args[3], args[4] = "PX", 1000 })},
		"one probation for all":      {found: "probation", put: eachSet(atTheLimit)},
		"the entry before its index": {found: "a crash between any two commands", put: func(_ *spoiler, cmds []redis.Cmder) { slices.Reverse(cmds) }},
		"no index":                   {found: "a crash between any two commands", put: eachNamed("zadd", func(_ *spoiler, args []any) { args[1] = "elsewhere" })},
		"no companion":               {found: "an entry's own tags", command: on("settle", instead(settleAll))},
		"an index without expiry":    {found: "a miss is loaded and stored", put: eachNamed("zadd", func(_ *spoiler, args []any) { args[2] = "+inf" })},
		"only valid text": {found: "any bytes", put: eachSet(func(_ *spoiler, args []any) {
			args[2] = strings.ToValidUTF8(string(args[2].([]byte)), "?")
		})},
		"errors reach the page": {found: "the cache Redis is away", before: func(p *goPort, _ Request) string {
			if err := p.conns[1].Ping(context.Background()).Err(); err != nil {
				return err.Error()
			}
			return ""
		}},
		"the active release is read once": {found: "follows the active release", open: func(p *goPort, s *Settings) {
			s.Release = p.conns[0].Get(context.Background(), tasks.KeysOf(s.App).Active()).Val()
		}},
	}
}

// settleAll does not look whether the value is the one that was put.
const settleAll = `
	if ARGV[2] == '-1' then return redis.call('DEL', KEYS[1]) end
	return redis.call('PEXPIREAT', KEYS[1], ARGV[2])`

// A change alters a command in place, or answers it without the server and returns true.
type change func(*spoiler, redis.Cmder) (handled bool)

// In the arguments of EVAL and EVALSHA, the script or its SHA-1 and the number of keys come before the keys.
const firstKey = 3

func is(cmd redis.Cmder, script string) bool {
	args, lua := cmd.Args(), tasks.FillScripts()[script+".lua"]
	return len(args) > firstKey && (args[1] == lua || args[1] == redis.NewScript(lua).Hash())
}

// arg points at a script's ARGV, counted from 1 as Lua does.
func arg(cmd redis.Cmder, n int) *any {
	keys, _ := strconv.Atoi(fmt.Sprint(cmd.Args()[2]))
	return &cmd.Args()[firstKey+keys+n-1]
}

func on(script string, c change) func(*spoiler, redis.Cmder) bool {
	return func(s *spoiler, cmd redis.Cmder) bool { return is(cmd, script) && c(s, cmd) }
}

func named(name string, c change) func(*spoiler, redis.Cmder) bool {
	return func(s *spoiler, cmd redis.Cmder) bool { return cmd.Name() == name && c(s, cmd) }
}

func set(n int, value any) change {
	return func(_ *spoiler, cmd redis.Cmder) bool { *arg(cmd, n) = value; return false }
}

// instead runs another script with the same KEYS and ARGV.
func instead(lua string) change {
	return func(_ *spoiler, cmd redis.Cmder) bool { cmd.Args()[0], cmd.Args()[1] = "eval", lua; return false }
}

// answer answers without the server; nil is a key that is not there.
func answer(reply any) change {
	return func(_ *spoiler, cmd redis.Cmder) bool {
		switch c := cmd.(type) {
		case *redis.Cmd:
			c.SetVal(reply)
		case *redis.IntCmd:
			c.SetVal(reply.(int64))
		case *redis.StringCmd:
			c.SetErr(redis.Nil)
		}
		return true
	}
}

func answerTime(s *spoiler, cmd redis.Cmder) bool {
	now := s.cache.Time(context.Background()).Val().UnixMilli()
	return answer([]any{int64(1), now})(s, cmd)
}

func onCheckTags(_ *spoiler, cmd redis.Cmder) bool {
	if is(cmd, "check") {
		for n := range cmd.Args()[firstKey+4+5:] {
			*arg(cmd, 6+n) = "untagged"
		}
	}
	return false
}

func (s *spoiler) mark() []string {
	k := tasks.KeysOf("site")
	got, _ := redis.NewScript(tasks.FillScripts()["mark.lua"]).Run(context.Background(), s.queue, []string{k.LogMeta(), k.Pending()}, "e", 0).StringSlice()
	return got
}

func anyEpoch(s *spoiler, cmd redis.Cmder) bool { *arg(cmd, 2) = s.mark()[1]; return false }

// lateMark takes the mark where the check should use it.
func lateMark(s *spoiler, cmd redis.Cmder) bool {
	switch {
	case is(cmd, "mark"):
		return answer([]any{"1", "later"})(s, cmd)
	case is(cmd, "check"):
		late := s.mark()
		*arg(cmd, 1), *arg(cmd, 2) = late[0], late[1]
	}
	return false
}

// eachNamed changes the arguments of the put's commands of that name.
func eachNamed(name string, change func(s *spoiler, args []any)) func(*spoiler, []redis.Cmder) {
	return func(s *spoiler, cmds []redis.Cmder) {
		for _, cmd := range cmds {
			if cmd.Name() == name {
				change(s, cmd.Args())
			}
		}
	}
}

// eachSet changes SET key value PXAT expiry.
func eachSet(change func(s *spoiler, args []any)) func(*spoiler, []redis.Cmder) {
	return eachNamed("set", change)
}

// atTheLimit ends every put's probation with its lease, without a jitter of its own.
func atTheLimit(s *spoiler, args []any) {
	lease := strings.Replace(args[1].(string), "post:1", tasks.LeaseKey("post:1"), 1)
	args[4] = s.cache.PExpireTime(context.Background(), lease).Val().Milliseconds()
}

// spoiler is the hook by which a fault reaches the Go client's commands.
type spoiler struct {
	fault        fault
	queue, cache redis.UniversalClient // without the hook
}

func (s *spoiler) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *spoiler) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if s.fault.command != nil && s.fault.command(s, cmd) {
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

func (s *spoiler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if s.fault.put != nil {
			s.fault.put(s, cmds)
		}
		return next(ctx, cmds)
	}
}
