package main

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Keys hold any characters: each command takes away what it names, to the letter, and a release
// whose ID begins like another's is another.
func TestKeysToTheLetter(t *testing.T) {
	in := newInstall(t)
	ctx := context.Background()
	names := []string{
		"a *[b]", "a xb", "a *b", "a  [b]", "a", "*", "?", "[a-z]", `back\slash`, `\*`, `"quoted"`, "it's", "--flag",
		"ключ/日本", "café", "cafe\u0301", "wp_query-00a2… 1795371029", "new\nline", "tab\t", "post:1", "post:10", "post:", "{slot}",
	}
	for _, id := range []string{"r1", "r10", "r"} {
		for _, name := range names {
			if err := in.redis.Client.Set(ctx, "site:"+id+":"+name, id+" "+name, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	in.must("release", "create", "r1", "--adopt")
	in.must("release", "create", "r10", "--adopt", "--active")
	in.start("worker")
	want := readAll(t, in.redis.Client)
	check := func(what string) {
		t.Helper()
		if diff := cmp.Diff(want, readAll(t, in.redis.Client)); diff != "" {
			t.Fatalf("after %s (-want +got):\n%s", what, diff)
		}
	}
	drop := func(match func(id, name string) bool) {
		maps.DeleteFunc(want, func(key string, _ value) bool {
			id, name, _ := strings.Cut(strings.TrimPrefix(key, "site:"), ":")
			return id != "r" && match(id, name) // which no ledger knows
		})
	}

	for _, name := range []string{"a *[b]", "*", "?", "[a-z]", `\*`, `back\slash`, `"quoted"`, "it's", "--flag", "ключ/日本", "café", "new\nline", "post:1", "post:"} {
		in.must("invalidate", "--key="+name, "--wait")
		drop(func(_, n string) bool { return n == name })
		check("invalidate --key " + name)
	}
	for _, prefix := range []string{"a ", "cafe", "{"} {
		in.must("invalidate", "--prefix", prefix, "--wait")
		drop(func(_, n string) bool { return strings.HasPrefix(n, prefix) })
		check("invalidate --prefix " + prefix)
	}
	in.must("invalidate", "--prefix", "[", "--prefix", "*", "--prefix", "a?", "--wait")
	check("prefixes that are globs, and match nothing")

	in.must("expire", "--release", "r1", "--no-snapshot", "--wait")
	drop(func(id, _ string) bool { return id == "r1" })
	check("expire --release r1")
}
