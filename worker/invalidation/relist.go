package invalidation

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// noteBatch is how many slots' notes are read at a time.
	noteBatch = 1024
	// missingLife is how long a member is listed whose entry is not there: its fill may be about to set it.
	missingLife = time.Hour
)

// relist lists again what fills have listed of late in the live releases: a promoted server of a Cluster
// may have lost members of indexes whose entries are on others. A member that an index has keeps its
// score. An entry that a copy has taken to another live release is listed there as well. It returns how many members
// had been lost. There are none where an index is on the same server as its entries.
func (a *Applier) relist(ctx context.Context, live []string) (lost int64, err error) {
	if !tasks.Sharded(a.cache) {
		return 0, nil
	}
	for _, release := range live {
		for keys := range slices.Chunk(tasks.ListingKeys(a.tmpl, release), noteBatch) {
			listings, err := a.listings(ctx, keys)
			if err != nil {
				return lost, fmt.Errorf("release %q: read what was listed: %w", release, err)
			}
			n, err := a.listAgain(ctx, release, live, listings)
			lost += n
			if err != nil {
				return lost, fmt.Errorf("release %q: list again: %w", release, err)
			}
		}
	}
	return lost, nil
}

// listings reads the notes under some keys.
func (a *Applier) listings(ctx context.Context, keys []string) (found []tasks.Listing, err error) {
	cmds, err := a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.ZRange(ctx, key, 0, -1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, cmd := range cmds {
		for _, text := range cmd.(*redis.StringSliceCmd).Val() {
			l, err := tasks.ParseListing(text)
			if err != nil {
				return nil, err
			}
			found = append(found, l)
		}
	}
	return found, nil
}

// listAgain lists entries in a release, and then in the other live ones that have them. In this order: a copy
// carries the members behind the entries, so what is not there yet will be listed by it.
func (a *Applier) listAgain(ctx context.Context, release string, live []string, listings []tasks.Listing) (lost int64, err error) {
	for some := range slices.Chunk(listings, slice) {
		releases := append([]string{release}, slices.DeleteFunc(slices.Clone(live), func(id string) bool { return id == release })...)
		for _, id := range releases {
			n, err := a.listIn(ctx, id, some, id == release)
			lost += n
			if err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

// listIn lists entries in one release: those that it has, or all of them.
func (a *Applier) listIn(ctx context.Context, release string, listings []tasks.Listing, all bool) (lost int64, err error) {
	expiries := make([]*redis.Cmd, len(listings))
	_, err = a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range listings {
			expiries[i] = p.Do(ctx, "PEXPIRETIME", a.tmpl.Key(release, l.Key))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	added, err := a.cache.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range listings {
			score := "+inf"
			switch expiry, err := expiries[i].Int64(); {
			case err != nil:
				return err
			case expiry == -2 && !all:
				continue
			case expiry == -2:
				score = strconv.FormatInt(time.Now().Add(missingLife).UnixMilli(), 10)
			case expiry >= 0:
				score = strconv.FormatInt(expiry, 10)
			}
			for _, tag := range l.Tags {
				p.Do(ctx, "ZADD", a.index(release, tag), "NX", score, l.Key)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, cmd := range added {
		n, err := cmd.(*redis.Cmd).Int64()
		if err != nil {
			return lost, err
		}
		lost += n
	}
	return lost, nil
}
