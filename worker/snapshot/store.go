package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/alphanode/stoker/tasks"
)

// Store holds archives by name. All methods are safe for concurrent use, by several processes
// too. Names are those that [ValidateName] takes; others are refused with tasks.ErrInvalid.
// Nothing is retried: the task that calls is.
type Store interface {
	// Create begins an archive. Nothing is to be seen under the name before Commit.
	Create(ctx context.Context, name string) (Draft, error)
	// Resume goes on with a draft of that name behind what it held at a Checkpoint; what was written
	// after that is dropped. The draft's earlier writer may still be alive: then one of the two fails to
	// commit, or the later one wins. When the draft is gone or cannot be gone on with, the error wraps
	// tasks.ErrNotFound: begin anew.
	Resume(ctx context.Context, name string, at json.RawMessage) (Draft, error)
	// Discard drops the drafts of that name, whoever writes them: none can be committed after it.
	Discard(ctx context.Context, name string) error
	// Open reads the archive, or fails with tasks.ErrNotFound. What is read is what was opened,
	// also while the name is replaced or deleted, or else an error.
	Open(ctx context.Context, name string) (Source, error)
	// List returns the archives, by name. Drafts are not listed.
	List(ctx context.Context) ([]Object, error)
	// Delete removes an archive; one that does not exist is no error.
	Delete(ctx context.Context, name string) error
	// String is the store's URL without secrets.
	String() string
}

// Draft is an archive being written. It belongs to one goroutine.
type Draft interface {
	io.Writer
	// Commit makes the archive durable and then visible under its name, in one step; an
	// archive that had the name is replaced. After an error nothing was published, or all of it.
	Commit() error
	// Abort drops the draft. After Commit or Leave it does nothing, so that it can be deferred.
	Abort() error
	// Due reports whether so much was written since the last Checkpoint that another is worth its cost.
	Due() bool
	// Checkpoint returns what [Store.Resume] needs to go on behind all that was written so far, even
	// when this process is killed: some bytes of JSON, up to a few megabytes. nil means that the draft
	// cannot be gone on with from here.
	Checkpoint() (json.RawMessage, error)
	// Leave ends the writing but keeps the draft, for Resume. After Commit or Abort it does nothing.
	Leave() error
}

// Source is an archive opened for reading: from its beginning to its end, or anywhere. Read
// belongs to one goroutine. ctx of [Store.Open] ends it.
type Source interface {
	io.ReadCloser
	io.ReaderAt
	Size() int64 // bytes
}

// Object is what a store lists of an archive.
type Object struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Modified time.Time `json:"modified"`
}

// Descriptor is what the ledger keeps of a release's archive (release.DocSnapshot).
type Descriptor struct {
	Release    string    `json:"release"`
	Name       string    `json:"name"`  // in the store
	Store      string    `json:"store"` // URL, without secrets
	Mark       int64     `json:"mark"`
	Epoch      string    `json:"epoch"`
	Entries    int64     `json:"entries"`
	Tags       int64     `json:"tags"`  // of the entries, how many are tag indexes
	Bytes      int64     `json:"bytes"` // of keys and values
	Size       int64     `json:"size"`  // of the archive
	Checksum   string    `json:"checksum"`
	Server     string    `json:"server,omitempty"`
	Created    time.Time `json:"created"`
	VerifiedAt time.Time `json:"verified_at"`         // when every byte of it was read back
	Needs      Needs     `json:"needs,omitzero"`      // of the server; those of before do not tell
	Replaces   string    `json:"replaces,omitempty"`  // the archive recorded before, which may go
	DeletedAt  time.Time `json:"deleted_at,omitzero"` // of the archive, when the release expired
}

// Describe makes the ledger's entry for an archive that was read back at that time.
func Describe(s Summary, name, store string, verified time.Time) Descriptor {
	return Descriptor{
		Release: s.Release, Name: name, Store: store,
		Mark: s.Mark, Epoch: s.Epoch,
		Entries: s.Entries, Tags: s.Tags, Bytes: s.Bytes, Size: s.Size, Checksum: s.Checksum,
		Server: s.Server, Created: s.Created, VerifiedAt: verified, Needs: s.Needs,
	}
}

// Matches reports whether an archive is the one described.
func (d Descriptor) Matches(s Summary) error {
	if d.Release != s.Release || d.Mark != s.Mark || d.Epoch != s.Epoch || d.Checksum != s.Checksum || d.Entries != s.Entries {
		return fmt.Errorf("%w: %q holds release %q at mark %d with checksum %s, recorded was release %q at mark %d with checksum %s",
			ErrDamaged, d.Name, s.Release, s.Mark, s.Checksum, d.Release, d.Mark, d.Checksum)
	}
	return nil
}

// checkpointEvery is after how many bytes a checkpoint is due at first.
const checkpointEvery = 16 << 20

// worth reports whether what was written since the last checkpoint is worth another one. What a
// checkpoint says grows with the archive, so they become rarer: at most a seventeenth is written twice.
func worth(written, last int64) bool {
	return written-last >= max(checkpointEvery, last/16)
}

// errNoResume: a draft cannot be gone on with.
func errNoResume(name, why string) error {
	return fmt.Errorf("go on with archive %q: %w: %s", name, tasks.ErrNotFound, why)
}

// Extension ends the names of archives.
const Extension = ".stoker"

// Name returns the name of the archive that a job writes of a release. A retry of the job,
// which keeps its mark, writes to the same name and so leaves nothing behind.
func Name(app, release string, mark int64, job string) string {
	return fmt.Sprintf("%s_%s_%d-%08x%s", app, release, mark, uint32(xxhash.Sum64String(job)), Extension)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// ValidateName reports whether name can name an archive in any store.
func ValidateName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%w: archive name %q: use 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or digit", tasks.ErrInvalid, name)
	}
	return nil
}

// none is the store of who has configured none.
type none struct{}

var _ Store = none{}

func (none) refuse() error {
	return fmt.Errorf("%w: no snapshots are configured: set STOKER_SNAPSHOT_URL to file:///dir or s3://bucket/prefix, or expire by name without one (stoker expire --release ID --no-snapshot)", tasks.ErrRefused)
}

func (n none) Create(context.Context, string) (Draft, error) { return nil, n.refuse() }
func (n none) Resume(context.Context, string, json.RawMessage) (Draft, error) {
	return nil, n.refuse()
}
func (none) Discard(context.Context, string) error          { return nil }
func (n none) Open(context.Context, string) (Source, error) { return nil, n.refuse() }
func (n none) List(context.Context) ([]Object, error)       { return nil, n.refuse() }
func (n none) Delete(context.Context, string) error         { return n.refuse() }
func (none) String() string                                 { return "" }
