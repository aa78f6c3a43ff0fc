package httpapitest

import (
	"context"
	"slices"

	"ringmaster/pkg/operation"
)

// Letters are the dead letters of b.
type Letters struct{ *Backend }

// List returns letters after a sequence.
func (l Letters) List(_ context.Context, after uint64, limit int) ([]operation.DeadLetter, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var page []operation.DeadLetter
	for _, letter := range l.Dead {
		if letter.Sequence <= after {
			continue
		}
		if len(page) == limit {
			return page, page[limit-1].Sequence, l.RecordsErr
		}
		letter.Body = nil
		page = append(page, letter)
	}
	return page, 0, l.RecordsErr
}

// Letter returns one.
func (l Letters) Letter(_ context.Context, sequence uint64) (operation.DeadLetter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, letter := range l.Dead {
		if letter.Sequence == sequence {
			return letter, l.RecordsErr
		}
	}
	return operation.DeadLetter{}, operation.ErrNoLetter
}

// Retry takes one away, unless RetryErr is set.
func (l Letters) Retry(ctx context.Context, sequence uint64, by operation.Intent) (operation.DeadLetter, error) {
	letter, err := l.Letter(ctx, sequence)
	if err != nil {
		return letter, err
	}
	if l.RetryErr != nil {
		return letter, l.RetryErr
	}
	return letter, l.Drop(ctx, sequence, by)
}

// Drop takes one away.
func (l Letters) Drop(ctx context.Context, sequence uint64, by operation.Intent) error {
	if _, err := l.Letter(ctx, sequence); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Dead = slices.DeleteFunc(l.Dead, func(d operation.DeadLetter) bool { return d.Sequence == sequence })
	l.Asked = append(l.Asked, by)
	return nil
}
