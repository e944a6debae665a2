package demo

import (
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphanode/stoker/tasks"
)

func TestGenerateIsDeterministicAndValid(t *testing.T) {
	c := Generate(7)
	if !cmp.Equal(c, Generate(7)) {
		t.Error("two corpora of the same seed differ")
	}
	if cmp.Equal(c.Articles, Generate(8).Articles) {
		t.Error("two seeds give the same articles")
	}
	if len(c.Articles) != generatedArticles || len(c.Events) != generatedEvents {
		t.Errorf("got %d articles and %d events", len(c.Articles), len(c.Events))
	}
	for _, a := range c.Articles {
		if err := a.Validate(); err != nil {
			t.Error(err)
		}
	}
	ops := map[Op]int{}
	for _, e := range c.Events {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		for _, ch := range e.Changes {
			ops[ch.Op]++
		}
	}
	for _, op := range []Op{Add, Modify, Delete, Rename} {
		if ops[op] == 0 {
			t.Errorf("no change %q in the history", op)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	articles := write(t, "a.jsonl", `{"slug":"a/b","title":"T","updated":"2024-01-02","tags":["x"],"authors":["ann"],"body_markdown":"# B","links":[]}`+"\n\n")
	events := filepath.Join(t.TempDir(), "e.jsonl.gz")
	f, err := os.Create(events)
	if err != nil {
		t.Fatal(err)
	}
	zip := gzip.NewWriter(f)
	if _, err := zip.Write([]byte(`{"time":"t","changes":[{"op":"M","slug":"a/b"},{"op":"R","slug":"c","from":"a/b"},{"op":"R","slug":null,"from":"c"},{"op":"R","slug":"d","from":null}]}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(zip.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := Load(articles, events)
	if err != nil {
		t.Fatal(err)
	}
	want := Corpus{
		Articles: []Article{{Slug: "a/b", Title: "T", Body: "# B", Tags: []string{"x"}, Authors: []string{"ann"}, Updated: "2024-01-02"}},
		Events: []Event{{Changes: []Change{
			{Op: Modify, Slug: "a/b"}, {Op: Rename, Slug: "c", From: "a/b"}, {Op: Delete, Slug: "c"}, {Op: Add, Slug: "d"},
		}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLoadRefuses(t *testing.T) {
	const article = `{"slug":"a","title":"T"}` + "\n"
	for name, tc := range map[string]struct{ articles, events, want string }{
		"not JSON":        {article + "{", "", "line 2"},
		"no title":        {`{"slug":"a"}`, "", "no title"},
		"twice":           {article + article, "", `"a" stands in line 1`},
		"dots":            {`{"slug":"a/../b","title":"T"}`, "", `slug "a/../b"`},
		"the site's path": {`{"slug":"tag/x","title":"T"}`, "", `"tag/"`},
		"bad tag":         {`{"slug":"a","title":"T","tags":["x y"]}`, "", `"x y"`},
		"empty":           {"", "", "holds none"},
		"bad op":          {article, `{"changes":[{"op":"X","slug":"a"}]}`, `operation "X"`},
		"no changes":      {article, "\n{}", "line 2"},
		"no slug":         {article, `{"changes":[{"op":"M"}]}`, "without a slug"},
		"broken gzip":     {"\x1f\x8bnot", "", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, "a", tc.articles), write(t, "e", tc.events))
			if !errors.Is(err, tasks.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, tc.want)
			}
		})
	}
	if _, err := Load("no such file", "either"); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("missing file: %v", err)
	}
}

// The real corpus is not part of the repository.
func realCorpus(t *testing.T) (articles, events string) {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "..", "shared", "data")
	articles, events = filepath.Join(dir, "articles.jsonl.gz"), filepath.Join(dir, "events.jsonl.gz")
	if _, err := os.Stat(articles); err != nil {
		t.Skipf("the real corpus is absent: %v", err)
	}
	return articles, events
}

func TestLoadRealCorpus(t *testing.T) {
	c, err := Load(realCorpus(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Articles) != 1774 || len(c.Events) != 3216 {
		t.Errorf("got %d articles and %d events", len(c.Articles), len(c.Events))
	}
}
