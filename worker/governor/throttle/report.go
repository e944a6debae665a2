package throttle

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/alphanode/stoker/tasks"
	"github.com/alphanode/stoker/worker/governor"
)

// Report is how the works of one process went since it began, and how its servers fare.
type Report struct {
	Worker  string       `json:"worker"` // host:process
	At      time.Time    `json:"at"`
	Servers []Server     `json:"servers"`
	Works   []WorkReport `json:"works"`
	// Brakes are those of the last slice of each pace under way.
	Brakes map[tasks.Pace]Brake `json:"brakes,omitempty"`
}

// Server is how one server fares.
type Server struct {
	Node    string        `json:"node,omitempty"` // "" for the only one
	Latency time.Duration `json:"latency_ns"`     // that most round trips do not exceed
	Used    int64         `json:"used"`           // bytes
	Limit   int64         `json:"limit"`          // bytes; 0: none, or not told
}

// WorkReport is the figures of one kind of work.
type WorkReport struct {
	Verb string     `json:"verb"`
	Pace tasks.Pace `json:"pace"`
	Figures
}

// Figures count slices.
type Figures struct {
	Slices  int64                     `json:"slices"`
	Failed  int64                     `json:"failed"`
	Items   int64                     `json:"items"`
	Seconds float64                   `json:"seconds"` // of the server's time
	Paused  float64                   `json:"paused"`  // seconds
	Longest float64                   `json:"longest"` // slice, seconds
	Braked  map[governor.Reason]int64 `json:"braked"`  // slices, by why
}

func (f *Figures) add(took, waited time.Duration, items int, why governor.Reason) {
	f.Slices++
	f.Seconds += took.Seconds()
	f.Paused += waited.Seconds()
	f.Longest = max(f.Longest, took.Seconds())
	if items > 0 {
		f.Items += int64(items)
	} else {
		f.Failed++
	}
	if why != "" {
		f.Braked[why]++
	}
}

// figure returns the figures of a kind of work. t.mu is held.
func (t *Throttle) figure(verb string, pace tasks.Pace) *Figures {
	k := kind{verb, pace}
	if t.figures[k] == nil {
		t.figures[k] = &Figures{Braked: map[governor.Reason]int64{}}
	}
	return t.figures[k]
}

// Report returns the process's figures as they are now.
func (t *Throttle) Report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Report{Worker: Worker(), At: time.Now().UTC(), Servers: []Server{}, Works: []WorkReport{}, Brakes: map[tasks.Pace]Brake{}}
	for name, node := range t.readings("") {
		r.Servers = append(r.Servers, Server{name, node.Latency(), node.Memory.Used, node.Memory.Limit})
	}
	for k, f := range t.figures {
		all := *f
		all.Braked = map[governor.Reason]int64{}
		for why, n := range f.Braked {
			all.Braked[why] = n
		}
		r.Works = append(r.Works, WorkReport{k.verb, k.pace, all})
	}
	for pace, b := range t.brakes {
		r.Brakes[pace] = b
	}
	slices.SortFunc(r.Servers, func(a, b Server) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(r.Works, func(a, b WorkReport) int {
		return cmp.Or(cmp.Compare(a.Verb, b.Verb), cmp.Compare(a.Pace, b.Pace))
	})
	return r
}

// Worker names this process among others, as host:process.
func Worker() string {
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	return host + ":" + strconv.Itoa(os.Getpid())
}
