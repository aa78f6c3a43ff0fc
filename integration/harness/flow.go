package harness

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// Flow counts the points that a backend behind a proxy has stored, with the time of
// each batch. Values must not have line breaks, and bodies must not be compressed. The
// zero Flow is ready.
type Flow struct {
	mu      sync.Mutex
	batches []batchStored
	// writing is how many writes are under way, most how many were at one time.
	writing, most int
}

type batchStored struct {
	at     time.Time
	points int
}

// Through counts what goes through a proxy.
func (f *Flow) Through(p *Proxy) {
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if IsWrite(r) {
			defer f.Begin(r)()
		}
		p.Forward(w, r)
	})
}

// Begin reads a write, which can be forwarded then, and returns what is to be called
// when it has been stored.
func (f *Flow) Begin(r *http.Request) (done func()) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		Hangup()
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writing++
	f.most = max(f.most, f.writing)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.writing--
		f.batches = append(f.batches, batchStored{time.Now(), bytes.Count(body, []byte{'\n'})})
	}
}

// Between counts the points stored in a time.
func (f *Flow) Between(from, to time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, b := range f.batches {
		if b.at.After(from) && !b.at.After(to) {
			n += b.points
		}
	}
	return n
}

// Total is how many points were stored so far.
func (f *Flow) Total() int { return f.Between(time.Time{}, time.Now()) }

// Most is how many writes were under way at one time.
func (f *Flow) Most() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

// Largest is the largest batch stored after a time.
func (f *Flow) Largest(after time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, b := range f.batches {
		if b.at.After(after) {
			n = max(n, b.points)
		}
	}
	return n
}

// Measure waits for a while and returns the points per second in it.
func (f *Flow) Measure(ctx context.Context, d time.Duration) (float64, error) {
	from := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case to := <-timer.C:
		return float64(f.Between(from, to)) / to.Sub(from).Seconds(), nil
	}
}
