package ingest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ringmaster/pkg/lineproto"
)

// A request that is refused together with others costs all of them several turns.
// So what is expected to be refused travels beside the others, alone: requests that
// bring a field in a type that was refused lately, whoever sends them, and clients
// that were refused for another reason.

const (
	// A watch, and a client's quarantine, last that long after the last refusal.
	quarantineLasts = 2 * time.Minute
	// cleanRun of accepted requests end a client's quarantine earlier: what clients
	// share a connection would all be slow otherwise.
	cleanRun = 16
	// What is remembered at most.
	mostWatched  = 4096
	mostFields   = 64
	mostBanished = 4096
)

// conflicts knows what was refused lately.
type conflicts struct {
	any atomic.Bool // some client is in quarantine

	mu       sync.Mutex
	watched  map[watched]*watch
	banished map[string]*sentence
}

type watched struct{ db, measurement string }

// watch knows the fields of a measurement that were refused in a type.
type watch struct {
	wrong atomic.Pointer[[]wrong]
}

// wrong is a type that a field does not have.
type wrong struct {
	rp, field string
	kind      lineproto.Kind
	until     time.Time
}

// sentence is a client's quarantine.
type sentence struct {
	until time.Time
	clean int
}

// of returns the watch on a measurement, nil if there is none.
func (c *conflicts) of(db, measurement string) *watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched[watched{db, measurement}]
}

// expects reports whether a line brings a field in a type that was refused. key is
// the length of its measurement and tags.
func (w *watch) expects(rp string, line []byte, key int) bool {
	all := w.wrong.Load()
	if all == nil {
		return false
	}
	found := false
	eachField(line[min(key, len(line)):], func(name string, kind lineproto.Kind) bool {
		for i := range *all {
			if f := &(*all)[i]; f.kind == kind && f.field == name && f.rp == rp {
				found = time.Now().Before(f.until)
				return false
			}
		}
		return true
	})
	return found
}

// quarantined reports whether a client's requests travel beside the others.
func (c *conflicts) quarantined(client string) bool {
	if client == "" || !c.any.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.banished[client]
	if s == nil {
		return false
	}
	if s.clean++; s.clean <= cleanRun && time.Now().Before(s.until) {
		return true
	}
	delete(c.banished, client)
	c.any.Store(len(c.banished) > 0)
	return false
}

// learn remembers why parts of a request were refused.
func (c *conflicts) learn(client string, parts []*part, r *router) {
	for _, p := range parts {
		o := &p.outcome
		switch {
		case o.means != invalid && o.means != expired && o.means != conflict:
			// It holds for the whole lane, or hurts nobody.
		case c.watch(p, r):
		default:
			c.banish(client)
		}
	}
}

func (c *conflicts) banish(client string) {
	if client == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.banished == nil || len(c.banished) >= mostBanished {
		c.banished = map[string]*sentence{}
	}
	c.banished[client] = &sentence{until: time.Now().Add(quarantineLasts)}
	c.any.Store(true)
}

// watch puts a watch on the field that a refusal names; false if it names none.
func (c *conflicts) watch(p *part, r *router) bool {
	var key watched
	var field wrong
	s := &p.write.scanner
	for s.Reset(p.lines.data, lineproto.Nanoseconds, 0); s.Next() && field.field == ""; {
		name := string(s.Measurement())
		eachField(s.AppendLine(nil)[len(s.Key()):], func(f string, kind lineproto.Kind) bool {
			if strings.HasPrefix(p.outcome.detail, fmt.Sprintf("%s: input field \"%s\" on measurement \"%s\" is type %s, ", conflictPrefix, f, name, kind)) {
				key, field = watched{p.write.db, name}, wrong{rp: p.write.rp, field: f, kind: kind}
				return false
			}
			return true
		})
	}
	if field.field == "" {
		return false
	}
	field.until = time.Now().Add(quarantineLasts)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched[key]
	if w == nil {
		if c.watched == nil || len(c.watched) >= mostWatched {
			c.watched = map[watched]*watch{}
		}
		w = &watch{}
		c.watched[key] = w
	}
	all := []wrong{field}
	if old := w.wrong.Load(); old != nil {
		for _, f := range *old {
			if len(all) < mostFields && time.Now().Before(f.until) && (f.field != field.field || f.kind != field.kind || f.rp != field.rp) {
				all = append(all, f)
			}
		}
	}
	w.wrong.Store(&all)
	if r != nil {
		r.watch(key.db, key.measurement, w)
	}
	return true
}

// eachField calls f with the fields of a line that can be read, given without its
// measurement and tags, until f returns false.
func eachField(text []byte, f func(name string, kind lineproto.Kind) bool) {
	i := 0
	for i < len(text) && text[i] == ' ' {
		i++
	}
	for i < len(text) {
		from := i
		for i < len(text) && text[i] != '=' {
			if text[i] == '\\' {
				i++
			}
			i++
		}
		if i+1 >= len(text) {
			return
		}
		name := unescaped(text[from:i])
		i++
		value := i
		if text[i] == '"' {
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i = min(i+1, len(text))
		}
		for i < len(text) && text[i] != ',' && text[i] != ' ' && text[i] != '\n' {
			i++
		}
		if !f(name, kindOf(text[value:i])) || i == len(text) || text[i] != ',' {
			return
		}
		i++
	}
}

func unescaped(name []byte) string {
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+1 < len(name) && strings.IndexByte(`," =`, name[i+1]) >= 0 {
			i++
		}
		out = append(out, name[i])
	}
	return string(out)
}

// kindOf is the type of a value by its form.
func kindOf(value []byte) lineproto.Kind {
	switch {
	case len(value) == 0:
		return lineproto.Null
	case value[0] == '"':
		return lineproto.String
	case strings.IndexByte("tTfF", value[0]) >= 0:
		return lineproto.Boolean
	}
	switch value[len(value)-1] {
	case 'i':
		return lineproto.Integer
	case 'u':
		return lineproto.Unsigned
	default:
		return lineproto.Float
	}
}
