package health

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/worker/release"
)

// DoctorDeps is what the doctor looks at. A func that is nil is a question nobody here can
// answer: its check is unknown.
type DoctorDeps struct {
	Queue, Cache       redis.UniversalClient
	QueueURL, CacheURL string   // as configured; CacheURL "" means the queue's
	Template           string   // the key template in force
	QueueKeys          []string // keys named as stoker's are on the queue Redis, which do not exist
	CacheKeys          []string // the same on the cache Redis

	Version     string            // of this program
	Actor       string            // as whom it notes what its user changes
	EnvSecrets  []string          // secrets given in the environment itself
	SecretFiles map[string]string // setting → path of files that hold secrets
	WebAddr     string            // host:port; "" when not known
	WebURL      string            // at which browsers reach it; "" means WebAddr
	WebGuarded  bool              // people have to sign in

	Records     func(ctx context.Context) ([]release.Record, error)
	ActiveBytes func(ctx context.Context, release string) (int64, error)
	Store       func(ctx context.Context) (string, error) // writes, reads back and removes a probe; says where
	Headroom    float64                                   // share of the cache's memory that work leaves free
	Processes   func(ctx context.Context) ([]Process, error)
	Ticks       func(ctx context.Context) ([]Tick, error)
	Schedule    func() (string, error) // parses the file; says what it holds
	Plan        func() (string, error) // parses the file; says what it holds
}

// Doctor examines an installation and judges it. It writes nothing, but for what d.Store does.
func Doctor(ctx context.Context, d DoctorDeps, cfg Config) []Check {
	return Diagnose(Examine(ctx, d, cfg), cfg)
}

// Examine gathers what [Diagnose] judges, each question with its own limit of time.
func Examine(ctx context.Context, d DoctorDeps, cfg Config) Setup {
	s := Setup{
		QueueURL: parseEndpoint(d.QueueURL), CacheURL: parseEndpoint(d.CacheURL),
		EnvSecrets: slices.Sorted(slices.Values(d.EnvSecrets)), Files: secretFiles(d.SecretFiles),
		At: time.Now(), WebAddr: d.WebAddr, WebGuarded: d.WebGuarded, Template: d.Template,
		Version: d.Version, Actor: d.Actor, Headroom: d.Headroom,
	}
	if d.CacheURL == "" {
		s.CacheURL = s.QueueURL
	}
	limit := cfg.HealthTimeout
	var wg sync.WaitGroup
	wg.Go(func() {
		s.Queue.Servers, s.Queue.Err = ask(ctx, limit, func(ctx context.Context) ([]Server, error) { return readRedis(ctx, d.Queue) })
	})
	wg.Go(func() {
		s.Cache.Servers, s.Cache.Err = ask(ctx, limit, func(ctx context.Context) ([]Server, error) { return readRedis(ctx, d.Cache) })
	})
	wg.Go(func() { s.QueueRights = askRights(ctx, limit, d.Queue, needs(d.QueueKeys), d.QueueKeys) })
	wg.Go(func() {
		needed := slices.Concat(needs(d.CacheKeys), restores(d.CacheKeys), walks(d.Cache))
		s.CacheRights = askRights(ctx, limit, d.Cache, needed, d.CacheKeys)
	})
	wg.Go(func() {
		if base := consoleURL(d.WebURL, d.WebAddr); base != "" {
			s.Console = askIf(ctx, limit, func(ctx context.Context) (Console, error) { return askConsole(ctx, base) })
			s.Console.Value.URL = base
			s.BodyLimit = askIf(ctx, limit, func(ctx context.Context) (int, error) { return offerTooMuch(ctx, base) })
		}
	})
	wg.Go(func() { s.examineReleases(ctx, d, cfg) })
	wg.Go(func() { s.Store = askIf(ctx, limit, d.Store) })
	wg.Go(func() { s.Processes = askIf(ctx, limit, d.Processes) })
	wg.Go(func() { s.Ticks = askIf(ctx, limit, d.Ticks) })
	wg.Go(func() { s.Schedule = askIf(ctx, limit, withoutContext(d.Schedule)) })
	wg.Go(func() { s.Plan = askIf(ctx, limit, withoutContext(d.Plan)) })
	wg.Wait()
	return s
}

// askRights tries what a Redis lets its user do, where it is known how stoker's keys are named.
func askRights(ctx context.Context, limit time.Duration, client redis.UniversalClient, needed []trial, keys []string) Answer[Rights] {
	if len(keys) == 0 {
		return Answer[Rights]{}
	}
	return askIf(ctx, limit, func(ctx context.Context) (Rights, error) { return tryRights(ctx, client, needed) })
}

// askIf puts a question where somebody is there to answer it.
func askIf[T any](ctx context.Context, limit time.Duration, question func(context.Context) (T, error)) Answer[T] {
	if question == nil {
		return Answer[T]{}
	}
	v, err := ask(ctx, limit, question)
	return Answer[T]{Asked: true, Value: v, Err: err}
}

func withoutContext[T any](question func() (T, error)) func(context.Context) (T, error) {
	if question == nil {
		return nil
	}
	return func(context.Context) (T, error) { return question() }
}

// examineReleases reads the ledger and weighs the active release.
func (s *Setup) examineReleases(ctx context.Context, d DoctorDeps, cfg Config) {
	if d.Records == nil {
		s.RecordsErr = errors.New("nobody here could be asked")
		return
	}
	s.Records, s.RecordsErr = ask(ctx, cfg.HealthTimeout, d.Records)
	active := activeOf(s.Records).Release
	if active == "" || d.ActiveBytes == nil {
		return
	}
	s.ActiveBytes = askIf(ctx, cfg.HealthCountTimeout, func(ctx context.Context) (int64, error) {
		return d.ActiveBytes(ctx, active)
	})
}

// secretFiles looks at the files' modes, in the order of their settings.
func secretFiles(paths map[string]string) []SecretFile {
	var files []SecretFile
	for _, setting := range slices.Sorted(maps.Keys(paths)) {
		f := SecretFile{Setting: setting, Path: paths[setting]}
		var info fs.FileInfo
		if info, f.Err = os.Stat(f.Path); f.Err == nil {
			f.Mode = info.Mode()
		}
		files = append(files, f)
	}
	return files
}
