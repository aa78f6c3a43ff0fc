package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Running is a request that is being answered.
type Running struct {
	ID uint64 `json:"id"`
	// Client is the address of who asks.
	Client   string    `json:"client"`
	Text     string    `json:"text"`
	Database string    `json:"database,omitempty"`
	Since    time.Time `json:"since"`
}

// maxShown bounds what is kept of a request's text.
const maxShown = 4 << 10

// errCancelled is the cause of a request's end by [Runner.Cancel].
var errCancelled = errors.New("query cancelled by an operator")

// registry is the requests that are being answered.
type registry struct {
	most int

	mu   sync.Mutex
	next uint64
	all  map[uint64]entry
}

type entry struct {
	Running

	cancel context.CancelCauseFunc
}

// enter begins a request. The error says that there are too many.
func (g *registry) enter(ctx context.Context, r Running) (context.Context, func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.all) >= g.most {
		return nil, nil, fmt.Errorf("%d queries are running, as many as are possible at a time: try again later", len(g.all))
	}
	if g.all == nil {
		g.all = map[uint64]entry{}
	}
	g.next++
	id := g.next
	r.ID = id
	if len(r.Text) > maxShown {
		r.Text = strings.ToValidUTF8(r.Text[:maxShown], "") + "…"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	g.all[id] = entry{r, cancel}
	return ctx, func() {
		cancel(nil)
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.all, id)
	}, nil
}

// Running lists the requests that are being answered, oldest first.
func (r *Runner) Running() []Running {
	r.running.mu.Lock()
	defer r.running.mu.Unlock()
	all := make([]Running, 0, len(r.running.all))
	for _, e := range r.running.all {
		all = append(all, e.Running)
	}
	slices.SortFunc(all, func(a, b Running) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// Cancel ends a request; false if there is none with this id.
func (r *Runner) Cancel(id uint64) bool {
	r.running.mu.Lock()
	defer r.running.mu.Unlock()
	e, ok := r.running.all[id]
	if ok {
		e.cancel(errCancelled)
	}
	return ok
}
