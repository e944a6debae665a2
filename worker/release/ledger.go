package release

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

var (
	//go:embed create.lua
	createLua string
	//go:embed move.lua
	moveLua string
	//go:embed flip.lua
	flipLua string
	//go:embed set.lua
	setLua string

	createScript = redis.NewScript(createLua)
	moveScript   = redis.NewScript(moveLua)
	flipScript   = redis.NewScript(flipLua)
	setScript    = redis.NewScript(setLua)
)

// Ledger is the record of an app's releases, in the queue Redis. It is safe for concurrent use,
// by any number of processes.
type Ledger struct {
	queue redis.UniversalClient
	keys  tasks.Keys
}

// Open returns the ledger of the app whose keys are given.
func Open(queue redis.UniversalClient, keys tasks.Keys) *Ledger {
	return &Ledger{queue: queue, keys: keys}
}

// Create registers a release in state new, from r's ID, Template and Notes.
func (l *Ledger) Create(ctx context.Context, r Record, by tasks.By) error {
	if err := errors.Join(tasks.ValidateNewRelease(r.ID), r.Notes.Validate(), by.Validate()); err != nil {
		return fmt.Errorf("create release: %w", err)
	}
	notes, err := json.Marshal(r.Notes)
	if err != nil {
		return fmt.Errorf("create release %q: %w", r.ID, err)
	}
	keys := []string{l.keys.Release(r.ID), l.keys.Releases(), l.keys.History(r.ID), l.keys.Live()}
	created, err := createScript.Run(ctx, l.queue, keys, r.ID, r.Template, notes, line(Move{To: New, By: by}), tasks.Ledgers.For(1)).Bool()
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		return fmt.Errorf("create release %q: %w", r.ID, err)
	case !created:
		return fmt.Errorf("create release %q: %w: it exists already; a release is one build, so give a new one a new ID", r.ID, tasks.ErrRefused)
	}
	return nil
}

// Get returns one release, or an error that wraps [tasks.ErrNotFound].
func (l *Ledger) Get(ctx context.Context, id string) (Record, error) {
	if err := tasks.ValidateRelease(id); err != nil {
		return Record{}, err
	}
	fields, err := l.queue.HGetAll(ctx, l.keys.Release(id)).Result()
	if err != nil {
		return Record{}, fmt.Errorf("read release %q: %w", id, err)
	}
	if len(fields) == 0 {
		return Record{}, absent(id)
	}
	return parseRecord(id, fields)
}

// List returns every release, newest first.
func (l *Ledger) List(ctx context.Context) ([]Record, error) {
	ids, err := l.queue.ZRevRange(ctx, l.keys.Releases(), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	records := make([]Record, 0, len(ids))
	for _, id := range ids {
		r, err := l.Get(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("list releases: %w", err)
		}
		records = append(records, r)
	}
	return records, nil
}

// Active returns the active release's ID, "" before the first activation.
func (l *Ledger) Active(ctx context.Context) (string, error) {
	id, err := l.queue.Get(ctx, l.keys.Active()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read active release: %w", err)
	}
	return id, nil
}

// Live returns the releases whose namespaces receive invalidations, sorted.
func (l *Ledger) Live(ctx context.Context) ([]string, error) {
	ids, err := l.queue.SMembers(ctx, l.keys.Live()).Result()
	if err != nil {
		return nil, fmt.Errorf("read live releases: %w", err)
	}
	slices.Sort(ids)
	return ids, nil
}

// Move takes a release from one state to another. A release in another state, or one with an
// unfinished writer where none may be, is refused.
func (l *Ledger) Move(ctx context.Context, id string, from, to State, by tasks.By) error {
	if err := errors.Join(tasks.ValidateRelease(id), by.Validate()); err != nil {
		return fmt.Errorf("move release: %w", err)
	}
	if !from.May(to) {
		return fmt.Errorf("move release %q: %w: nothing moves from %s to %s", id, tasks.ErrRefused, from, to)
	}
	keys := []string{l.keys.Release(id), l.keys.History(id), l.keys.Live(), l.keys.Marks(id)}
	reply, err := moveScript.Run(ctx, l.queue, keys, id, string(from), string(to), flag(to.Live()),
		flag(to == Ready), line(Move{From: from, To: to, By: by}), tasks.Ledgers.Last()).StringSlice()
	if err != nil {
		return fmt.Errorf("move release %q to %s: %w", id, to, err)
	}
	return l.verdict(id, from, to, reply)
}

// Flip makes id, found in state from, the active release; the one that was active becomes
// standby. It returns that one's ID, "" when id is the first.
func (l *Ledger) Flip(ctx context.Context, id string, from State, by tasks.By) (previous string, err error) {
	if err := errors.Join(tasks.ValidateRelease(id), by.Validate()); err != nil {
		return "", fmt.Errorf("activate release: %w", err)
	}
	if !slices.Contains(flips, from) {
		return "", fmt.Errorf("activate release %q: %w: it is %s, and only %v can become active", id, tasks.ErrRefused, from, flips)
	}
	if previous, err = l.Active(ctx); err != nil {
		return "", err
	}
	if previous == id {
		return "", fmt.Errorf("activate release %q: %w: it is active already", id, tasks.ErrRefused)
	}
	keys := []string{
		l.keys.Active(), l.keys.Live(), l.keys.Release(id), l.keys.History(id), l.keys.Marks(id),
		l.keys.Release(previous), l.keys.History(previous),
	}
	reply, err := flipScript.Run(ctx, l.queue, keys, id, string(from), previous, l.keys.ActiveChannel(),
		line(Move{From: from, To: Active, By: by}),
		line(Move{From: Active, To: Standby, Note: "replaced by " + id, By: by}), tasks.Ledgers.Last()).StringSlice()
	if err != nil {
		return "", fmt.Errorf("activate release %q: %w", id, err)
	}
	return previous, l.verdict(id, from, Active, reply)
}

// verdict turns a script's reply into the error it stands for.
func (l *Ledger) verdict(id string, from, to State, reply []string) error {
	switch reply[0] {
	case "ok":
		return nil
	case "absent":
		return absent(id)
	case "newer":
		return newer(id, reply[1])
	case "state":
		return fmt.Errorf("move release %q to %s: %w: it is %s, not %s (somebody else may have moved it; see `stoker release show %s`)", id, to, tasks.ErrRefused, reply[1], from, id)
	case "marks":
		return fmt.Errorf("move release %q to %s: %w: %s writers of its namespace have not finished; wait for them or see `stoker status`", id, to, tasks.ErrRefused, reply[1])
	case "active":
		return fmt.Errorf("move release %q to %s: %w: meanwhile %q became active; look, and ask again", id, to, tasks.ErrRefused, reply[1])
	}
	return fmt.Errorf("move release %q to %s: unknown reply %q", id, to, reply)
}

// SetDoc keeps a room's document about a release, as JSON.
func (l *Ledger) SetDoc(ctx context.Context, id string, d Doc, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s of release %q: %w", d, id, err)
	}
	return l.set(ctx, id, docPrefix+string(d), raw)
}

// SetNotes replaces a release's notes.
func (l *Ledger) SetNotes(ctx context.Context, id string, n Notes, by tasks.By) error {
	if err := errors.Join(n.Validate(), by.Validate()); err != nil {
		return fmt.Errorf("write notes of release %q: %w", id, err)
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write notes of release %q: %w", id, err)
	}
	return l.set(ctx, id, "notes", raw)
}

// Pin keeps a release from ever being expired, or lets it go.
func (l *Ledger) Pin(ctx context.Context, id string, pinned bool, by tasks.By) error {
	if err := by.Validate(); err != nil {
		return fmt.Errorf("pin release %q: %w", id, err)
	}
	return l.set(ctx, id, "pinned", flag(pinned))
}

func (l *Ledger) set(ctx context.Context, id, field string, value any) error {
	if err := tasks.ValidateRelease(id); err != nil {
		return err
	}
	reply, err := setScript.Run(ctx, l.queue, []string{l.keys.Release(id)}, field, value, tasks.Ledgers.Last()).StringSlice()
	if err != nil {
		return fmt.Errorf("write %s of release %q: %w", field, id, err)
	}
	switch reply[0] {
	case "absent":
		return absent(id)
	case "newer":
		return newer(id, reply[1])
	}
	return nil
}

// SetRun shows which warm run is under way, "" for none. Package warm sees to it that there is
// one at a time.
func (l *Ledger) SetRun(ctx context.Context, id, run string) error {
	return l.set(ctx, id, "run", run)
}

// History returns a release's moves, oldest first.
func (l *Ledger) History(ctx context.Context, id string) ([]Move, error) {
	lines, err := l.queue.LRange(ctx, l.keys.History(id), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read history of release %q: %w", id, err)
	}
	history := make([]Move, 0, len(lines))
	for _, s := range lines {
		m, err := parseMove(s)
		if err != nil {
			return nil, fmt.Errorf("release %q: %w", id, err)
		}
		history = append(history, m)
	}
	return history, nil
}

// line is a move as the history keeps it, less its opening brace: the script puts the server's
// time before it.
func line(m Move) string {
	raw, err := json.Marshal(struct {
		From State  `json:"from,omitempty"`
		To   State  `json:"to"`
		Note string `json:"note,omitempty"`
		tasks.By
	}{m.From, m.To, m.Note, m.By})
	if err != nil {
		panic(err) // strings only: cannot fail
	}
	return string(raw[1:])
}

func absent(id string) error {
	return fmt.Errorf("release %q: %w: `stoker release list` shows what there is, `stoker release create %s` registers it", id, tasks.ErrNotFound, id)
}

// newer is the error of a record of that version.
func newer(id, version string) error {
	v, err := strconv.Atoi(version)
	if err != nil {
		return fmt.Errorf("read release %q: version %q: %w", id, version, err)
	}
	if err := tasks.Ledgers.Check(v); err != nil {
		return fmt.Errorf("read release %q: %w", id, err)
	}
	return nil
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
