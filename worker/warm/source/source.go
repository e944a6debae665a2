package source

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/alphanode/stoker/tasks"
)

// A Source yields the entries of one source of a plan. It is made for one release and one
// batch, and is used by one goroutine.
type Source interface {
	// Keys calls fn with the key of everything that a walk of the whole source would visit,
	// in the walk's order where it has one: the address path for a crawl, the logical key
	// otherwise. It writes nothing. An error of fn ends it and is returned as it is.
	Keys(ctx context.Context, fn func(key string) error) error
	// Walk visits part, from the position that an earlier walk's chunk gave as Next ("" is
	// the start), and hands over what it read in chunks. An item that cannot be read is a
	// failure in its chunk and never ends the walk; an error does, and means that the source
	// itself cannot be read: the batch is tried again. An error of fn ends the walk and is
	// returned as it is. A walk may be repeated from any Next any number of times.
	Walk(ctx context.Context, part Part, from string, fn func(Chunk) error) error
}

// A Counter is a source that can tell cheaply how many items a walk will visit.
type Counter interface {
	// Count returns the number of items, 0 when it is not known.
	Count(ctx context.Context) (int64, error)
}

// A Finder is a source that can be asked for single entries. What it may be asked for shows in the
// plan alone (see [Pattern]), so that asking the wrong source costs nothing.
type Finder interface {
	// Find reads the entries of these keys from the origin as they are now, each key once, and
	// hands them over in chunks without a position. Each key ends as exactly one of: an entry,
	// with what a walk would read of it; a failure, where the entry is there but cannot be read,
	// or cannot be told from another; or gone, where a walk of the source would not make it. That
	// may be because it was deleted, because the plan's own choice leaves it out, or because no
	// item of the source can have such a key.
	//
	// Find writes nothing; where the chunks are written [BySite], the site has filled its cache by
	// being asked. An error means that the origin cannot be read now, and nothing of the keys that
	// were not handed over. An error of fn ends it and is returned as it is. It may be repeated
	// any number of times, before, after and without a walk, by the goroutine that uses the source.
	Find(ctx context.Context, keys []string, fn func(Chunk) error) error
}

// A Namer is a source that can tell which entries an item leaves behind without visiting it.
type Namer interface {
	// KeysOf returns the logical keys of all entries that a walk of the item leaves behind; none
	// where it cannot tell them all.
	KeysOf(item string) []string
}

// A Prober is a source that can be tried out without reading it whole.
type Prober interface {
	// Probe reports whether the origin can be reached and can answer what a walk would ask.
	// Its errors may be several, joined. It reads as little as it can and writes nothing.
	Probe(ctx context.Context) error
}

// Opener makes the source of one batch of a release, for a plan's custom sources; with is what the plan
// tells it, "" for what it does not. A source that is an [io.Closer] is closed after the batch. An error
// that wraps [tasks.ErrInvalid] ends the run; after another one the batch is tried again.
type Opener func(release string, with map[string]string) (Source, error)

// Part is what one batch walks.
type Part struct {
	// Items are the keys to visit, in their order: of a source that is cut into batches (a crawl), or
	// of what visitors want most of another. nil means the whole source. An item that the source
	// has no entry of is left out without a word.
	Items []string
	// Except are keys that other batches visit; nil where there are none.
	Except map[string]bool
	// Share is how much of the keys a sampled run takes, in (0, 1); 0 or 1 means all.
	Share float64
}

// Takes reports whether the part holds the key.
func (p Part) Takes(key string) bool { return !p.Except[key] && Picks(p.Share, key) }

// Walk goes through the part's items, n at a time, from a position that it gave as Next: the number
// of items done. read makes a chunk of those that the part takes; it may keep and change the slice.
func (p Part) Walk(ctx context.Context, n int, from string, read func(items []string) (Chunk, error), fn func(Chunk) error) error {
	at := 0
	if from != "" {
		var err error
		if at, err = strconv.Atoi(from); err != nil || at < 0 || at > len(p.Items) {
			return fmt.Errorf("%w: position %q of %d items", tasks.ErrInvalid, from, len(p.Items))
		}
	}
	for at < len(p.Items) {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := min(at+n, len(p.Items))
		taken := slices.DeleteFunc(slices.Clone(p.Items[at:end]), func(item string) bool { return !p.Takes(item) })
		c, err := read(taken)
		if err != nil {
			return err
		}
		c.Next = strconv.Itoa(end)
		if err := fn(c); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Written says who puts a chunk's entries into the namespace.
type Written string

// The writers of a chunk's entries.
const (
	ByRunner Written = "runner" // nobody yet: the runner stores them
	BySite   Written = "site"   // the site's own instance, when it was visited: the runner looks for them
	ByServer Written = "server" // the cache server, by a copy: they are there
)

// A Chunk is one step of a walk.
type Chunk struct {
	Written Written
	Entries []Entry
	Failed  []Failure
	// Gone are keys that were asked for and that the origin has no entry of; [Finder] only.
	Gone []string
	// Unfit are keys of entries that failed items have left behind, and that nobody must be served:
	// whoever takes the chunk removes them.
	Unfit []string
	// Kept counts entries that were in the namespace before and were left as they are.
	Kept int64
	// Next is the position after this chunk; "" when the source cannot resume, and then a
	// retry of the batch starts it again.
	Next string
	// Again has the site fill these entries of the chunk once more: what it loaded the first
	// time may have been overtaken by an edit. nil where the site fills nothing.
	Again func(ctx context.Context, keys []string)
}

// Entry is one item that was read: what to store, or what should be stored by now. Where
// [Written] is not [ByRunner] only the key matters; a key of "" is an item whose entry
// nobody named (a page without an expected key): it counts, and is looked for nowhere.
type Entry struct {
	tasks.Entry
	Tags []string
}

// Failure is one item that could not be warmed, and why.
type Failure struct {
	Key   string
	Error string
	Kind  Kind // "" means [Unreadable]
}
