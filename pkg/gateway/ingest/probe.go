package ingest

import (
	"context"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// What a server would say to a write that stores nothing, only a server knows. It
// is asked with an empty one.

// absences remembers for a moment what no backend has, so that clients that write
// to it don't make everybody be asked each time.
type absences struct {
	mu   sync.Mutex
	seen map[absence]time.Time
}

type absence struct{ db, rp string }

const (
	absenceLasts  = time.Second
	mostAbsences  = 1024
	probesTimeout = 5 * time.Second
)

func (a *absences) add(k absence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil || len(a.seen) >= mostAbsences {
		a.seen = map[absence]time.Time{}
	}
	a.seen[k] = time.Now()
}

func (a *absences) has(k absence) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.seen[k]
	return ok && time.Since(at) < absenceLasts
}

// elsewhere reports whether a backend other than one has a database, and the
// retention policy in it.
func (g *Ingest) elsewhere(ctx context.Context, db, rp, but string) bool {
	if g.absent.has(absence{db, rp}) {
		return false
	}
	for reply := range g.ask(ctx, db, rp, but) {
		if reply.Stored() {
			return true
		}
	}
	if ctx.Err() == nil {
		g.absent.add(absence{db, rp})
	}
	return false
}

// ask sends an empty write to one backend after another, as long as it is asked to
// go on, and gives the answers of those that have one.
func (g *Ingest) ask(ctx context.Context, db, rp, but string) func(yield func(influx.Reply) bool) {
	return func(yield func(influx.Reply) bool) {
		v := g.options.Session.View()
		all := v.Backends()
		for i := range all {
			if all[i].URL == but || !v.Mode(all[i].URL).Sends() {
				continue
			}
			reply, err := g.probe(ctx, &all[i], db, rp)
			if err == nil && !yield(reply) {
				return
			}
		}
	}
}

func (g *Ingest) probe(ctx context.Context, of *topology.Backend, db, rp string) (influx.Reply, error) {
	poster, err := g.poster(g.backend(of.URL), of, g.options.Session.Tenure())
	if err != nil {
		return influx.Reply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(probesTimeout, g.options.WriteTimeout))
	defer cancel()
	return poster.Post(ctx, db, rp, nil, false)
}

// empty is what a server says to a write without points: nil if it would store
// them. A backend that has what is asked for outweighs those that don't.
func (g *Ingest) empty(ctx context.Context, db, rp string) error {
	var said *Refusal
	for reply := range g.ask(ctx, db, rp, "") {
		o := judged(reply)
		if o.state == stored {
			return nil
		}
		if said == nil && o.state == refused {
			said = o.refusal()
		}
	}
	if said == nil {
		return unavailable("no backend can be asked whether the database exists")
	}
	return said
}

// first is what a server says first, if a database is not there: that; otherwise
// what it says next.
func (g *Ingest) first(ctx context.Context, db string, next *Refusal) error {
	if said, ok := g.empty(ctx, db, "").(*Refusal); ok && said.absent { //nolint:errorlint // made right there
		return said
	}
	return next
}
