package web

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alphanode/stoker/tasks"
)

// What the servers of the cache Redis count: every client's reads, stoker's own as well.
var (
	descCacheHits    = desc("cache_hits_total", "Reads of a server of the cache Redis that found their key, whoever asked.", "node")
	descCacheMisses  = desc("cache_misses_total", "Reads of a server of the cache Redis that did not.", "node")
	descCacheEvicted = desc("cache_evicted_total", "Keys that a server of the cache Redis has evicted.", "node")
)

var cacheDescs = []*prometheus.Desc{descCacheHits, descCacheMisses, descCacheEvicted}

// cacheFields are the fields of INFO that the metrics are of.
var cacheFields = map[string]*prometheus.Desc{
	"keyspace_hits": descCacheHits, "keyspace_misses": descCacheMisses, "evicted_keys": descCacheEvicted,
}

// cache reads what the cache Redis counts. A server that does not tell a figure has none.
func (c *collector) cache(ctx context.Context) (found []prometheus.Metric, err error) {
	servers, err := tasks.Primaries(ctx, c.server.deps.Cache)
	if err != nil {
		return nil, err
	}
	for node, server := range servers {
		info, err := server.Info(ctx, "stats").Result()
		if err != nil {
			return nil, fmt.Errorf("read what the cache Redis counts: %w", err)
		}
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if d, ok := cacheFields[name]; ok {
				if n, err := strconv.ParseFloat(value, 64); err == nil {
					found = append(found, counter(d, n, node))
				}
			}
		}
	}
	return found, nil
}
