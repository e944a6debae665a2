package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	apiPage         = "../../deploy/api.md"
	operationsBegin = "<!-- operations -->\n"
	operationsEnd   = "<!-- /operations -->"
)

// operationsTable is the page's table of what operators may ask for.
func operationsTable() string {
	var b strings.Builder
	b.WriteString("| operation | scope | does |\n|---|---|---|\n")
	for _, e := range endpoints() {
		op, ok := e.serve(nil)
		if !ok {
			continue
		}
		answered := ""
		if op.Goes {
			answered = " (202)"
		}
		fmt.Fprintf(&b, "| `%s %s` | %s | %s%s |\n", op.Method, op.Path, op.Scope, op.Says, answered)
	}
	return b.String()
}

// The page's table equals the code; run with -update to write it.
func TestOperationsTable(t *testing.T) {
	raw, err := os.ReadFile(apiPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), operationsBegin)
	table, after, ok2 := strings.Cut(rest, operationsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %s and %s", apiPage, strings.TrimSpace(operationsBegin), operationsEnd)
	}
	want := operationsTable()
	if *update {
		if err := os.WriteFile(apiPage, []byte(before+operationsBegin+want+operationsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("the table of operations in %s is not the code's; go test ./cmd/stoker -run TestOperationsTable -update writes it (-code +page):\n%s", apiPage, diff)
	}
}
