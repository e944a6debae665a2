package namespace

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

const (
	// fullSlice is the size of every slice of a Cache without a pace.
	fullSlice = 500
	// bigValue is the size in bytes above which a value does not fit a slice.
	bigValue = 1 << 20
	// sliceBytes is the size of the values, in bytes, that one slice reads or checks.
	sliceBytes = 1 << 20
	// chunkItems is how many items a collection may have to be written in one step.
	chunkItems = 500
)

// Work is what a pacer learns of the work that it is to pace.
type Work struct {
	Verb string // what is done: "copy", "read", …; the same word for the same kind of slice
	Adds bool   // it takes memory of the server, so it must end before the server has none left
	Node string // address of the Cluster's primary that it is done on; "" means the one server, or several
}

// The verbs of works.
const (
	verbList   = "list"
	verbRead   = "read"
	verbWrite  = "write"
	verbPut    = "put"
	verbCopy   = "copy"
	verbTags   = "tags"
	verbDelete = "delete"
	verbCount  = "count"
	verbPrune  = "prune"
)

// Pacer decides how hard one work may go on one server. It is used by one goroutine at a time.
type Pacer interface {
	// Size returns the items of the next slice, 1 or more.
	Size() int
	// Wait returns when the next slice may begin, or with the error that ends the work: ctx's, or
	// one that wraps tasks.ErrRefused where the server has no room for work that adds.
	Wait(ctx context.Context) error
	// Done tells how the slice went: the server time it took and the items it went through,
	// whether or not it found work in them; 0 when it failed.
	Done(took time.Duration, items int)
}

// Pace makes the pacer of one work, each call a new one. ctx is that of the call the work is for.
type Pace func(ctx context.Context, w Work) Pacer

// Cache gives access to the namespaces of one app. It is safe for concurrent use.
type Cache struct {
	client  redis.UniversalClient
	tmpl    tasks.Template
	keys    tasks.Keys
	pace    Pace
	sharded bool // it is a Redis Cluster: no single SCAN sees all keys
}

// New returns access to the namespaces that tmpl makes in the cache Redis. A nil pace means full
// speed.
func New(cache redis.UniversalClient, tmpl tasks.Template, keys tasks.Keys, pace Pace) *Cache {
	if pace == nil {
		pace = func(context.Context, Work) Pacer { return fullSpeed{} }
	}
	return &Cache{client: cache, tmpl: tmpl, keys: keys, pace: pace, sharded: tasks.Sharded(cache)}
}

// fullSpeed is the pacer of a Cache without a pace.
type fullSpeed struct{}

func (fullSpeed) Size() int { return fullSlice }

func (fullSpeed) Wait(ctx context.Context) error { return ctx.Err() }

func (fullSpeed) Done(time.Duration, int) {}

// named reports why work on named keys of the releases is impossible.
func (c *Cache) named(releases ...string) error {
	if c.tmpl.String() == "" {
		return fmt.Errorf("%w: no key template: make one with tasks.ParseTemplate", tasks.ErrInvalid)
	}
	for _, id := range releases {
		if err := tasks.ValidateRelease(id); err != nil {
			return err
		}
	}
	return nil
}

// whole reports why work on the releases' whole namespaces is impossible.
func (c *Cache) whole(releases ...string) error {
	if _, ring := c.client.(*redis.Ring); ring {
		return fmt.Errorf("%w: the cache Redis is a ring of servers that know nothing of one another: work on whole namespaces needs a single server, a Sentinel group or a Cluster", tasks.ErrInvalid)
	}
	return c.named(releases...)
}

// wrap says in an error what was being done, and to which release.
func wrap(err *error, verb, release string) {
	if *err != nil {
		*err = fmt.Errorf("%s namespace %q: %w", verb, release, *err)
	}
}

//go:embed fields.lua
var fieldsSource string

//go:embed expiries.lua
var expiriesSource string

//go:embed knows.lua
var knowsSource string

//go:embed hash.lua
var hashSource string

//go:embed read.lua
var readSource string

//go:embed write.lua
var writeSource string

//go:embed copy.lua
var copySource string

//go:embed delete.lua
var deleteSource string

//go:embed usage.lua
var usageSource string

//go:embed list.lua
var listSource string

//go:embed carry.lua
var carrySource string

//go:embed prune.lua
var pruneSource string

//go:embed rescore.lua
var rescoreSource string

//go:embed unfence.lua
var unfenceSource string

//go:embed use.lua
var useSource string

var (
	readScript     = redis.NewScript(fieldsSource + readSource)
	expiriesScript = redis.NewScript(fieldsSource + expiriesSource)
	knowsScript    = redis.NewScript(fieldsSource + knowsSource)
	writeScript    = redis.NewScript(writeSource)
	hashScript     = redis.NewScript(hashSource)
	newScript      = redis.NewScript(unlessThere + writeSource)
	newHashScript  = redis.NewScript(unlessThere + hashSource)
	copyScript     = redis.NewScript(copySource)
	deleteScript   = redis.NewScript(deleteSource)
	usageScript    = redis.NewScript(usageSource)
	listScript     = redis.NewScript(listSource)
	carryScript    = redis.NewScript(carrySource)
	useScript      = redis.NewScript(useSource)
	pruneScript    = redis.NewScript(tasks.CompanionLua + pruneSource)
	rescoreScript  = redis.NewScript(rescoreSource)
	unfenceScript  = redis.NewScript(unfenceSource)
)

// unlessThere makes a script that replaces a key one that leaves it alone, and returns 0, when it
// exists.
const unlessThere = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end\n"

// load makes the scripts known to a server, or to all of a Cluster.
func (c *Cache) load(ctx context.Context, on redis.Scripter) error {
	return tasks.LoadScripts(ctx, on, readScript, expiriesScript, writeScript, hashScript, newScript, newHashScript, copyScript, deleteScript, usageScript, listScript, carryScript, useScript, pruneScript, rescoreScript, unfenceScript, clockScript)
}
