package ingest

import (
	"maps"
	"sync"
	"sync/atomic"

	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// target is a backend that has to get lines for one circle. A backend whose lines
// are another's too, as the new owner's in a transition, has them in a part of
// their own, since one server would not have counted them twice.
type target struct {
	slot      int // of a request's part
	circle    int
	secondary bool
	url       string
	of        *topology.Backend
	backend   *backend
	noted     bool // its circle is being copied
}

// owners are the targets of a measurement.
type owners struct {
	targets []*target
	// watch is set for a measurement with a conflict that is known.
	watch *watch
}

// router knows the owners of every measurement under one view.
type router struct {
	view   *serving.View
	holds  bool
	ingest *Ingest

	databases atomic.Pointer[map[string]*measurements]

	mu      sync.Mutex
	targets map[targetKey]*target
	sets    map[string]*owners // by the slots of their targets
	entries int
}

type targetKey struct {
	url       string
	circle    int
	secondary bool
}

// measurements are the owners of a database's measurements. read is never changed;
// what is new lies in fresh until it is worth a new map.
type measurements struct {
	read atomic.Pointer[map[string]*owners]

	mu    sync.Mutex
	fresh map[string]*owners
}

// mostEntries and mostDatabases bound what a router remembers: clients choose the
// names.
const (
	mostEntries   = 1 << 18
	mostDatabases = 1 << 12
)

// routerOf returns the router of a view.
func (g *Ingest) routerOf(v *serving.View) *router {
	now := g.router.Load()
	if now != nil && now.view == v {
		return now
	}
	r := &router{view: v, holds: v.Holds(), ingest: g, targets: map[targetKey]*target{}, sets: map[string]*owners{}}
	r.databases.Store(&map[string]*measurements{})
	if now == nil || now.view.Revision < v.Revision {
		if g.router.CompareAndSwap(now, r) {
			g.mu.Lock()
			g.forget(v)
			g.mu.Unlock()
		}
	}
	return r
}

// database returns what is known of a database, nil if nothing can be remembered.
func (r *router) database(db string) *measurements {
	if m := (*r.databases.Load())[db]; m != nil {
		return m
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := *r.databases.Load()
	if m := was[db]; m != nil || len(was) >= mostDatabases {
		return m
	}
	next := maps.Clone(was)
	m := &measurements{fresh: map[string]*owners{}}
	m.read.Store(&map[string]*owners{})
	next[db] = m
	r.databases.Store(&next)
	return m
}

// owners returns the targets of a measurement's lines.
func (r *router) owners(m *measurements, db string, name []byte) *owners {
	if m == nil {
		return r.resolve(db, string(name))
	}
	if o := (*m.read.Load())[string(name)]; o != nil {
		return o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := (*m.read.Load())[string(name)]; o != nil {
		return o
	}
	if o := m.fresh[string(name)]; o != nil {
		return o
	}
	key := string(name)
	o := r.resolve(db, key)
	if !r.counts() {
		return o
	}
	m.fresh[key] = o
	// A map of twice the size now and then: each name is copied a few times in all.
	if read := *m.read.Load(); len(m.fresh) > 16+len(read)/2 {
		m.merge(read)
	}
	return o
}

// merge makes a new map of both; mu is held.
func (m *measurements) merge(read map[string]*owners) {
	next := make(map[string]*owners, len(read)+len(m.fresh))
	maps.Copy(next, read)
	maps.Copy(next, m.fresh)
	m.read.Store(&next)
	clear(m.fresh)
}

// watch puts a watch on a measurement, or takes it away. It is rare.
func (r *router) watch(db, name string, w *watch) {
	m := (*r.databases.Load())[db]
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	read := *m.read.Load()
	o := read[name]
	if o == nil {
		o = m.fresh[name]
	}
	if o == nil {
		return // it is looked up when the measurement is
	}
	m.fresh[name] = &owners{targets: o.targets, watch: w}
	m.merge(read)
}

// counts reports whether one more entry may be remembered.
func (r *router) counts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries >= mostEntries {
		return false
	}
	r.entries++
	return true
}

// resolve asks the view. Measurements with the same targets share them.
func (r *router) resolve(db, name string) *owners {
	var room [8]serving.Target
	writers := r.view.Writers(room[:0], db, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	var slots [8]byte
	key := slots[:0]
	var targets []*target
	for i, w := range writers {
		if w.Backend == nil {
			continue // a circle without backends
		}
		t := r.target(w, i > 0 && writers[i-1].Circle == w.Circle)
		targets = append(targets, t)
		key = append(key, byte(t.slot), byte(t.slot>>8))
	}
	o := r.sets[string(key)]
	if o == nil {
		o = &owners{targets: targets}
		r.sets[string(key)] = o
	}
	if watch := r.ingest.known.of(db, name); watch != nil {
		return &owners{targets: o.targets, watch: watch}
	}
	return o
}

// target returns the target for a writer; mu is held.
func (r *router) target(w serving.Target, secondary bool) *target {
	key := targetKey{w.Backend.URL, w.Circle, secondary}
	t := r.targets[key]
	if t == nil {
		t = &target{
			slot: len(r.targets), circle: w.Circle, secondary: secondary, url: w.Backend.URL, of: w.Backend,
			backend: r.ingest.backend(w.Backend.URL), noted: len(r.view.Noting(w.Circle)) > 0,
		}
		r.targets[key] = t
	}
	return t
}
