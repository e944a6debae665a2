package freshness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/snapshot"
)

// readArchive reads a random n of the archive's entries. The suspects are known from when they were
// sampled. What has expired would not be restored, and is left out.
func (l *looking) readArchive(ctx context.Context, due map[string]Suspect, n int) (map[string]held, []string, error) {
	if err := l.d.Log.Fresh(ctx, l.archiveMark()); err != nil {
		return nil, nil, fmt.Errorf("a rollback to it would be refused: %w", err)
	}
	entries := map[string]held{}
	now := l.at.UnixMilli()
	for key, s := range due {
		if s.Expires == 0 || s.Expires > now {
			entries[key] = held{print: s.Print, typ: tasks.EntryString, expires: s.Expires, tags: s.Tags}
		}
	}
	if n == 0 {
		return entries, nil, nil
	}
	r := reservoir{n: n, held: map[string]*held{}}
	if err := l.eachEntry(ctx, func(e tasks.Entry) { r.see(e, now) }); err != nil {
		return nil, nil, err
	}
	var sampled []string
	for key, h := range r.held {
		sampled = append(sampled, key)
		if _, already := entries[key]; !already {
			entries[key] = *h
		}
	}
	return entries, sampled, nil
}

// eachEntry visits the archive's entries: those of the site first, then the tag indexes.
func (l *looking) eachEntry(ctx context.Context, visit func(tasks.Entry)) (err error) {
	in, err := l.d.Store.Open(ctx, l.archive.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := snapshot.NewReader(in)
	if err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := r.Next()
		if err == io.EOF {
			return l.archive.Matches(r.Summary())
		}
		if err != nil {
			return err
		}
		for _, e := range b.Entries {
			visit(e)
		}
	}
}

// reservoir keeps n of the entries that it sees, each with the same chance, and learns their tags
// from the indexes that follow (Vitter's algorithm R).
type reservoir struct {
	n     int
	count int
	keys  []string
	held  map[string]*held
}

func (r *reservoir) see(e tasks.Entry, now int64) {
	if tag, ok := tasks.TagOf(e.Key); ok {
		r.index(tag, e)
		return
	}
	if _, again := r.held[e.Key]; again || e.ExpiresAt != 0 && e.ExpiresAt <= now {
		return
	}
	r.count++
	at := len(r.keys)
	if at < r.n {
		r.keys = append(r.keys, "")
	} else if at = rand.IntN(r.count); at >= r.n {
		return
	} else {
		delete(r.held, r.keys[at])
	}
	// Clones: both are part of their block's text, all of which they would keep.
	key := strings.Clone(e.Key)
	r.keys[at] = key
	r.held[key] = &held{text: strings.Clone(e.Value), typ: e.Type, expires: e.ExpiresAt}
}

func (r *reservoir) index(tag string, e tasks.Entry) {
	var listed []*held
	for i := 0; i+1 < len(e.Items); i += 2 {
		if h, ok := r.held[e.Items[i]]; ok {
			listed = append(listed, h)
		}
	}
	for _, h := range listed {
		h.tags = append(h.tags, Tag{tasks.Bytes(strings.Clone(tag)), int64(len(e.Items) / 2)})
	}
}
