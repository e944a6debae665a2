package namespace_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(&run{m: m}) }

// run is the run of all tests of the package: what a server that they share belongs to.
type run struct {
	testing.TB // nil: what is not here is not used
	m          *testing.M
	cleanups   []func()
}

var shared struct {
	sync.Once
	run     run
	cluster *redistest.Cluster
}

// Run runs the tests, then ends what they shared.
func (r *run) Run() int {
	code := r.m.Run()
	for i := len(shared.run.cleanups) - 1; i >= 0; i-- {
		shared.run.cleanups[i]()
	}
	return code
}

func (r *run) Helper()                   {}
func (r *run) Failed() bool              { return false }
func (r *run) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *run) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (r *run) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (r *run) Logf(f string, a ...any)   { fmt.Fprintf(os.Stderr, f+"\n", a...) }

func (r *run) TempDir() string {
	dir, err := os.MkdirTemp("", "namespace")
	if err != nil {
		panic(err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// together is a template by which every release's copy of an entry shares a slot.
const together = "<app>:<release>:{<key>}"

// onCluster returns a fixture on the Cluster of three primaries that the package's tests share, emptied.
func onCluster(t testing.TB, text string) fixture {
	t.Helper()
	shared.Do(func() { shared.cluster = redistest.StartCluster(&shared.run, 3, 0) })
	for _, s := range shared.cluster.Servers {
		if err := s.Client.FlushAll(ctxOf(t)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	f := fixture{t: t, rdb: shared.cluster.Client, tmpl: template(t, text), keys: tasks.KeysOf("site")}
	f.Cache = namespace.New(f.rdb, f.tmpl, f.keys, nil)
	return f
}
