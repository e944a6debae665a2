package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/alphanode/stoker/worker/redistest"
)

// A process that is started before its Redises waits for them, says so, and is then as good as any; asked to stop
// while it waits, it does. The console starts at once, for it tells people what is missing.
func TestStartedBeforeItsRedis(t *testing.T) {
	t.Parallel()
	cache := redistest.Start(t)
	in := newInstall(t)
	in = in.with("STOKER_CACHE_URL=" + cache.URL)
	for name, server := range map[string]*redistest.Server{"the cache Redis": cache, "the queue Redis": in.redis} {
		server.Stop()
		worker, scheduler, web := in.start("worker"), in.start("scheduler"), in.start("web")
		for _, p := range []*process{worker, scheduler} {
			redistest.Eventually(t, "it to say that it waits", func() bool {
				return strings.Contains(p.text(), "waiting for a Redis") && strings.Contains(p.text(), name+" at")
			})
		}
		redistest.Eventually(t, "the console", func() bool {
			return strings.Contains(web.text(), "console listens") && strings.Contains(web.text(), name+" at")
		})
		impatient := in.start("worker")
		redistest.Eventually(t, "it to wait", func() bool { return strings.Contains(impatient.text(), "waiting for a Redis") })
		impatient.end(syscall.SIGTERM)
		if code := impatient.cmd.ProcessState.ExitCode(); code != exitDone {
			t.Errorf("stopped while it waited for %s: exit code %d\n%s", name, code, impatient.text())
		}
		server.Restart()
		redistest.Eventually(t, "the worker to start", func() bool { return strings.Contains(worker.text(), "worker started") })
		redistest.Eventually(t, "the scheduler to start", func() bool { return strings.Contains(scheduler.text(), "scheduler started") })
		in.must("status")
		for _, p := range []*process{worker, scheduler, web} {
			p.end(syscall.SIGTERM)
			if n := strings.Count(p.text(), "waiting for a Redis"); n > 1 {
				t.Errorf("it said %d times that it waits", n)
			}
		}
	}
}
