package namespace

import "iter"

// ahead runs a sequence in a goroutine of its own, one step and some that lie ready ahead of who takes from
// it: the server works on the next slice while the last one is dealt with. When that ends early, so many steps
// more have been made than were seen. The sequence has ended when ahead's does.
func ahead[T any](seq iter.Seq2[T, error], ready int) iter.Seq2[T, error] {
	type step struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		steps, enough := make(chan step, ready), make(chan struct{})
		go func() {
			defer close(steps)
			for v, err := range seq {
				select {
				case steps <- step{v, err}:
				case <-enough:
					return
				}
			}
		}()
		defer func() {
			close(enough)
			for range steps { // until it is closed
			}
		}()
		for s := range steps {
			if !yield(s.value, s.err) {
				return
			}
		}
	}
}
