package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
	"github.com/alphanode/stoker/worker/snapshot"
)

// maxListed is how many entries `stoker snapshot inspect` lists at most: they are held in memory.
const maxListed = 100_000

func (c *cli) inspectCommand() *cobra.Command {
	var q snapshot.Query
	var key string
	cmd := &cobra.Command{
		Use:   "inspect ID",
		Short: "What is in a release's archive: list, filter, print an entry",
		Long: `Read a release's archive and show what is in it, without touching Redis's cache. Every byte is
checked on the way. Keys that are not plain text are shown in quotes, and --key, --prefix and
--match take them so: --key '"\x00tags\x00android"'.`,
		Example: "  stoker snapshot inspect r41 --prefix post: --limit 20\n  stoker snapshot inspect r41 --match '*:android:*' --json\n  stoker snapshot inspect r41 --key post:42",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if q.Limit < 0 || q.Limit > maxListed {
				return fmt.Errorf("%w: --limit %d: use 0 to %d", tasks.ErrInvalid, q.Limit, maxListed)
			}
			if cmd.Flags().Changed("key") {
				if q.Prefix != "" || q.Match != "" {
					return fmt.Errorf("%w: --key names one entry: leave --prefix and --match out", tasks.ErrInvalid)
				}
				key = unquote(key)
				q.Key = &key
			}
			q.Prefix, q.Match = unquote(q.Prefix), unquote(q.Match)
			return c.with(cmd.Context(), func(r *rooms) error { return c.inspect(cmd, r, a[0], q) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&q.Match, "match", "", "only keys that match this pattern, as of Redis's SCAN")
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

func (c *cli) inspect(cmd *cobra.Command, r *rooms, id string, q snapshot.Query) error {
	rec, err := r.ledger.Get(cmd.Context(), id)
	if err != nil {
		return err
	}
	d, err := r.archiveOf(rec)
	if err != nil {
		return err
	}
	in, err := r.store.Open(cmd.Context(), d.Name)
	if err != nil {
		return err
	}
	defer in.Close()
	found, err := snapshot.Inspect(cmd.Context(), in, q)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", d.Name, err)
	}
	if q.Key != nil && found.Matched == 0 {
		return fmt.Errorf("inspect %s: %w: no entry %s in it", d.Name, tasks.ErrNotFound, tasks.Bytes(*q.Key))
	}
	return c.show(found, func(w io.Writer) { printContents(w, d, found) })
}

func printContents(w io.Writer, d snapshot.Descriptor, found snapshot.Contents) {
	fmt.Fprintf(w, "%s of release %s, taken %s as of number %d: %d entries, %s\n", d.Name, found.Release, ago(found.Created), found.Mark, found.Entries, size(found.Bytes))
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
		rows = append(rows, []string{e.Type, strconv.Itoa(e.Items), size(int64(e.Bytes)), expires, e.Key.String() + valueOf(e)})
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
