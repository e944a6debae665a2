package web

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// slowdown bounds how often one remote address may present wrong credentials. It is safe for
// concurrent use.
type slowdown struct {
	every time.Duration // one more try
	burst int           // tries at once
	most  int           // addresses remembered
	now   func() time.Time

	mu  sync.Mutex
	per map[string]*rate.Limiter
}

func newSlowdown(now func() time.Time) *slowdown {
	return &slowdown{every: 2 * time.Second, burst: 10, most: 4096, now: now, per: map[string]*rate.Limiter{}}
}

// try asks right unless addr has spent its tries; limited says that it was not asked. Only a
// wrong answer costs a try. Tries of all addresses run one at a time, so that a burst of
// parallel guesses counts in full; an answer takes microseconds.
func (s *slowdown) try(addr string, right func() bool) (ok, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, now := guesser(addr), s.now()
	limit, known := s.per[key]
	if known && limit.TokensAt(now) < 1 {
		return false, true
	}
	if right() {
		return true, false
	}
	if !known {
		s.forget(now)
		limit = rate.NewLimiter(rate.Every(s.every), s.burst)
		s.per[key] = limit
	}
	limit.AllowN(now, 1)
	return false, false
}

// forget makes room for one more address: those with all tries back go first, then any.
func (s *slowdown) forget(now time.Time) {
	if len(s.per) < s.most {
		return
	}
	for key, limit := range s.per {
		if limit.TokensAt(now) >= float64(s.burst) {
			delete(s.per, key)
		}
	}
	for key := range s.per {
		if len(s.per) < s.most {
			return
		}
		delete(s.per, key)
	}
}

// guesser names what one guesser can be expected to hold: an IPv4 address or an IPv6 /64.
func guesser(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, _ := addr.Prefix(64) // 64 fits every IPv6 address
		return prefix.String()
	}
	return addr.String()
}
