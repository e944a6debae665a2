package deploy_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/kelseyhightower/envconfig"
	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/health"
	"github.com/alphanode/stoker/worker/redistest"
	"github.com/alphanode/stoker/worker/release"
)

var (
	moreRights = regexp.MustCompile("On a Redis Cluster add `([^`]+)` to both, and to `stoker`\\s+`([^`]+)`")
	aclUser    = regexp.MustCompile(`(?m)^user (stoker|site) (.*)$`)
)

// TestRightsOnACluster gives the users of users.acl what README.md adds for a Cluster, and no more, and does
// with a namespace what stoker does with one.
func TestRightsOnACluster(t *testing.T) {
	more := moreRights.FindStringSubmatch(read(t, "README.md"))
	if more == nil {
		t.Fatal("README.md does not say what to add to users.acl on a Cluster")
	}
	c := redistest.StartCluster(t, 3, 0)
	users := aclUser.FindAllStringSubmatch(strings.ReplaceAll(read(t, "users.acl"), "site:", "shop:"), -1)
	for _, u := range users {
		rules := strings.Fields(strings.ReplaceAll(u[2], "{site", "{shop") + " " + more[1])
		if u[1] == "stoker" {
			rules = append(rules, strings.Fields(strings.ReplaceAll(more[2], "<app>", "shop"))...)
		}
		for i, rule := range rules {
			if strings.HasPrefix(rule, "#") {
				rules[i] = ">" + stokerPassword
			}
		}
		for _, s := range c.Servers {
			if err := s.Client.ACLSetUser(t.Context(), u[1], rules...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	as := func(user string) *redis.ClusterClient {
		o := *c.Client.Options()
		o.Username, o.Password = user, stokerPassword
		client := redis.NewClusterClient(&o)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	queue := redistest.Start(t).Client
	ledger, by := release.Open(queue, tasks.KeysOf("shop")), tasks.By{Actor: "test"}
	if err := ledger.Create(t.Context(), release.Record{ID: "r1", Template: tasks.DefaultTemplate}, by); err != nil {
		t.Fatal(err)
	}
	tendNamespace(t, as("stoker"))
	watchCache(t, queue, as("stoker"))
	fill(t, queue, as("site"))
	keys := tasks.KeysOf("shop")
	named := []string{"shop:r1:a", keys.Fence("r1"), keys.SlotFence("r1", "1"), keys.Followers("1"), keys.Watermark(1)}
	var cfg health.Config
	if err := envconfig.Process("STOKER_TEST_EMPTY", &cfg); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]health.Status{"stoker": health.OK, "site": health.Fail} {
		checks := health.Doctor(t.Context(), health.DoctorDeps{
			Queue: queue, Cache: as(user), QueueURL: "redis://stoker:x@127.0.0.1", CacheURL: c.URL, CacheKeys: named,
			Template: tasks.DefaultTemplate, Records: ledger.List,
		}, cfg)
		for _, check := range checks {
			if check.Name == "cache.rights" && check.Status != want {
				t.Errorf("the doctor on the user %s: %s: %s", user, check.Status, check.Detail)
			}
		}
	}
	if err := as("site").Set(t.Context(), "stoker:{1}:fence:shop:r1", "mine", 0).Err(); err == nil {
		t.Error("an app server may set a fence")
	}
}
