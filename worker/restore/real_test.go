package restore_test

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/restore"
	"github.com/alphanode/stoker/worker/retire/verbtest"
)

const realKeys = "../../../shared/data/real-keys.jsonl.gz"

// loadRealKeys fills the world with what real clients wrote.
func loadRealKeys(t *testing.T, w *verbtest.World) {
	t.Helper()
	f, err := os.Open(realKeys)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is absent", realKeys)
	}
	w.Must(err)
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	w.Must(err)
	lines := bufio.NewScanner(zip)
	lines.Buffer(nil, 16<<20)
	pipe := w.Client.Pipeline()
	for lines.Scan() {
		var k struct {
			K, D  string
			TTLms int64 `json:"ttl_ms"`
		}
		w.Must(json.Unmarshal(lines.Bytes(), &k))
		key, err := base64.StdEncoding.DecodeString(k.K)
		w.Must(err)
		dump, err := base64.StdEncoding.DecodeString(k.D)
		w.Must(err)
		ttl := time.Duration(max(k.TTLms, 0)) * time.Millisecond
		if ttl > 0 && ttl < time.Minute {
			ttl += time.Minute // or it would be gone before it is looked at
		}
		pipe.RestoreReplace(t.Context(), string(key), ttl, string(dump))
	}
	w.Must(lines.Err())
	_, err = pipe.Exec(t.Context())
	w.Must(err)
}

// TestRealClientsNamespacesComeBack archives and restores what seven client stacks wrote.
func TestRealClientsNamespacesComeBack(t *testing.T) {
	w := verbtest.New(t)
	for _, c := range []struct{ template, id string }{
		{"wp:<release>:<key>", "r1"},
		{"<release>:1:<key>", "rel-41"},
		{"sf<release>_tagged:<key>", "rel7"},
		{"lv:<release>:<key>", "rel7"},
		{"io:<release>:<key>", "r7"},
		{"rails:<release>:<key>", "rel7"},
		{"<release>:1:<key>", "rel-42"},
		{"<release>:2:<key>", "rel-42"},
		{"sf<release>_plain:<key>", "rel7"},
		{"lv:<release>:<key>", "rel8"},
		{"keyv-<release>:<key>", "r7"},
		{"cm-<release>:<key>", "r7"},
	} {
		t.Run(strings.ReplaceAll(c.template, "<release>", c.id), func(t *testing.T) {
			w.Reset()
			w.SetTemplate(c.template)
			loadRealKeys(t, w)
			w.Create("another")
			_, err := w.Ledger.Flip(t.Context(), "another", release.New, verbtest.By)
			w.Must(err)
			w.Create(c.id)
			w.Must(w.Ledger.Move(t.Context(), c.id, release.New, release.Standby, verbtest.By))
			before, neighbours := w.Entries(c.id), w.Neighbours(c.id)
			if len(before) < 2 || len(neighbours) < 1000 {
				t.Fatalf("%d entries, %d neighbours: not what the data should hold", len(before), len(neighbours))
			}
			w.Archive(c.id)
			if left := w.Entries(c.id); len(left) != 0 {
				t.Errorf("%d entries are left of an archived release", len(left))
			}
			report, err := restore.New(rooms(w, nil)).Rollback(t.Context(), verbtest.NewJob("a"), tasks.Rollback{To: c.id, By: verbtest.By})
			w.Must(err)
			wantEntries(t, w, c.id, before)
			if report.Entries != int64(len(before)) || report.ExpiredLeftOut != 0 {
				t.Errorf("report %+v of %d entries", report, len(before))
			}
			if d := cmp.Diff(neighbours, w.Neighbours(c.id)); d != "" {
				t.Errorf("neighbours (-before +after):\n%s", d)
			}
		})
	}
}
