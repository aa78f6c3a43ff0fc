package pace

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

const (
	// worthShowing is how much of a second has to be waited before it is shown: each
	// beginning and end of a wait is a change of the task's record.
	worthShowing = 250 * time.Millisecond
	// quiet is how long nothing may have been waited for until nothing is shown.
	quiet = 2 * time.Second
)

// sign shows what a task waits for, at most: several goroutines work for one task,
// and each waits often and shortly. It shows the wait that was met last, from when
// waiting has become a habit until it has ceased.
type sign struct {
	waiter Waiter
	now    func() time.Time

	mu sync.Mutex
	// since is when the waits began that go on now; waited is how much was waited
	// in the second that began at second.
	shown  bool
	gate   string
	since  time.Time
	second time.Time
	waited time.Duration
	last   time.Time
	// admitted is when something was last let through.
	admitted time.Time
}

// admittedStep is how exactly that is shown: what is shown is stored.
const admittedStep = 10 * time.Second

// admit takes note that something was let through.
func (s *sign) admit() {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted = now
}

// rest waits for d and shows what for, if it is worth it.
func (s *sign) rest(ctx context.Context, d time.Duration, began time.Time, w *operation.Wait) error {
	s.waiter.Alive()
	if show := s.met(d, began, w); show != nil {
		s.waiter.Wait(show)
	}
	return patience.Sleep(ctx, d)
}

// met takes note of a wait and returns what is to be shown, if anything is.
func (s *sign) met(d time.Duration, began time.Time, w *operation.Wait) *operation.Wait {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.Gate != s.gate || now.Sub(s.last) > quiet {
		s.gate, s.since, s.second, s.waited = w.Gate, began, now, 0
	}
	if now.Sub(s.second) >= time.Second {
		s.second, s.waited = now, s.waited/4
	}
	s.waited += d
	s.last = now.Add(d)
	if !s.shown && s.waited < worthShowing && now.Sub(began) < worthShowing {
		return nil
	}
	s.shown = true
	own := *w
	if w.Gate != "backoff" {
		own.Since = s.since.UTC()
	}
	if !s.admitted.IsZero() {
		own.AdmittedAt = s.admitted.UTC().Truncate(admittedStep)
	}
	return &own
}

// show shows a wait at once.
func (s *sign) show(w *operation.Wait) {
	s.mu.Lock()
	s.shown, s.gate, s.since, s.last = true, w.Gate, w.Since, s.now()
	s.mu.Unlock()
	s.waiter.Wait(w)
}

// settle shows nothing any more when nothing has been waited for lately.
func (s *sign) settle() {
	now := s.now()
	s.mu.Lock()
	over := s.shown && now.Sub(s.last) > quiet
	if over {
		s.shown = false
	}
	s.mu.Unlock()
	if over {
		s.waiter.Wait(nil)
	}
}

// wait is the limit as it is shown.
func (w *Why) wait() operation.Wait {
	if w == nil {
		return operation.Wait{Gate: "limit", Measured: "not granted yet", Limit: "a limit"}
	}
	whose := " for this backend"
	if w.OfOperation {
		whose = " for the operation"
	}
	if w.Unit == unitSlots {
		return operation.Wait{
			Gate: "slots", Backend: w.Backend, Measured: fmt.Sprintf("%d/%d used", w.Used, w.Limit),
			Limit: plural(w.Limit, "slot") + whose + " on this backend",
		}
	}
	return operation.Wait{
		Gate: "limit", Backend: w.Backend,
		Measured: perSecond(w.Used, w.Unit) + " granted to " + plural(int64(w.Passes), "task"),
		Limit:    perSecond(w.Limit, w.Unit) + whose,
	}
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

// perSecond writes a rate, its thousands apart.
func perSecond(n int64, u unit) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String() + " " + string(u) + "/s"
}
