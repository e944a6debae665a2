package namespace_test

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// hook does something before or after commands of one name.
type hook struct {
	name          string
	before, after func()
}

func before(name string, do func()) redis.Hook { return hook{name, do, func() {}} }

func after(name string, do func()) redis.Hook { return hook{name, func() {}, do} }

func (h hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.each(cmds, h.before)
		err := next(ctx, cmds)
		h.each(cmds, h.after)
		return err
	}
}

func (h hook) each(cmds []redis.Cmder, do func()) {
	for _, cmd := range cmds {
		if cmd.Name() == h.name {
			do()
		}
	}
}
