package health

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/alphanode/stoker/tasks"
)

// Redis is what was learnt of one Redis: a single server, a Sentinel group's master, or the
// masters of a Cluster.
type Redis struct {
	Err     error // it did not answer; Servers is empty then
	Servers []Server
}

// Server is what one redis-server says of itself. A field that it would not tell is absent from
// Info, and the checks that need it are unknown.
type Server struct {
	RoundTrip time.Duration     // the best of three
	Info      map[string]string // the fields of INFO
	Save      *string           // the configured RDB save points; nil when CONFIG is withheld
	Skew      *time.Duration    // the server's clock less ours; nil when TIME is withheld
}

// Policy returns the eviction policy, "" when unknown.
func (s Server) Policy() string { return s.Info["maxmemory_policy"] }

// number returns a numeric field of INFO.
func (s Server) number(field string) (int64, bool) {
	n, err := strconv.ParseInt(s.Info[field], 10, 64)
	return n, err == nil
}

// memory returns the bytes in use and the bytes there are: maxmemory where it is set, else the
// machine's, which the server may have to share.
func (s Server) memory() (used, limit int64, limited, ok bool) {
	used, ok = s.number("used_memory")
	limit, _ = s.number("maxmemory")
	limited = limit > 0
	if !limited {
		limit, _ = s.number("total_system_memory")
	}
	return used, limit, limited, ok && limit > 0
}

// readRedis asks every server behind client. Only a server that does not answer PING is an
// error: INFO, CONFIG and TIME may be missing or forbidden.
func readRedis(ctx context.Context, client redis.UniversalClient) ([]Server, error) {
	primaries, err := tasks.Primaries(ctx, client)
	if err != nil {
		return nil, err
	}
	var servers []Server
	for addr, c := range primaries {
		s, err := readServer(ctx, c)
		if err != nil && addr != "" {
			err = fmt.Errorf("primary %s: %w", addr, err)
		}
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func readServer(ctx context.Context, c redis.Cmdable) (Server, error) {
	var s Server
	for range 3 { // the first may have to dial
		start := time.Now()
		if err := c.Ping(ctx).Err(); err != nil {
			return s, err
		}
		if took := time.Since(start); s.RoundTrip == 0 || took < s.RoundTrip {
			s.RoundTrip = took
		}
	}
	if text, err := c.Info(ctx).Result(); err == nil {
		s.Info = parseInfo(text)
	}
	if conf, err := c.ConfigGet(ctx, "save").Result(); err == nil {
		if save, ok := conf["save"]; ok {
			s.Save = &save
		}
	}
	start := time.Now()
	if at, err := c.Time(ctx).Result(); err == nil {
		// The server read its clock about half way through the round trip.
		skew := at.Sub(start.Add(time.Since(start) / 2))
		s.Skew = &skew
	}
	return s, nil
}

// parseInfo reads the reply of INFO: lines of field:value, with # before the sections' titles.
func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		field, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if ok && !strings.HasPrefix(field, "#") {
			info[field] = value
		}
	}
	return info
}
