package demo

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// teller tells the story: lines of words, and bars that move where there is a terminal.
type teller struct {
	out      io.Writer
	terminal bool
}

// chapter begins a part of the story.
func (t teller) chapter(format string, args ...any) {
	fmt.Fprintf(t.out, "\n%s\n", fmt.Sprintf(format, args...))
}

// say tells one line of it.
func (t teller) say(format string, args ...any) {
	fmt.Fprintf(t.out, "  %s\n", fmt.Sprintf(format, args...))
}

// bar shows how far a step has come. end removes the bar, or tells that the step is done.
func (t teller) bar(label string) (watch Watch, end func()) {
	if !t.terminal {
		return t.lines(label)
	}
	var mu sync.Mutex
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(t.out), progressbar.OptionSetDescription("  "+label),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionShowCount(),
		progressbar.OptionSetSpinnerChangeInterval(0)) // it would draw on by itself after the end
	watch = func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if total > 0 && bar.GetMax64() != total {
			bar.ChangeMax64(total)
		}
		// The last step is end's: at its maximum the bar counts as finished.
		if total <= 0 || done < total {
			_ = bar.Set64(done)
		}
	}
	return watch, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = bar.Clear()
		_ = bar.Exit()
	}
}

// lines tells of every quarter.
func (t teller) lines(label string) (watch Watch, end func()) {
	var mu sync.Mutex
	told := int64(0)
	watch = func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if total <= 0 || done >= total {
			return
		}
		if quarter := 4 * done / total; quarter > told {
			told = quarter
			t.say("%s: %s of %s", label, humanize.Comma(done), humanize.Comma(total))
		}
	}
	return watch, func() {}
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
