package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphanode/stoker/tasks"
)

// Format is the form in which a receiver wants its messages.
type Format string

// The formats.
const (
	JSON       Format = "json"       // the event as it is, for programs
	Slack      Format = "slack"      // incoming webhooks of Slack
	Mattermost Format = "mattermost" // of Mattermost
	RocketChat Format = "rocketchat" // of Rocket.Chat
	Teams      Format = "teams"      // workflows of Microsoft Teams
	Discord    Format = "discord"    // webhooks of Discord
)

// Formats lists every format.
func Formats() []Format { return []Format{JSON, Slack, Mattermost, RocketChat, Teams, Discord} }

// signs stand before a message, so that it can be judged at a glance.
var signs = map[string]string{
	tasks.EventWorse: "🔴", tasks.EventRolledBack: "🟠", tasks.EventNotRolledBack: "🔴", tasks.EventCertificate: "🟠",
	tasks.EventHealthFailed: "🔴", tasks.EventHealthRecovered: "🟢", tasks.EventTest: "🔵",
}

// heading is a message's first line.
func heading(n tasks.Notify) string {
	return strings.TrimSpace(signs[n.Event] + " " + n.App + ": " + oneLine(n.Title))
}

// body renders a message.
func body(f Format, n tasks.Notify) ([]byte, error) {
	render, ok := templates[f]
	if !ok {
		return nil, fmt.Errorf("%w: format %q: use one of %v", tasks.ErrInvalid, f, Formats())
	}
	return json.Marshal(render(n))
}

var templates = map[Format]func(tasks.Notify) any{
	JSON:       generic,
	Slack:      func(n tasks.Notify) any { return map[string]any{"text": text(n, "*", slackEscape)} },
	Mattermost: func(n tasks.Notify) any { return named(text(n, "**", markdownEscape)) },
	RocketChat: func(n tasks.Notify) any { return named(text(n, "*", markdownEscape)) },
	Teams:      teams,
	Discord:    discord,
}

// generic is the form of the Standard Webhooks specification: type, timestamp, data.
func generic(n tasks.Notify) any {
	return struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{n.Event, n.At.UTC(), struct {
		App     string   `json:"app"`
		Release string   `json:"release,omitempty"`
		Title   string   `json:"title"`
		Lines   []string `json:"lines,omitempty"`
	}{n.App, n.Release, n.Title, n.Lines}}
}

func named(text string) any { return map[string]any{"username": "stoker", "text": text} }

// text is heading and lines in a dialect of Markdown.
func text(n tasks.Notify, bold string, escape func(string) string) string {
	all := []string{bold + escape(heading(n)) + bold}
	for _, l := range n.Lines {
		all = append(all, "• "+escape(oneLine(l)))
	}
	return strings.Join(all, "\n")
}

// slackEscape quotes what Slack reads as markup, links and mentions.
func slackEscape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "∗", "`", "ˋ", "~", "∼").Replace(s)
}

// markdownEscape quotes Markdown, and keeps @all from calling everybody.
func markdownEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", `\<`, ">", `\>`, "#", `\#`, "|", `\|`, "~", `\~`, "!", `\!`, "@", "@\u200b").Replace(s)
}

// teams is an adaptive card; its text blocks know a little Markdown.
func teams(n tasks.Notify) any {
	block := func(s string, more map[string]any) map[string]any {
		b := map[string]any{"type": "TextBlock", "text": markdownEscape(oneLine(s)), "wrap": true}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	blocks := []any{block(heading(n), map[string]any{"weight": "Bolder", "size": "Medium"})}
	for _, l := range n.Lines {
		blocks = append(blocks, block(l, map[string]any{"spacing": "Small"}))
	}
	return map[string]any{"type": "message", "attachments": []any{map[string]any{
		"contentType": "application/vnd.microsoft.card.adaptive",
		"content": map[string]any{
			"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": blocks,
		},
	}}}
}

// maxDiscord is how many characters Discord takes.
const maxDiscord = 2000

func discord(n tasks.Notify) any {
	return map[string]any{
		"username":         "stoker",
		"content":          shorten(text(n, "**", markdownEscape), maxDiscord),
		"allowed_mentions": map[string]any{"parse": []string{}},
	}
}

// oneLine drops line breaks and control characters.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
}

// shorten cuts a text to at most so many characters.
func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
