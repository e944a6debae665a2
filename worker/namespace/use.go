package namespace

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/alphanode/stoker/tasks"
)

// Use is how much an entry is used, as far as the server's eviction policy tells.
type Use struct {
	Key  string        // logical
	Freq int64         // under an LFU policy: its counter, 0 to 255, which grows ever more slowly; else 0
	Idle time.Duration // under any other: since its last use, to the second; else 0
}

// Uses tells of every entry of the release how much it is used, a slice at a time; counted says
// that Freq is known, otherwise Idle is. To ask is no use. An entry may come twice. fn is called by one
// goroutine at a time.
func (c *Cache) Uses(ctx context.Context, release string, fn func(counted bool, uses []Use) error) (err error) {
	defer wrap(&err, "look at uses of", release)
	if err := c.whole(release); err != nil {
		return err
	}
	var mu sync.Mutex
	return c.everywhere(ctx, Work{Verb: verbCount}, func(ctx context.Context, w *work) error {
		for s, err := range w.slices(ctx, useScript, nil, release, "", 0, c.tmpl.Prefix(release)+tasks.Reserved) {
			if err != nil {
				return err
			}
			counted, uses, err := c.uses(release, s.reply)
			if err != nil {
				return err
			}
			if len(uses) == 0 {
				continue
			}
			mu.Lock()
			err = fn(counted, uses)
			mu.Unlock()
			if err != nil {
				return end(err)
			}
		}
		return nil
	})
}

// uses reads a reply of the script.
func (c *Cache) uses(release string, reply []any) (counted bool, uses []Use, err error) {
	counted = reply[0] == "freq"
	for i := 1; i+1 < len(reply); i += 2 {
		key, isText := reply[i].(string)
		n, isNumber := reply[i+1].(int64)
		if !isText || !isNumber {
			return false, nil, fmt.Errorf("use: a key is a %T, its number a %T", reply[i], reply[i+1])
		}
		logical, ok := c.tmpl.Logical(release, key)
		switch {
		case !ok:
		case counted:
			uses = append(uses, Use{Key: logical, Freq: n})
		default:
			uses = append(uses, Use{Key: logical, Idle: time.Duration(n) * time.Second})
		}
	}
	return counted, uses, nil
}
