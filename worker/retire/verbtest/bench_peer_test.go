package verbtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/alphanode/stoker/tasks"
)

// scanCount is the COUNT of the peers' scans: larger ones gain nothing.
const scanCount = 1000

// cliUnlink deletes a namespace as people do.
func (s *site) cliUnlink(id string) {
	_, port, _ := net.SplitHostPort(s.Client.Options().Addr)
	line := fmt.Sprintf("redis-cli -p %s --scan --pattern '%s' | xargs -L 1000 redis-cli -p %s unlink >/dev/null", port, s.Template.Match(id, ""), port)
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil || len(out) > 0 {
		s.T.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// cliPipe sends a file of commands as redis-cli's mass insertion does.
func (s *site) cliPipe(path string) {
	_, port, _ := net.SplitHostPort(s.Client.Options().Addr)
	f, err := os.Open(path)
	s.Must(err)
	defer f.Close()
	cmd := exec.Command("redis-cli", "-p", port, "--pipe")
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		s.T.Fatalf("redis-cli --pipe: %v\n%s", err, out)
	}
}

// writePipe writes a namespace as SET … PXAT commands to a file, and returns its path.
func (s *site) writePipe(id string) string {
	path := filepath.Join(s.T.TempDir(), "commands")
	f, err := os.Create(path)
	s.Must(err)
	w := bufio.NewWriterSize(f, 1<<20)
	s.Must(s.Cache.Read(s.T.Context(), id, func(entries []tasks.Entry) error {
		for _, e := range entries {
			args := []string{"SET", s.Template.Key(id, e.Key), e.Value}
			if e.ExpiresAt != 0 {
				args = append(args, "PXAT", strconv.FormatInt(e.ExpiresAt, 10))
			}
			fmt.Fprintf(w, "*%d\r\n", len(args))
			for _, a := range args {
				fmt.Fprintf(w, "$%d\r\n%s\r\n", len(a), a)
			}
		}
		return nil
	}))
	s.Must(errors.Join(w.Flush(), f.Close()))
	return path
}

// scan sends the pages of keys of a namespace, while others work on those it has sent.
func (s *site) scan(id string, pages chan<- []string) error {
	defer close(pages)
	for cursor := uint64(0); ; {
		keys, next, err := s.Client.Scan(s.T.Context(), cursor, s.Template.Match(id, ""), scanCount).Result()
		if err != nil {
			return err
		}
		pages <- keys
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// scanned calls work with each page of keys, while the next one is read.
func (s *site) scanned(id string, work func(keys []string) error) {
	pages := make(chan []string, 4)
	var g errgroup.Group
	g.Go(func() error { return s.scan(id, pages) })
	g.Go(func() (err error) {
		for keys := range pages {
			if err == nil && len(keys) > 0 {
				err = work(keys)
			}
		}
		return err
	})
	s.Must(g.Wait())
}

// goUnlink deletes a namespace with pipelines of UNLINK, the next page being read meanwhile.
func (s *site) goUnlink(id string) {
	ctx := s.T.Context()
	s.scanned(id, func(keys []string) error {
		_, err := s.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.Unlink(ctx, key)
			}
			return nil
		})
		return err
	})
}

// goRead reads a namespace's values and expiries, and keeps nothing.
func (s *site) goRead(id string) {
	ctx, read := s.T.Context(), 0
	s.scanned(id, func(keys []string) error {
		_, err := s.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.Get(ctx, key)
				p.PExpireTime(ctx, key)
			}
			return nil
		})
		read += len(keys)
		return err
	})
	if read < entries {
		s.T.Fatalf("the peer read %d entries, want %d", read, entries)
	}
}

// goDumpRestore copies a namespace by value, the next page being dumped while one is restored.
func (s *site) goDumpRestore(from, to string) {
	ctx := s.T.Context()
	type dumped struct {
		key  string
		dump *redis.StringCmd
		ttl  *redis.DurationCmd
	}
	pages := make(chan []dumped, 4)
	var g errgroup.Group
	g.Go(func() error {
		for page := range pages {
			_, err := s.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, d := range page {
					logical, _ := s.Template.Logical(from, d.key)
					p.Restore(ctx, s.Template.Key(to, logical), max(d.ttl.Val(), 0), d.dump.Val())
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	s.scanned(from, func(keys []string) error {
		page := make([]dumped, len(keys))
		_, err := s.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				page[i] = dumped{key, p.Dump(ctx, key), p.PTTL(ctx, key)}
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case pages <- page:
		case <-time.After(time.Minute):
			return errors.New("the restoring half does not take pages any more")
		}
		return nil
	})
	close(pages)
	s.Must(g.Wait())
}
