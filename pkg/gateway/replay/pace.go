package replay

import (
	"context"
	"fmt"
	"time"

	"ringmaster/pkg/serving"
)

// While hints are replayed, what is added must be half of what is replayed at most,
// or the end would never come. Both are seen in the stream, for all processes
// together: its first message moves on as hints are replayed, its last one as they
// are added. So each process paces itself.

// pace is where a stream's ends were when this process first saw it being replayed.
type pace struct {
	counting    bool
	first, next uint64
}

const (
	// pacedFrom is how many messages may wait without anybody being slowed.
	pacedFrom = 64
	// burst is how many messages may be added before any has been replayed.
	burst = 32
	// paceEvery is how often it is looked.
	paceEvery = 50 * time.Millisecond
)

// throttle waits while the hints of a backend that is being brought up to date grow
// by more than half of what is replayed. It gives up with a *LimitError.
func (s *Store) throttle(ctx context.Context, backendURL string, hints Hints) error {
	patience := time.NewTimer(s.options.Throttle)
	defer patience.Stop()
	for {
		if v := s.options.Session.View(); v == nil || v.Mode(backendURL) != serving.Draining {
			s.mu.Lock()
			s.of(backendURL).pace = pace{}
			s.mu.Unlock()
			return nil
		}
		replayed, added, err := s.progress(ctx, backendURL, hints)
		if err != nil || 2*added <= replayed+burst {
			return nil // what can't be measured is not held up
		}
		tick := time.NewTimer(paceEvery)
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-patience.C:
			tick.Stop()
			return &LimitError{
				Backend: backendURL, Bound: BoundRate,
				Value: fmt.Sprintf("%d hints were added while %d were replayed", added, replayed), Limit: "half",
			}
		}
	}
}

// progress is how many messages were replayed and added since draining was seen.
func (s *Store) progress(ctx context.Context, backendURL string, hints Hints) (replayed, added uint64, err error) {
	state, err := hints.State(ctx)
	if err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.of(backendURL)
	if p := &k.pace; !p.counting || state.First < p.first || state.Messages <= pacedFrom {
		*p = pace{counting: true, first: state.First, next: state.Next}
	}
	return max(state.First, k.pace.first) - k.pace.first, max(state.Next, k.pace.next) - k.pace.next, nil
}
