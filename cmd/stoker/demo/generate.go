package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The size of the generated site.
const (
	generatedArticles = 400
	generatedTags     = 30
	generatedAuthors  = 20
	generatedEvents   = 3000
)

var (
	nouns = strings.Fields(`anvil barn candle door ember field garden harbour island jetty kiln ladder meadow
		needle orchard pantry quarry river stove tower umbrella valley window yard attic bridge copper dune
		engine forge granary hearth iron jar kettle lantern mill nest oven plough rope sail tide well`)
	adjectives = strings.Fields(`amber brisk calm damp early faint gentle hidden idle jolly keen late mild narrow
		old pale quiet rough slow tall upper vast warm young bright cold dry even fresh grey`)
	verbs = strings.Fields(`mending building painting finding keeping moving lighting drying cleaning measuring
		carrying storing sharpening weaving planting guarding naming sorting`)
	names = strings.Fields(`ada bo cleo dan edda finn gro hal ines jon kai lou mia nils ola pim quin rosa sven tess`)
)

// Generate invents a site and its history. The same seed gives the same corpus.
func Generate(seed uint64) Corpus {
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	tags := make([]string, generatedTags)
	for i := range tags {
		tags[i] = nouns[i]
	}
	var c Corpus
	for i := range generatedArticles {
		c.Articles = append(c.Articles, g.article(fmt.Sprintf("notes/%d-%s-%s", 2019+i%6, g.pick(verbs), g.pick(nouns)), i, tags))
	}
	c.Events = g.events(c.Articles)
	return c
}

type generator struct{ *rand.Rand }

func (g generator) pick(words []string) string { return words[g.IntN(len(words))] }

func (g generator) article(slug string, i int, tags []string) Article {
	return Article{
		Slug:    fmt.Sprintf("%s-%d", slug, i),
		Title:   g.title(),
		Body:    g.body(),
		Tags:    g.some(tags, 1+g.IntN(3)),
		Authors: g.some(names[:generatedAuthors], 1+g.IntN(2)),
		Updated: fmt.Sprintf("%d-%02d-%02d", 2019+i%6, 1+g.IntN(12), 1+g.IntN(28)),
	}
}

// some returns n different words in their own order.
func (g generator) some(words []string, n int) []string {
	at := g.Perm(len(words))[:n]
	slices.Sort(at)
	out := make([]string, n)
	for i, j := range at {
		out[i] = words[j]
	}
	return out
}

func (g generator) title() string {
	v := g.pick(verbs)
	return fmt.Sprintf("%s%s the %s %s", strings.ToUpper(v[:1]), v[1:], g.pick(adjectives), g.pick(nouns))
}

// body is three to eight paragraphs under two headings, 1 to 5 kB.
func (g generator) body() string {
	var b strings.Builder
	for p := range 3 + g.IntN(6) {
		if p%3 == 0 {
			fmt.Fprintf(&b, "## The %s %s\n\n", g.pick(adjectives), g.pick(nouns))
		}
		for range 4 + g.IntN(6) {
			fmt.Fprintf(&b, "%s by the %s %s takes %s and a %s %s. ",
				g.title(), g.pick(adjectives), g.pick(nouns), g.pick(verbs), g.pick(adjectives), g.pick(nouns))
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// events invents a history: mostly changes to popular articles, now and then a new one, a
// deletion, a rename, and seldom one edit that touches dozens.
func (g generator) events(articles []Article) []Event {
	popular := rand.NewZipf(g.Rand, 1.6, 4, generatedArticles-1)
	alive := make([]string, len(articles))
	for i, a := range articles {
		alive[i] = a.Slug
	}
	events := make([]Event, 0, generatedEvents)
	for n := range generatedEvents {
		at := int(popular.Uint64()) % len(alive)
		var e Event
		switch roll := g.IntN(100); {
		case roll < 4:
			slug := fmt.Sprintf("notes/late/%s-%d", g.pick(nouns), n)
			alive = append(alive, slug)
			e.Changes = []Change{{Op: Add, Slug: slug}}
		case roll < 6 && len(alive) > generatedArticles/2:
			e.Changes = []Change{{Op: Delete, Slug: alive[at]}}
			alive = slices.Delete(alive, at, at+1)
		case roll < 8:
			slug := fmt.Sprintf("notes/moved/%s-%d", g.pick(nouns), n)
			e.Changes = []Change{{Op: Rename, Slug: slug, From: alive[at]}}
			alive[at] = slug
		case n%500 == 250:
			for _, i := range g.Perm(len(alive))[:30] {
				e.Changes = append(e.Changes, Change{Op: Modify, Slug: alive[i]})
			}
		default:
			e.Changes = []Change{{Op: Modify, Slug: alive[at]}}
		}
		events = append(events, e)
	}
	return events
}
