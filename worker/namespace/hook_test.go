package namespace_test

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// hook does something after commands of one name.
type hook struct {
	name string
	do   func()
}

func after(name string, do func()) redis.Hook { return hook{name, do} }

func (h hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if cmd.Name() == h.name {
				h.do()
			}
		}
		return err
	}
}
