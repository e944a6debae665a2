package web

import (
	"context"
	"net/http"
	"slices"
)

// schedulePage is what the page of the schedule shows.
type schedulePage struct {
	Schedule
	Late bool // an entry has missed a tick
}

// showSchedule answers /schedule.
func (s *Server) showSchedule(w http.ResponseWriter, r *http.Request) {
	p, err := within(r.Context(), readLimit, s.schedule)
	if err != nil {
		s.fail(w, r, "The schedule could not be read", err)
		return
	}
	s.render(w, r, http.StatusOK, s.pages.schedule, "Schedule", p)
}

func (s *Server) schedule(ctx context.Context) (schedulePage, error) {
	all, err := s.deps.Reads.Schedule(ctx)
	if err != nil {
		return schedulePage{}, err
	}
	return schedulePage{Schedule: all, Late: slices.ContainsFunc(all.Entries, func(e ScheduleEntry) bool { return e.Missed > 0 })}, nil
}
