package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

// realKeys is where keys that real clients wrote lie, beside a checkout of this repository.
const realKeys = "../../../shared/data/real-keys.jsonl.gz"

// value is a key of any type in a form that can be compared.
type value struct {
	Type    string
	Expires int64 // Unix milliseconds; -1 never
	Value   any
}

// loadRealKeys restores every real key into a Redis.
func loadRealKeys(t *testing.T, rdb *redis.Client) {
	t.Helper()
	f, err := os.Open(realKeys)
	if err != nil {
		t.Skipf("real keys not found: %v", err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	pipe := rdb.Pipeline()
	lines := bufio.NewScanner(zr)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var line struct {
			Key     string `json:"k"`
			TTL     int64  `json:"ttl_ms"`
			Payload string `json:"d"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(line.Key)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := base64.StdEncoding.DecodeString(line.Payload)
		if err != nil {
			t.Fatal(err)
		}
		pipe.RestoreReplace(ctx, string(key), time.Duration(max(0, line.TTL))*time.Millisecond, string(payload))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
}

// readAll returns every key of a Redis but stoker's and asynq's own.
func readAll(t *testing.T, rdb *redis.Client) map[string]value {
	t.Helper()
	ctx := context.Background()
	all := map[string]value{}
	it := rdb.Scan(ctx, 0, "*", 1000).Iterator()
	for it.Next(ctx) {
		k := it.Val()
		if strings.HasPrefix(k, "stoker:{") || strings.HasPrefix(k, "asynq:") {
			continue
		}
		v := value{Type: rdb.Type(ctx, k).Val(), Expires: -1}
		if at := rdb.PExpireTime(ctx, k).Val(); at > 0 {
			v.Expires = at.Milliseconds()
		}
		switch v.Type {
		case "none":
			continue // expired just now
		case "string":
			v.Value = rdb.Get(ctx, k).Val()
		case "hash":
			v.Value = rdb.HGetAll(ctx, k).Val()
		case "list":
			v.Value = rdb.LRange(ctx, k, 0, -1).Val()
		case "set":
			members := rdb.SMembers(ctx, k).Val()
			slices.Sort(members)
			v.Value = members
		case "zset":
			v.Value = rdb.ZRangeWithScores(ctx, k, 0, -1).Val()
		default:
			t.Fatalf("key %q is a %s: compare it, too", k, v.Type)
		}
		all[k] = v
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// Namespaces that six real client stacks wrote are adopted, archived, removed and brought back:
// every key equal by value, type and absolute expiry, no other key touched.
func TestAdoptRealNamespaces(t *testing.T) {
	for _, c := range []struct{ client, template, release string }{
		{"WordPress", "wp:<release>:<key>", "r1"},
		{"Django", "<release>:1:<key>", "rel-41"},
		{"Symfony with tags", "<release>_tagged:<key>", "sfrel7"},
		{"Laravel", "lv:<release>:<key>", "rel7"},
		{"ioredis", "io:<release>:<key>", "r7"},
		{"Rails", "rails:<release>:<key>", "rel7"},
	} {
		t.Run(c.client, func(t *testing.T) {
			t.Parallel()
			in := newInstall(t, "STOKER_KEY_TEMPLATE="+c.template)
			loadRealKeys(t, in.redis.Client)
			before := readAll(t, in.redis.Client)
			prefix := strings.NewReplacer("<release>", c.release, "<key>", "").Replace(c.template)
			mine := map[string]value{}
			for k, v := range before {
				if strings.HasPrefix(k, prefix) {
					mine[k] = v
				}
			}
			in.start("worker")
			in.must("release", "create", c.release, "--adopt")
			in.must("snapshot", c.release, "--wait")
			in.must("expire", "--release", c.release, "--wait")

			rest := maps.Clone(before)
			maps.DeleteFunc(rest, func(k string, _ value) bool { _, ok := mine[k]; return ok })
			if diff := cmp.Diff(unexpired(rest), unexpired(readAll(t, in.redis.Client))); diff != "" {
				t.Errorf("after the expiry (-want +got):\n%s", diff)
			}
			in.must("rollback", "--to", c.release, "--wait")
			if diff := cmp.Diff(unexpired(before), unexpired(readAll(t, in.redis.Client))); diff != "" {
				t.Errorf("after the restore (-want +got):\n%s", diff)
			}
			if len(unexpired(mine)) < len(mine)/2 {
				t.Errorf("only %d of %d keys were compared", len(unexpired(mine)), len(mine))
			}
			t.Logf("%d keys archived and restored, %d neighbours untouched", len(mine), len(rest))
		})
	}
}

// unexpired leaves out keys whose time is up, or nearly, so that two readings can be compared.
func unexpired(all map[string]value) map[string]value {
	soon := time.Now().Add(time.Minute).UnixMilli()
	kept := maps.Clone(all)
	maps.DeleteFunc(kept, func(_ string, v value) bool { return v.Expires >= 0 && v.Expires < soon })
	return kept
}

func TestAdoptNothing(t *testing.T) {
	in := newInstall(t)
	if _, msg, code := in.run("release", "create", "r1", "--adopt"); code != exitBadInput || !strings.Contains(msg, "STOKER_KEY_TEMPLATE") {
		t.Errorf("exit code %d, %s", code, msg)
	}
	if out := in.must("release", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("a refused adoption registered a release: %s", out)
	}
}
