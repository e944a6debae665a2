package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Options are what the command line may say of the demo.
type Options struct {
	Articles string        // file of articles; "" generates a site
	Events   string        // file of edits; given together with Articles
	Seed     uint64        // of the generated site and of what visitors like
	Visitors int           // of each of the two sites, 1 to 1,000
	Rate     float64       // pages a second that the visitors of one site ask for at most, above 0
	Latency  time.Duration // of one database call, 0 to 1s
}

// DefaultOptions suit a machine with two cores.
func DefaultOptions() Options {
	return Options{Seed: 1, Visitors: 8, Rate: 120, Latency: 1500 * time.Microsecond}
}

// Validate reports options that make no demo; it wraps [tasks.ErrInvalid].
func (o Options) Validate() error {
	switch {
	case (o.Articles == "") != (o.Events == ""):
		return fmt.Errorf("%w: articles %q and events %q: give both files or neither", tasks.ErrInvalid, o.Articles, o.Events)
	case o.Visitors < 1 || o.Visitors > 1000:
		return fmt.Errorf("%w: %d visitors: use 1 to 1,000", tasks.ErrInvalid, o.Visitors)
	case o.Rate <= 0:
		return fmt.Errorf("%w: rate %v: use more than 0 pages a second", tasks.ErrInvalid, o.Rate)
	case o.Latency < 0 || o.Latency > time.Second:
		return fmt.Errorf("%w: latency %v: use 0s to 1s", tasks.ErrInvalid, o.Latency)
	}
	return nil
}

// Wiring is what the demo needs of the processes around it. They keep running, and the
// connections stay open, until the demo is closed.
type Wiring struct {
	// Client returns an app server's cache: pinned to a release, or for "" following the
	// active one. The demo calls it once for each of the [Designs] and once for "".
	Client func(release string) (Cache, error)
	// Active returns the active release, or an error before the first activation.
	Active   func(context.Context) (string, error)
	Redis    redis.UniversalClient // holds the plain deploy's cache, under [PlainPrefix]
	Operator Operator
	Log      *slog.Logger
	Out      io.Writer // where the story is told
	Terminal bool      // Out is a terminal
}

// conns is each site's database pool: small, so that a flood of misses has to queue.
const conns = 4

// Demo is the site, up and running, and its story. Its methods are for one goroutine.
type Demo struct {
	opts   Options
	wire   Wiring
	tell   teller
	tempo  tempo
	corpus Corpus

	dir    string
	store  *Store
	truth  *Truth
	editor *editor
	plain  *plainDeploy
	fronts struct{ stoker, plain *server }
	builds map[string]*server // release → the instance of stoker's site that is pinned to it
	crowds struct{ stoker, plain *crowd }
	check  *inspector
	closer []func() error // in the order of opening
}

// Open reads or generates the corpus, fills the database and starts the site: one instance a
// release, one front that follows the active release, and the plain deploy beside them. It
// sets [DSNVariable] for workers in this process. Close the demo even after a failed Run.
func Open(ctx context.Context, o Options, w Wiring) (_ *Demo, err error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	d := &Demo{opts: o, wire: w, tell: teller{w.Out, w.Terminal}, tempo: fullTempo(), builds: map[string]*server{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("demo: %w", err), d.Close())
		}
	}()
	if o.Articles == "" {
		d.corpus = Generate(o.Seed)
	} else if d.corpus, err = Load(o.Articles, o.Events); err != nil {
		return nil, err
	}
	if err := d.openStore(ctx); err != nil {
		return nil, err
	}
	if err := d.openSites(); err != nil {
		return nil, err
	}
	seed := o.Seed
	d.crowds.stoker = newCrowd(d.fronts.stoker.URL, d.truth, d.corpus, seed)
	d.crowds.plain = newCrowd(d.fronts.plain.URL, d.truth, d.corpus, seed)
	return d, nil
}

// URL is the address of the site that stoker looks after.
func (d *Demo) URL() string { return d.fronts.stoker.URL }

// Close sends the visitors home, stops the sites and deletes what they stored.
func (d *Demo) Close() error {
	for _, c := range []*crowd{d.crowds.stoker, d.crowds.plain} {
		if c != nil {
			c.close()
		}
	}
	var errs []error
	for len(d.closer) > 0 {
		last := len(d.closer) - 1
		errs = append(errs, d.closer[last]())
		d.closer = d.closer[:last]
	}
	return errors.Join(errs...)
}

func (d *Demo) onClose(f func() error) { d.closer = append(d.closer, f) }

func (d *Demo) openStore(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "stoker-demo-"); err != nil {
		return fmt.Errorf("make a place for the site's database: %w", err)
	}
	d.onClose(func() error { return os.RemoveAll(d.dir) })
	if d.store, err = OpenStore(ctx, d.dir, d.corpus); err != nil {
		return err
	}
	d.onClose(d.store.Close)
	d.truth = NewTruth(d.corpus.Articles)
	return os.Setenv(DSNVariable, d.store.DSN())
}

func (d *Demo) openSites() error {
	db, err := d.reader(conns, d.opts.Latency)
	if err != nil {
		return err
	}
	handlers := map[string]http.Handler{}
	for _, id := range Designs() {
		cache, err := d.wire.Client(id)
		if err != nil {
			return fmt.Errorf("cache of release %q: %w", id, err)
		}
		site, err := NewSite(id, db, cache, d.wire.Log)
		if err != nil {
			return err
		}
		handlers[id] = site
		if d.builds[id], err = d.serve(site); err != nil {
			return err
		}
	}
	if d.fronts.stoker, err = d.serve(front{d.wire.Active, handlers}); err != nil {
		return err
	}
	if err := d.openPlain(); err != nil {
		return err
	}
	if err := d.openCheck(); err != nil {
		return err
	}
	invalidator, err := d.wire.Client("")
	if err != nil {
		return fmt.Errorf("cache of the active release: %w", err)
	}
	d.editor = &editor{store: d.store, truth: d.truth, caches: []Cache{invalidator, d.plain.cache}, history: d.corpus.Events}
	return nil
}

// openPlain starts the plain deploy, with a database pool of its own: its floods are its own.
func (d *Demo) openPlain() error {
	db, err := d.reader(conns, d.opts.Latency)
	if err != nil {
		return err
	}
	d.plain = &plainDeploy{cache: NewPlain(d.wire.Redis)}
	d.onClose(func() error {
		_, err := d.plain.cache.Flush(context.Background())
		return err
	})
	handlers := map[string]http.Handler{}
	for _, id := range Designs() {
		if handlers[id], err = NewSite(id, db, d.plain.cache, d.wire.Log); err != nil {
			return err
		}
	}
	d.fronts.plain, err = d.serve(front{d.plain.active, handlers})
	return err
}

func (d *Demo) openCheck() error {
	db, err := d.reader(conns, 0)
	if err != nil {
		return err
	}
	d.check = &inspector{truth: d.truth, want: map[string]*Site{}, client: &http.Client{Timeout: time.Minute}}
	for _, id := range Designs() {
		if d.check.want[id], err = NewSite(id, db, nil, d.wire.Log); err != nil {
			return err
		}
	}
	return nil
}

func (d *Demo) reader(conns int, latency time.Duration) (*Reader, error) {
	r, err := d.store.Reader(conns, latency)
	if err == nil {
		d.onClose(r.Close)
	}
	return r, err
}

func (d *Demo) serve(h http.Handler) (*server, error) {
	s, err := serve(h)
	if err == nil {
		d.onClose(s.Close)
	}
	return s, err
}
