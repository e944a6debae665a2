package invalidation

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// slotsSlice is tag.lua's work on a cache Redis that is a Cluster, where a script sees no entry beside
// the index: it removes one slice of a tag's entries and marks their members. The members are marked
// first: whoever lists an entry meanwhile and sets it after is found by the next removal, since that
// looks at marked members too.
func (a *Applier) slotsSlice(ctx context.Context, release, index string, cursor string, mark bool) (tagSlice, error) {
	at, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return tagSlice{}, err
	}
	found, next, err := a.cache.ZScan(ctx, index, at, "", slice).Result()
	if err != nil {
		return tagSlice{}, err
	}
	s := tagSlice{cursor: strconv.FormatUint(next, 10)}
	if len(found) == 0 {
		return s, nil
	}
	now, err := a.cache.Time(ctx).Result()
	if err != nil {
		return tagSlice{}, err
	}
	gone := "-" + strconv.FormatInt(now.UnixMilli(), 10)
	unlinks := make([]*redis.IntCmd, 0, len(found)/2)
	marks := []any{"ZADD", index, "XX"}
	for i := 0; i+1 < len(found); i += 2 {
		if !strings.HasPrefix(found[i+1], "-") {
			marks = append(marks, gone, found[i])
		}
	}
	if mark && len(marks) > 3 {
		if err := a.cache.Do(ctx, marks...).Err(); err != nil {
			return tagSlice{}, err
		}
	}
	_, err = a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := 0; i+1 < len(found); i += 2 {
			unlinks = append(unlinks, p.Unlink(ctx, a.tmpl.Key(release, found[i])))
		}
		return nil
	})
	if err != nil {
		return tagSlice{}, err
	}
	again := []any{"ZADD", index, "XX"}
	for i, u := range unlinks {
		if s.removed += u.Val(); u.Val() > 0 && strings.HasPrefix(found[2*i+1], "-") {
			again = append(again, gone, found[2*i]) // it was set again since: the mark counts from now
		}
	}
	if mark && len(again) > 3 {
		err = a.cache.Do(ctx, again...).Err()
	}
	return s, err
}

// slotsListed returns the members of one slice of a tag's index.
func (a *Applier) slotsListed(ctx context.Context, index string, cursor string) (keys []string, next string, err error) {
	at, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return nil, "", err
	}
	found, after, err := a.cache.ZScan(ctx, index, at, "", slice).Result()
	for i := 0; i+1 < len(found); i += 2 {
		keys = append(keys, found[i])
	}
	return keys, strconv.FormatUint(after, 10), err
}

// servers returns the servers that hold a cache's keys: of a Cluster its primaries.
func servers(ctx context.Context, cache redis.UniversalClient) (all []redis.Cmdable, err error) {
	cluster, ok := cache.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{cache}, nil
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(_ context.Context, server *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, server)
		return nil
	})
	return all, err
}
