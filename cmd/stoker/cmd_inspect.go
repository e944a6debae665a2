package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// maxListed is how many entries `stoker snapshot inspect` lists at most: they are held in memory.
const maxListed = 100_000

func (c *cli) inspectCommand() *cobra.Command {
	var q inspectIn
	var prefix, match, key string
	cmd := &cobra.Command{
		Use:   "inspect ID",
		Short: "What is in a release's archive: list, filter, print an entry",
		Long: `Read a release's archive and show what is in it, without touching Redis's cache. Every byte is
checked on the way. Keys that are not plain text are shown in quotes, and --key, --prefix and
--match take them so: --key '"\x00tags\x00android"'.`,
		Example: "  stoker snapshot inspect r41 --prefix post: --limit 20\n  stoker snapshot inspect r41 --match '*:android:*' --json\n  stoker snapshot inspect r41 --key post:42",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			q.ID, q.Prefix, q.Match = a[0], tasks.Bytes(unquote(prefix)), tasks.Bytes(unquote(match))
			if cmd.Flags().Changed("key") {
				one := tasks.Bytes(unquote(key))
				q.Key = &one
			}
			if err := q.validate(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(p port) error {
				found, err := ask(cmd.Context(), p, inspectOp, q)
				if err != nil {
					return err
				}
				return c.show(found.Contents, func(w io.Writer) { printContents(w, found) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&match, "match", "", "only keys that match this pattern, as of Redis's SCAN")
	f.StringVar(&key, "key", "", "this entry alone, with its value")
	f.IntVar(&q.Limit, "limit", 50, "entries to list; all that match are counted")
	return cmd
}

// unquote reads what [tasks.Bytes.String] shows.
func unquote(s string) string {
	if plain, err := strconv.Unquote(s); err == nil && strings.HasPrefix(s, `"`) {
		return plain
	}
	return s
}

// archiveOf returns the recorded archive of a release.
func (r *rooms) archiveOf(rec release.Record) (snapshot.Descriptor, error) {
	var d snapshot.Descriptor
	ok, err := rec.Doc(release.DocSnapshot, &d)
	if err == nil && (!ok || !d.DeletedAt.IsZero()) {
		err = fmt.Errorf("release %q: %w: it has no archive; `stoker snapshot %s` makes one while it is live", rec.ID, tasks.ErrNotFound, rec.ID)
	}
	return d, err
}

// inspectIn asks what is in a release's archive, as [snapshot.Query] does.
type inspectIn struct {
	ID     string       `json:"id"`
	Prefix tasks.Bytes  `json:"prefix,omitempty"`
	Match  tasks.Bytes  `json:"match,omitempty"`
	Key    *tasks.Bytes `json:"key,omitempty"`
	Limit  int          `json:"limit,omitempty"`
}

func (in inspectIn) validate() error {
	switch {
	case in.Limit < 0 || in.Limit > maxListed:
		return fmt.Errorf("%w: --limit %d: use 0 to %d", tasks.ErrInvalid, in.Limit, maxListed)
	case in.Key != nil && (in.Prefix != "" || in.Match != ""):
		return fmt.Errorf("%w: --key names one entry: leave --prefix and --match out", tasks.ErrInvalid)
	}
	return nil
}

// inspected is what was found in an archive.
type inspected struct {
	Name string `json:"name"`
	snapshot.Contents
}

var inspectOp = operation[inspectIn, inspected]{
	id: "inspectSnapshot", says: "What is in a release's archive: entries that a prefix, a pattern or a key names",
	method: "POST", path: "/v1/releases/{id}/snapshot/inspect", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in inspectIn, _ tasks.By) (found inspected, err error) {
		if err := in.validate(); err != nil {
			return found, err
		}
		rec, err := r.ledger.Get(ctx, in.ID)
		if err != nil {
			return found, err
		}
		d, err := r.archiveOf(rec)
		if err != nil {
			return found, err
		}
		archive, err := r.store.Open(ctx, d.Name)
		if err != nil {
			return found, err
		}
		defer archive.Close()
		q := snapshot.Query{Prefix: string(in.Prefix), Match: string(in.Match), Key: (*string)(in.Key), Limit: in.Limit}
		if found.Contents, err = snapshot.Inspect(ctx, archive, q); err != nil {
			return found, fmt.Errorf("inspect %s: %w", d.Name, err)
		}
		if in.Key != nil && found.Matched == 0 {
			return found, fmt.Errorf("inspect %s: %w: no entry %s in it", d.Name, tasks.ErrNotFound, *in.Key)
		}
		found.Name = d.Name
		return found, nil
	},
}

func printContents(w io.Writer, found inspected) {
	fmt.Fprintf(w, "%s of release %s, taken %s as of number %d: %d entries, %s\n", found.Name, found.Release, ago(found.Created), found.Mark, found.Entries, size(found.Bytes))
	var types []string
	for _, name := range slices.Sorted(maps.Keys(found.Types)) {
		types = append(types, fmt.Sprintf("%d %s", found.Types[name], name))
	}
	fmt.Fprintf(w, "%d match, %s", found.Matched, size(found.Weight))
	if len(types) > 0 {
		fmt.Fprintf(w, ": %s", strings.Join(types, ", "))
	}
	fmt.Fprintln(w)
	if len(found.Listed) == 0 {
		return
	}
	var rows [][]string
	for _, e := range found.Listed {
		expires := "never"
		if !e.ExpiresAt.IsZero() {
			expires = e.ExpiresAt.Format(time.RFC3339)
		}
		if e.Expiring > 0 {
			expires += fmt.Sprintf(", %d fields earlier", e.Expiring)
		}
		items := ""
		if e.Items > 0 {
			items = strconv.Itoa(e.Items)
		}
		rows = append(rows, []string{e.Type, items, size(int64(e.Bytes)), expires, e.Key.String() + valueOf(e)})
	}
	fmt.Fprintln(w)
	table(w, []string{"TYPE", "ITEMS", "SIZE", "EXPIRES", "KEY"}, rows)
}

// valueOf shows an entry's value below its key, where it was asked for.
func valueOf(e snapshot.Listed) string {
	var b strings.Builder
	if e.Value != nil {
		b.WriteString("\n" + e.Value.String())
	}
	for i, v := range e.Values {
		b.WriteString("\n" + v.String())
		if f := i / 2; i%2 == 1 && f < len(e.FieldsExpireAt) && e.FieldsExpireAt[f] != nil {
			b.WriteString(" (field expires " + e.FieldsExpireAt[f].Format(time.RFC3339) + ")")
		}
	}
	return b.String()
}
