package tasks_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// render stands for what an app server does on a cache miss.
func render(context.Context, string) ([]byte, error) { return []byte("<h1>Tending fires</h1>"), nil }

// An app server that reads and fills the cache of the release that is served, and tells stoker
// of edits.
func Example() {
	client, err := tasks.NewClient(tasks.Config{
		App:         "blog",
		RedisURL:    "redis://127.0.0.1:6379/0",
		KeyTemplate: "<app>:<release>:<key>",
		FillLimit:   30 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	http.HandleFunc("GET /posts/{slug}", func(w http.ResponseWriter, r *http.Request) {
		slug := r.PathValue("slug")
		page, err := client.Fetch(r.Context(), "page:/posts/"+slug, []string{"post:" + slug}, time.Hour,
			func(ctx context.Context) ([]byte, error) { return render(ctx, slug) })
		if err != nil {
			http.Error(w, "cannot render the page", http.StatusInternalServerError)
			return
		}
		w.Header().Set("X-Release", page.Release)
		w.Write(page.Value)
	})

	http.HandleFunc("POST /posts/{slug}", func(w http.ResponseWriter, r *http.Request) {
		slug := r.PathValue("slug")
		// … commit the edit first, then:
		_, err := client.Invalidate(r.Context(), tasks.Invalidation{
			Targets: []tasks.Target{{Kind: tasks.KindTag, Name: tasks.Bytes("post:" + slug)}},
			By:      tasks.By{Actor: "editor", Reason: "article edited"},
		})
		if err != nil {
			http.Error(w, fmt.Sprintf("saved, but not announced: %v", err), http.StatusInternalServerError)
		}
	})
}
