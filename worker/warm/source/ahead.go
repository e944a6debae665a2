package source

import "context"

// Ahead calls walk with an fn that returns at once, and the caller's fn with each chunk in its turn, while
// walk goes on reading: at most two chunks wait. It returns what walk would have: walk's own error,
// after fn has had all that came before it, or fn's error as it is, and then walk has ended.
// It is for sources that do nothing else with fn's answer.
func Ahead(ctx context.Context, fn func(Chunk) error, walk func(ctx context.Context, fn func(Chunk) error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks, done := make(chan Chunk, 1), make(chan error, 1)
	go func() {
		defer close(chunks)
		done <- walk(ctx, func(c Chunk) error {
			select {
			case chunks <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	var failed error
	for c := range chunks {
		if failed != nil {
			continue
		}
		if failed = fn(c); failed != nil {
			cancel()
		}
	}
	if err := <-done; failed == nil {
		return err
	}
	return failed
}
