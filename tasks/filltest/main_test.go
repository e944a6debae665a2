package filltest

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asPort makes the test binary the Go client's port; its value is a fault, or "none".
const asPort = "STOKER_FILLTEST_PORT"

var portCommand = flag.String("port", "", "command that starts the port to test, split at spaces; it runs in the repository's root")

func TestMain(m *testing.M) {
	if fault := os.Getenv(asPort); fault != "" {
		os.Exit(servePort(os.Stdin, os.Stdout, fault))
	}
	goleak.VerifyTestMain(m)
}

// TestPort runs the suite against the port that -port names.
func TestPort(t *testing.T) {
	if *portCommand == "" {
		t.Skip("no -port given")
	}
	t.Chdir("../..")
	Run(t, strings.Fields(*portCommand)...)
}

func TestGoClient(t *testing.T) {
	t.Parallel()
	runWith(t, []string{os.Args[0]}, []string{asPort + "=none"})
}

// pythonWithRedis returns the system's Python, for which the system's packages are, or skips the test.
func pythonWithRedis(t *testing.T) string {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import redis").Run(); err != nil {
		t.Skipf("%s or its package redis (python3-redis) is not installed: the Python port was not run", python)
	}
	return python
}

func TestPythonPort(t *testing.T) {
	t.Parallel()
	port := filepath.Join("..", "..", "deploy", "fill", "python", "conform.py")
	runWith(t, []string{pythonWithRedis(t), port}, []string{"PYTHONDONTWRITEBYTECODE=1"})
}
