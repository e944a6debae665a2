package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/release"
)

// gitLimit bounds each question to git: registering a release waits for nobody.
const gitLimit = 5 * time.Second

// repository is the git repository around a folder.
type repository struct{ dir string }

// ask runs git with fixed arguments. Nothing that the repository configures is run: no hooks, no
// file system monitor, no external diff.
func (r repository) ask(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, gitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{
		"-C", r.dir, "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false",
	}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(msg.String()), "\n")
		return "", errors.Join(err, errors.New(first))
	}
	return out.String(), nil
}

// gitNotes is what git says of the build at hand.
type gitNotes struct {
	release.Notes
	since string // the revision that Files are counted from; "" when there are none
	dirty bool   // files differ from the revision
}

// describe returns owner (the last commit's author), revision, and the files touched since the
// revision before. false: there is no git, or no repository with a commit.
func (r repository) describe(ctx context.Context, before string) (n gitNotes, ok bool) {
	head, err := r.ask(ctx, "log", "-1", "--format=%H%x00%an <%ae>", "HEAD", "--")
	if err != nil {
		return n, false
	}
	revision, owner, _ := strings.Cut(strings.TrimSpace(head), "\x00")
	n.Revision, n.Owner = revision, fit(owner)
	if status, err := r.ask(ctx, "status", "--porcelain", "--untracked-files=no"); err == nil {
		n.dirty = status != ""
	}
	if before == "" || strings.HasPrefix(before, "-") {
		return n, true
	}
	// What was noted by hand may be anything: only a commit will do.
	commit, err := r.ask(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", before+"^{commit}")
	if err != nil {
		return n, true
	}
	files, err := r.ask(ctx, "diff", "--name-only", "-z", "--no-ext-diff", "--no-textconv", strings.TrimSpace(commit), revision, "--")
	if err != nil {
		return n, true
	}
	n.since = strings.TrimSpace(commit)
	for _, name := range strings.FieldsFunc(files, func(c rune) bool { return c == 0 }) {
		n.Files = append(n.Files, fit(name))
	}
	if most := release.MaxNoteLines; len(n.Files) > most {
		n.Files = append(n.Files[:most-1:most-1], fmt.Sprintf("… and %d more", len(n.Files)-most+1))
	}
	return n, true
}

// fit makes a text from git one that a note may hold.
func fit(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return '·'
		}
		return c
	}, strings.ToValidUTF8(s, "·"))
	if len(s) > tasks.MaxReasonLen {
		s = strings.ToValidUTF8(s[:tasks.MaxReasonLen-len("…")], "") + "…"
	}
	return s
}

// fromGit adds to the notes of a new release what git knows and nobody has said, and tells what it took.
func (c *cli) fromGit(ctx context.Context, p port, dir string, n *release.Notes) error {
	before, err := activeRevision(ctx, p)
	if err != nil {
		return err
	}
	found, ok := repository{dir}.describe(ctx, before)
	if !ok {
		return nil
	}
	var took []string
	take := func(to *string, value, what string) {
		if *to == "" && value != "" {
			*to = value
			took = append(took, what+" "+value)
		}
	}
	revisionGiven := n.Revision != "" && n.Revision != found.Revision
	take(&n.Owner, found.Owner, "owner")
	take(&n.Revision, found.Revision, "revision")
	// Files of another revision than the one that was named would be wrong.
	if len(n.Files) == 0 && len(found.Files) > 0 && !revisionGiven {
		n.Files = found.Files
		took = append(took, fmt.Sprintf("%d files touched since %.12s", len(n.Files), found.since))
	}
	if len(took) > 0 {
		fmt.Fprintf(c.err, "from git: %s\n", plain(strings.Join(took, ", ")))
	}
	if found.dirty && n.Revision == found.Revision {
		fmt.Fprintln(c.err, "note: the working tree has changes that are not in that revision")
	}
	return nil
}

// activeRevision returns the revision of the release that is served, "" when it has none.
func activeRevision(ctx context.Context, p port) (string, error) {
	records, err := ask(ctx, p, releasesOp, none{})
	for _, rec := range records {
		if rec.State == release.Active {
			return rec.Revision, nil
		}
	}
	return "", err
}
