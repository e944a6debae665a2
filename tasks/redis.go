package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterReload is how old a client's picture of a Cluster may be when it sends a command: what a primary
// that died had, it asks of its heir that much later at the latest. The client's own default is a minute.
const clusterReload = 2 * time.Second

// Connect returns a client for a Redis URL without dialling it:
//
//	redis://user:password@host:6379/0           one server (rediss:// with TLS, unix:///path)
//	redis-sentinel://host:26379/0?master_name=m  a Sentinel group, with addr=host:port for more Sentinels
//	redis-cluster://host:6379?addr=host2:6379    a Cluster (rediss-cluster:// with TLS)
//
// name is the setting the URL came from; the error repeats it, never the password.
func Connect(name, url string) (redis.UniversalClient, error) {
	scheme, rest, ok := strings.Cut(url, "://")
	var err error
	switch {
	case !ok:
		err = fmt.Errorf("no scheme")
	case scheme == "redis" || scheme == "rediss" || scheme == "unix":
		var opt *redis.Options
		if opt, err = redis.ParseURL(url); err == nil {
			return redis.NewClient(opt), nil
		}
	case scheme == "redis-sentinel" || scheme == "rediss-sentinel":
		var opt *redis.FailoverOptions
		if opt, err = redis.ParseFailoverURL(strings.TrimSuffix(scheme, "-sentinel") + "://" + rest); err == nil {
			return redis.NewFailoverClient(opt), nil
		}
	case scheme == "redis-cluster" || scheme == "rediss-cluster":
		var opt *redis.ClusterOptions
		if opt, err = redis.ParseClusterURL(strings.TrimSuffix(scheme, "-cluster") + "://" + rest); err == nil {
			opt.ClusterStateReloadInterval = clusterReload
			return redis.NewClusterClient(opt), nil
		}
	default:
		err = fmt.Errorf("unknown scheme %q", scheme)
	}
	why := err.Error()
	if quotesSecret(why, rest) {
		why = "it cannot be read"
	}
	return nil, fmt.Errorf("%w: %s: %s: use redis://[user:password@]host:port/db, unix:///path, redis-sentinel://… or redis-cluster://…", ErrInvalid, name, why)
}

// Sharded reports whether a client's keys lie in slots of several servers: a script may then touch
// those of one slot only.
func Sharded(client redis.UniversalClient) bool {
	switch client.(type) {
	case *redis.ClusterClient, *redis.Ring:
		return true
	}
	return false
}

// Primaries returns the servers that hold a client's keys, by address: of a Cluster its primaries. A
// single server and a Sentinel group are the client itself, under "".
func Primaries(ctx context.Context, client redis.UniversalClient) (map[string]redis.UniversalClient, error) {
	found := map[string]redis.UniversalClient{}
	var mu sync.Mutex
	add := func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		found[c.Options().Addr] = c
		return nil
	}
	var err error
	switch c := client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, add)
	case *redis.Ring:
		err = c.ForEachShard(ctx, add)
	default:
		found[""] = client
	}
	if err == nil && len(found) == 0 {
		err = errors.New("no server of it owns any slots: has it been set up as a Cluster?")
	}
	return found, err
}

// LoadScripts makes scripts known to a server, or to all primaries of a Cluster: the client's own way of it
// waits for the replicas as well, and for long when one hangs.
func LoadScripts(ctx context.Context, on redis.Scripter, scripts ...*redis.Script) error {
	servers := []redis.Scripter{on}
	if cluster, ok := on.(*redis.ClusterClient); ok {
		primaries, err := Primaries(ctx, cluster)
		if err != nil {
			return fmt.Errorf("load scripts: %w", err)
		}
		servers = servers[:0]
		for _, p := range primaries {
			servers = append(servers, p)
		}
	}
	for _, server := range servers {
		for _, s := range scripts {
			if err := s.Load(ctx, server).Err(); err != nil {
				return fmt.Errorf("load scripts: %w", err)
			}
		}
	}
	return nil
}

// quotesSecret reports whether a parser's words about a URL may hold a part of its password. It
// errs on the side of silence: a URL that cannot be read cannot be taken apart for sure.
func quotesSecret(words, url string) bool {
	secret := ""
	if at := strings.LastIndexByte(url, '@'); at >= 0 {
		secret = url[:at]
	}
	if _, query, ok := strings.Cut(url, "password="); ok {
		secret += ":" + query
	}
	parts := strings.FieldsFunc(secret, func(r rune) bool { return strings.ContainsRune(":/@?#&=%", r) })
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(words, part) })
}
