package filltest

import "testing"

// check is one thing that a port must do. Its run ends early by panicking with a failure.
type check struct {
	name string
	run  func(*world)
}

// Run runs every check against the port that command starts.
func Run(t *testing.T, command ...string) {
	t.Helper()
	runWith(t, command, nil)
}

// runWith runs every check with variables for the port's environment.
func runWith(t *testing.T, command, env []string) {
	t.Helper()
	w := newWorld(t, command, env)
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := w.run(c); err != nil {
				t.Error(err)
			}
		})
	}
}
