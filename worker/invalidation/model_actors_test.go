package invalidation_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/invalidation"
	"github.com/alphanode/stoker/worker/namespace"
	"github.com/alphanode/stoker/worker/release"
)

// edit is an editor with the task that applies the edit: the origin changes, the change is
// recorded, the record is applied. The tags may change with it.
func (w *world) edit(key string, kind tasks.Kind, tags string, gone bool) func(context.Context, *actor) error {
	var named []tasks.Target
	var record *tasks.Record
	return func(ctx context.Context, a *actor) error {
		if record == nil {
			err := a.step(doing("edit "+key), func() error {
				had := w.present(key).tags
				has := had
				if tags == "retag" {
					has = otherTags(key, had)
				}
				w.bump(key, has, gone)
				named = targets(key, kind, had, has)
				return nil
			})
			if err != nil {
				return err
			}
			r := w.record(named...)
			record = &r
		}
		a.executed = func() { w.promise(named) }
		_, err := w.log.Record(ctx, *record)
		a.executed = nil
		if err != nil {
			return err // asked again: harmless
		}
		worker := w.newApplier()
		if _, err = worker.Apply(ctx); err != nil {
			return err
		}
		_, err = worker.ApplyBulk(ctx)
		return err
	}
}

// slip is an edit that nobody tells of.
func (w *world) slip(key string) func(context.Context, *actor) error {
	return func(_ context.Context, a *actor) error {
		return a.step(doing("slip "+key), func() error {
			w.bump(key, otherTags(key, w.present(key).tags), false)
			return nil
		})
	}
}

// otherTags returns the tags that a key may have beside those it has.
func otherTags(key string, has []string) []string {
	if slices.Equal(has, tagsOf[key][0]) {
		return tagsOf[key][1]
	}
	return tagsOf[key][0]
}

// plain is an app without stoker's client that sets a key as the contract for writers says, all
// at once: what it writes is never stale. It may keep the expiry that the key has.
func (w *world) plain(release, key string, keep bool) func(context.Context, *actor) error {
	return func(ctx context.Context, a *actor) error {
		return a.step(doing("set "+release+"/"+key), func() error {
			v, at := w.present(key), w.tmpl.Key(release, key)
			if v.gone {
				return nil
			}
			for _, tag := range v.tags {
				w.add(w.tmpl.Key(release, tasks.TagIndex(tag)), math.Inf(1), key)
			}
			ttl := w.mini.TTL(at)
			w.must(w.mini.Set(at, strconv.Itoa(v.number)))
			if keep && ttl > 0 {
				w.mini.SetTTL(at, ttl)
			}
			return nil
		})
	}
}

func (w *world) sweep(ctx context.Context, _ *actor) error {
	_, err := w.applier.Sweep(ctx, 0)
	return err
}

// flip makes the release on standby the active one, as an activation and a rollback do.
func (w *world) flip(ctx context.Context, _ *actor) error {
	id, err := w.standby(ctx)
	if err != nil {
		return err
	}
	if _, err := w.applier.Sweep(ctx, 0); err != nil {
		return err
	}
	_, err = w.ledger.Flip(ctx, id, release.Standby, ann)
	return unlessRefused(err)
}

// standby returns the other release than the active one.
func (w *world) standby(ctx context.Context) (string, error) {
	active, err := w.ledger.Active(ctx)
	if active == "r1" {
		return "r2", err
	}
	return "r1", err
}

// expire archives the release on standby, and deletes its namespace.
func (w *world) expire(id string) func(context.Context, *actor) error {
	victim := ""
	return func(ctx context.Context, _ *actor) error {
		if victim == "" {
			other, err := w.standby(ctx)
			if err != nil {
				return err
			}
			if err := w.ledger.Move(ctx, other, release.Standby, release.Archived, ann); err != nil {
				return unlessRefused(err)
			}
			victim = other
		}
		if err := w.ns.SetFence(ctx, victim, id); err != nil {
			return err
		}
		_, err := w.ns.Purge(ctx, victim, id, nil)
		return err
	}
}

var ann = tasks.By{Actor: "ann"}

// unlessRefused takes a refusal for an end: another was first, or a writer is at work.
func unlessRefused(err error) error {
	if errors.Is(err, tasks.ErrRefused) {
		return nil
	}
	return err
}

func (w *world) reap(ctx context.Context, _ *actor) error {
	_, err := w.marks.Reap(ctx)
	return err
}

// replay applies the whole log again, as the end of any writer does with its part of it.
func (w *world) replay(release string) func(context.Context, *actor) error {
	return func(ctx context.Context, _ *actor) error {
		m, err := w.log.Oldest(ctx)
		if err != nil {
			return err
		}
		_, err = w.applier.Replay(ctx, release, m)
		return err
	}
}

func (w *world) trim(ctx context.Context, _ *actor) error {
	_, err := w.log.Trim(ctx, releases, func(context.Context) ([]int64, error) { return w.archived, nil })
	return err
}

func (w *world) prune(release string) func(context.Context, *actor) error {
	return func(ctx context.Context, _ *actor) error {
		_, err := w.ns.PruneTags(ctx, release, w.now)
		return err
	}
}

func (w *world) tick(d time.Duration) func(context.Context, *actor) error {
	return func(_ context.Context, a *actor) error {
		return a.step(doing(fmt.Sprint("the clock moves ", d)), func() error { w.advance(d); return nil })
	}
}

// read reads one key of the origin; false when it is deleted there.
func (w *world) read(a *actor, key string) (v version, err error) {
	err = a.step(doing("read "+key), func() error { v = w.present(key); return nil })
	return v, err
}

// warm is a warm batch, as package warm runs it: chunk by chunk, with a cursor.
func (w *world) warm(release, id string, ttl time.Duration, chunks [][]string) func(context.Context, *actor) error {
	done := 0
	return func(ctx context.Context, a *actor) error {
		early := map[string]version{}
		if w.flaw == lateMark {
			for _, key := range slices.Concat(chunks[done:]...) {
				v, err := w.read(a, key)
				if err != nil {
					return err
				}
				early[key] = v
			}
		}
		mark, err := w.openMark(ctx, a, release, id)
		if err != nil {
			return err
		}
		for ; done < len(chunks); done++ {
			var puts []namespace.Put
			for _, key := range chunks[done] {
				v, ok := early[key]
				if !ok {
					if v, err = w.read(a, key); err != nil {
						return err
					}
				}
				if !v.gone {
					puts = append(puts, namespace.Put{Entry: w.entry(key, v, ttl), Tags: v.tags})
				}
			}
			if err := w.settle(ctx, release, mark, puts); err != nil {
				return err
			}
			if err := a.step(doing("save cursor"), func() error { return nil }); err != nil {
				return err
			}
		}
		return w.finish(ctx, release, id, mark)
	}
}

func (w *world) openMark(ctx context.Context, a *actor, release, id string) (invalidation.Mark, error) {
	switch {
	case w.flaw == pendingIgnored:
		m := invalidation.Mark{Number: max(w.last(), w.now.UnixMicro()), Epoch: w.epoch()}
		return m, w.log.OpenMarkAt(ctx, release, id, m)
	case w.flaw == newMark && a.began > 1:
		if err := w.log.CloseMark(ctx, release, id); err != nil {
			return invalidation.Mark{}, err
		}
	}
	return w.log.OpenMark(ctx, release, id)
}

// settle puts what was not invalidated since the mark, and removes again what is by then.
func (w *world) settle(ctx context.Context, release string, mark invalidation.Mark, puts []namespace.Put) error {
	stale, err := w.log.Journal.Check(ctx, release, mark, tagged(puts))
	if err != nil {
		return err
	}
	var fresh []namespace.Put
	for i, p := range puts {
		if !stale[i] {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := w.ns.Put(ctx, release, fresh); err != nil {
		return err
	}
	return w.removeStale(ctx, release, mark, tagged(fresh))
}

func (w *world) removeStale(ctx context.Context, release string, mark invalidation.Mark, entries []tasks.Tagged) error {
	stale, err := w.log.Journal.Check(ctx, release, mark, entries)
	if err != nil {
		return err
	}
	var keys []string
	for i, e := range entries {
		if stale[i] {
			keys = append(keys, e.Key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	_, err = w.ns.Remove(ctx, release, keys)
	return err
}

func (w *world) finish(ctx context.Context, release, id string, mark invalidation.Mark) error {
	if _, err := w.applier.Replay(ctx, release, mark); err != nil {
		return err
	}
	return w.log.CloseMark(ctx, release, id)
}

// carry copies one family, or everything, from r1 to r2.
func (w *world) carry(id, family string) func(context.Context, *actor) error {
	return func(ctx context.Context, a *actor) error {
		mark, err := w.openMarkFrom(ctx, a, id)
		if err != nil {
			return err
		}
		err = w.ns.Copy(ctx, "r1", "r2", []string{family}, "", func(s namespace.CopySlice) error {
			entries := make([]tasks.Tagged, len(s.Keys))
			for i, key := range s.Keys {
				entries[i].Key = key
			}
			return w.removeStale(ctx, "r2", mark, entries)
		})
		if err != nil {
			return err
		}
		return w.finish(ctx, "r2", id, mark)
	}
}

func (w *world) openMarkFrom(ctx context.Context, a *actor, id string) (invalidation.Mark, error) {
	switch {
	case w.flaw == writersIgnored:
		m, err := w.log.Mark(ctx)
		if err != nil {
			return m, err
		}
		m.Number -= fillLimit.Microseconds()
		return m, w.log.OpenMarkAt(ctx, "r2", id, m)
	case w.flaw == fillsIgnored:
		return invalidation.Open(w.rdb, keys, invalidation.Config{}).OpenMarkFrom(ctx, "r2", id, "r1")
	case w.flaw == newMark && a.began > 1:
		if err := w.log.CloseMark(ctx, "r2", id); err != nil {
			return invalidation.Mark{}, err
		}
	}
	return w.log.OpenMarkFrom(ctx, "r2", id, "r1")
}

// fill is an app server that reads a key through its cache.
func (w *world) fill(release, key string, ttl time.Duration) func(context.Context, *actor) error {
	return func(ctx context.Context, a *actor) error {
		at := release + "/" + key
		if err := a.step(doing("visit "+at), func() error { return nil }); err != nil {
			return err
		}
		// Whoever waits for another's load does so in real time; the model leaves that out.
		if w.loading[at] || w.mini.Exists(w.tmpl.Key(release, tasks.LeaseKey(key))) {
			return nil
		}
		w.loading[at] = true
		defer func() {
			delete(w.loading, at)
			w.doomed[at] = w.doomed[at] || a.hurt
		}()
		load := func(context.Context) ([]byte, []string, error) {
			v, err := w.read(a, key)
			delete(w.loading, at)
			if err == nil && v.gone {
				err = errors.New("not found")
			}
			return []byte(strconv.Itoa(v.number)), v.tags, err
		}
		if w.flaw == noProbation {
			return w.plainFill(ctx, release, key, load)
		}
		_, err := w.clients[release].FetchTagged(ctx, key, ttl, load)
		if err != nil && !a.hurt {
			return nil // the page does not exist
		}
		return err
	}
}

// plainFill is a fill whose put is for good at once.
func (w *world) plainFill(ctx context.Context, release, key string, load func(context.Context) ([]byte, []string, error)) error {
	mark, err := w.log.Mark(ctx)
	if err != nil {
		return err
	}
	value, tags, err := load(ctx)
	if err != nil {
		return nil
	}
	e := tasks.Entry{Key: key, Type: tasks.EntryString, Value: string(value)}
	if err := w.ns.Put(ctx, release, []namespace.Put{{Entry: e, Tags: tags}}); err != nil {
		return err
	}
	return w.removeStale(ctx, release, mark, []tasks.Tagged{{Key: key, Tags: tags}})
}

// comeBack snapshots r1 and restores the archive as r3, as packages retire and restore do. What was read
// of a release that moved meanwhile is not recorded.
func (w *world) comeBack(id string) func(context.Context, *actor) error {
	var archive [][]tasks.Entry
	var mark invalidation.Mark
	recorded, written := false, 0
	return func(ctx context.Context, a *actor) (err error) {
		if !recorded {
			before, err := w.ledger.Get(ctx, "r1")
			if err != nil || !before.State.Live() {
				return err
			}
			if mark, err = w.log.OpenReader(ctx, "r1", id+"/r1"); err != nil {
				return err
			}
			if archive, err = w.snapshot(ctx); err != nil {
				return err
			}
			now, err := w.ledger.Get(ctx, "r1")
			if err != nil {
				return err
			}
			if now.State != before.State || !now.ChangedAt.Equal(before.ChangedAt) { // it was purged, perhaps
				return w.log.CloseReader(ctx, id+"/r1")
			}
			if err := a.step(doing("record archive"), func() error { return nil }); err != nil {
				return err
			}
			recorded, w.archived = true, append(w.archived, mark.Number)
		}
		if err := w.log.CloseReader(ctx, id+"/r1"); err != nil {
			return err
		}
		if err := w.rdb.SAdd(ctx, keys.Live(), "r3").Err(); err != nil {
			return err
		}
		if err := w.log.OpenMarkAt(ctx, "r3", id, mark); err != nil {
			return err
		}
		if err := w.restore(ctx, a, archive, &written); err != nil {
			return err
		}
		return w.finish(ctx, "r3", id, mark)
	}
}

// snapshot reads r1: its entries, then its tag indexes.
func (w *world) snapshot(ctx context.Context) (archive [][]tasks.Entry, err error) {
	collect := func(want func(index bool) bool) error {
		return w.ns.Read(ctx, "r1", func(entries []tasks.Entry) error {
			_, index := tasks.TagOf(entries[0].Key)
			if want(index) {
				archive = append(archive, entries)
			}
			return nil
		})
	}
	if w.flaw == indexesReadFirst {
		if err := collect(func(index bool) bool { return index }); err != nil {
			return nil, err
		}
		return archive, collect(func(index bool) bool { return !index })
	}
	return archive, collect(func(bool) bool { return true })
}

// restore writes an archive's entries from the cursor on, then all of its tag indexes.
func (w *world) restore(ctx context.Context, a *actor, archive [][]tasks.Entry, written *int) error {
	var entries, indexes []tasks.Entry
	for _, e := range slices.Concat(archive...) {
		if _, ok := tasks.TagOf(e.Key); ok {
			indexes = append(indexes, e)
		} else {
			entries = append(entries, e)
		}
	}
	for ; *written < len(entries); *written++ {
		if err := w.ns.Write(ctx, "r3", entries[*written:*written+1]); err != nil {
			return err
		}
		if err := a.step(doing("save cursor"), func() error { return nil }); err != nil {
			return err
		}
	}
	return w.ns.Write(ctx, "r3", indexes)
}

// carryOut sends a command, unless a flaw is that it is not sent.
func (w *world) carryOut(a *actor, cmd redis.Cmder, send func() error) error {
	args := cmd.Args()
	if w.flaw == uncheckedFill && cmd.Name() == "evalsha" && strings.HasPrefix(a.id, "fill") && args[2] == 4 && args[6] == keys.Live() {
		cmd.(*redis.Cmd).SetVal([]any{int64(0)})
		return nil
	}
	return send()
}

// entry is a version as a warm writes it.
func (w *world) entry(key string, v version, ttl time.Duration) tasks.Entry {
	e := tasks.Entry{Key: key, Type: tasks.EntryString, Value: strconv.Itoa(v.number)}
	if ttl > 0 {
		e.ExpiresAt = w.now.Add(ttl).UnixMilli()
	}
	return e
}

func tagged(puts []namespace.Put) []tasks.Tagged {
	all := make([]tasks.Tagged, len(puts))
	for i, p := range puts {
		all[i] = tasks.Tagged{Key: p.Key, Tags: p.Tags}
	}
	return all
}
