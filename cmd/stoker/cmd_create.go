package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphanode/stoker/cmd/stoker/web"
	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

func (c *cli) createCommand() *cobra.Command {
	var n release.Notes
	var adopt, active, noGit bool
	var gitDir string
	cmd := &cobra.Command{
		Use:   "create ID",
		Short: "Register a release, before anything is written to its namespace",
		Long: `Register a release: one build of the site, with what a colleague needs to know of it. From
here on its namespace receives every invalidation.

In a git repository, what no flag says is taken from it: the owner is the last commit's author, the
revision is HEAD, the files are those that changed since the revision of the release that is served.

--adopt takes over a namespace that exists already, because the site wrote it before it had
stoker: the release enters on standby, or with --active as the one that is served.`,
		Example: `  stoker release create r42 --owner ann --why 'new tag pages' --file tmpl/tag.html
  stoker release create r41 --adopt --active`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if active && !adopt {
				return activeWithoutAdopt()
			}
			return c.with(cmd.Context(), func(p port) error {
				if !adopt && !noGit {
					if err := c.fromGit(cmd.Context(), p, gitDir, &n); err != nil {
						return err
					}
				}
				made, err := ask(cmd.Context(), p, createOp, createIn{a[0], n, adopt, active})
				if err != nil {
					return err
				}
				if taken := made.Adopted; taken != nil && !c.json {
					fmt.Fprintf(c.out, "adopted %d entries (about %s); %d invalidations applied, %d entries removed\n",
						taken.Entries, size(taken.Bytes), taken.Replayed, taken.Removed)
				}
				return c.printRelease(made)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Owner, "owner", "", "who answers for the release")
	f.StringVar(&n.Reason, "why", "", "what it is for")
	f.StringVar(&n.Expected, "expected", "", "the result hoped for")
	f.StringVar(&n.RollbackNote, "rollback-note", "", "what to mind when taking it back")
	f.StringVar(&n.Revision, "revision", "", "revision of the site's repository")
	f.StringArrayVar(&n.Files, "file", nil, "a file touched (repeat)")
	f.StringArrayVar(&n.Commands, "command", nil, "a command used (repeat)")
	f.StringVar(&gitDir, "git", ".", "folder of the site's git repository")
	f.BoolVar(&noGit, "no-git", false, "take nothing from git")
	f.BoolVar(&adopt, "adopt", false, "take over a namespace that exists already")
	f.BoolVar(&active, "active", false, "with --adopt: it is the one that is served")
	return cmd
}

// createIn asks for a release to be registered.
type createIn struct {
	ID     string        `json:"id"`
	Notes  release.Notes `json:"notes,omitzero"`
	Adopt  bool          `json:"adopt,omitempty"`  // take over a namespace that exists already
	Active bool          `json:"active,omitempty"` // with Adopt: it is the one that is served
}

// registered is a release that was made or changed.
type registered struct {
	release.Record
	Namespace tasks.Bytes `json:"namespace"` // what its keys begin with
	Adopted   *adopted    `json:"adopted,omitempty"`
}

// adopted tells what was found in a namespace that was taken over.
type adopted struct {
	Entries  int64 `json:"entries"`
	Bytes    int64 `json:"bytes_estimated"`
	Replayed int64 `json:"replayed"` // invalidations that were applied to it
	Removed  int64 `json:"removed"`  // entries, by these
}

var createOp = operation[createIn, registered]{
	id: "createRelease", says: "Register a release, before anything is written to its namespace; or adopt a namespace that exists",
	method: "POST", path: "/v1/releases", scope: web.Operate, long: true,
	do: func(ctx context.Context, r *rooms, in createIn, by tasks.By) (registered, error) {
		rec := release.Record{ID: in.ID, Template: r.tmpl.String(), Notes: in.Notes}
		if !in.Adopt {
			if in.Active {
				return registered{}, activeWithoutAdopt()
			}
			if err := r.ledger.Create(ctx, rec, by); err != nil {
				return registered{}, err
			}
			return r.registered(ctx, in.ID)
		}
		taken, err := r.adopt(ctx, rec, in.Active, by)
		if err != nil {
			return registered{}, err
		}
		made, err := r.registered(ctx, in.ID)
		made.Adopted = taken
		return made, err
	},
}

func activeWithoutAdopt() error {
	return fmt.Errorf("%w: --active goes with --adopt: a new release is warmed first, then activated", tasks.ErrInvalid)
}

func (r *rooms) registered(ctx context.Context, id string) (registered, error) {
	rec, err := r.ledger.Get(ctx, id)
	return registered{Record: rec, Namespace: tasks.Bytes(r.tmpl.Prefix(id))}, err
}

// adopt registers a release whose namespace exists. Its values are of unknown age, so every
// invalidation that the log still knows is applied to it before it may be served from. A
// command that was interrupted is finished by running it again.
func (r *rooms) adopt(ctx context.Context, rec release.Record, active bool, by tasks.By) (*adopted, error) {
	usage, err := r.ns.Usage(ctx, rec.ID)
	if err != nil {
		return nil, err
	}
	if usage.Entries == 0 {
		return nil, fmt.Errorf("%w: no key begins with %q: there is nothing to adopt; check STOKER_KEY_TEMPLATE and STOKER_CACHE_URL", tasks.ErrInvalid, r.tmpl.Prefix(rec.ID))
	}
	if now, err := r.ledger.Active(ctx); err != nil {
		return nil, err
	} else if active && now != "" && now != rec.ID {
		return nil, fmt.Errorf("%w: %q is active already: adopt without --active and roll back to it when it shall be served", tasks.ErrRefused, now)
	}
	have, err := r.ledger.Get(ctx, rec.ID)
	if err != nil || have.State != release.New {
		if err := r.ledger.Create(ctx, rec, by); err != nil {
			return nil, err
		}
	}
	oldest, err := r.log.Oldest(ctx)
	if err != nil {
		return nil, err
	}
	replayed, err := r.applier.Replay(ctx, rec.ID, oldest)
	if err != nil {
		return nil, err
	}
	if active {
		_, err = r.ledger.Flip(ctx, rec.ID, release.New, by)
	} else {
		err = r.ledger.Move(ctx, rec.ID, release.New, release.Standby, by)
	}
	if err != nil {
		return nil, err
	}
	return &adopted{usage.Entries, usage.Bytes, replayed.Targets, replayed.Removed}, nil
}

// printRelease shows a release that was made or changed.
func (c *cli) printRelease(made registered) error {
	return c.show(made.Record, func(w io.Writer) {
		pinned := ""
		if made.Pinned {
			pinned = " and pinned"
		}
		fmt.Fprintf(w, "%s is %s%s (namespace %s…)\n", made.ID, made.State, pinned, plain(made.Namespace.String()))
	})
}
