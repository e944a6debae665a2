package filltest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alphanode/stoker/tasks"
)

const contract = "../../deploy/fill.md"

func readContract(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The contract's table of scripts names the KEYS in the order in which the Go client gives them, and
// every script.
func TestContractNamesTheScripts(t *testing.T) {
	rows := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+\\.lua)` \\| (queue|cache) \\| ([^|]+) \\|").FindAllStringSubmatch(readContract(t), -1) {
		rows[m[1]] = m[2:]
	}
	keysLine := regexp.MustCompile(`(?m)^-- KEYS  (.*)$`)
	for name, text := range tasks.FillScripts() {
		row, ok := rows[name]
		if !ok {
			t.Errorf("%s has no row in the contract", name)
			continue
		}
		header := keysLine.FindStringSubmatch(text)
		if header == nil {
			t.Fatalf("%s does not name its KEYS", name)
		}
		if row[0] != "queue" {
			continue
		}
		want := strings.Fields(regexp.MustCompile(`\d`).ReplaceAllString(header[1], ""))
		if got := strings.Fields(strings.ReplaceAll(row[1], "`", "")); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("the contract gives %s the KEYS %v; it takes %v", name, got, want)
		}
	}
	if len(rows) != len(tasks.FillScripts()) {
		t.Errorf("the contract has rows for %d scripts, there are %d", len(rows), len(tasks.FillScripts()))
	}
}

// The contract's example for Python fills the cache.
func TestContractPythonExample(t *testing.T) {
	t.Parallel()
	python := pythonWithRedis(t)
	m := regexp.MustCompile("(?s)```python\n(.*?)```").FindStringSubmatch(readContract(t))
	if m == nil {
		t.Fatal("the contract has no example for Python")
	}
	w := newWorld(t, nil, nil)
	err := w.run(check{"example", func(w *world) {
		dir := filepath.Join(filepath.Dir(w.scripts), "app")
		w.must(os.MkdirAll(dir, 0o700))
		w.must(os.Symlink(w.scripts, filepath.Join(dir, "stoker-scripts")))
		port, err := filepath.Abs("../../deploy/fill/python")
		w.must(err)
		cmd := exec.Command(python, "-")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(m[1])
		cmd.Env = append(os.Environ(), "PYTHONPATH="+port, "PYTHONDONTWRITEBYTECODE=1", "STOKER_APP=site",
			"STOKER_REDIS_URL=redis://"+w.queueAddr, "STOKER_CACHE_URL=redis://"+w.cacheAddr)
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.failf("%v\n%s", err, out)
		}
		w.wantEntry("page:/posts/tending-fires", "<h1>tending-fires</h1>")
		if left := time.Until(time.UnixMilli(w.expiry(w.entry("page:/posts/tending-fires")))); left < time.Minute {
			w.failf("the example's entry expires in %v", left)
		}
	}})
	if err != nil {
		t.Error(err)
	}
}
