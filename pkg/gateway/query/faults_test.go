package query_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/serving"
)

const (
	single  = `SELECT v FROM m1 WHERE host = 'h1' LIMIT 3`
	several = `SELECT v, n FROM m0, m1, m2, m3, m4, m5, m6, m7 GROUP BY host`
)

// same asks the runner and the one server.
func (g *rig) same(q string, more ...string) {
	g.t.Helper()
	want := ask(g.t, g.one.URL(), http.MethodGet, url.Values{"q": {q}, "db": {"d"}})
	got := g.get(q, more...)
	require.NoError(g.t, got.err)
	require.Equal(g.t, want.body, got.body)
	require.Equal(g.t, want.status, got.status)
}

func TestReadsGoWhereTheDataIsComplete(t *testing.T) {
	g := newRig(t)
	load(g)
	lost := g.owner(0, "d", "m1")
	others := func() {
		t.Helper()
		before := g.faults[lost].queries.Load()
		for range 4 {
			g.same(single)
			g.same(several)
			g.same(`SHOW MEASUREMENTS`)
			g.same(`SELECT mean(v) FROM /m[0-9]/ GROUP BY host`)
		}
		require.Equal(t, before, g.faults[lost].queries.Load(), "nobody asks it")
	}
	for name, change := range map[string]struct{ set, reset func() }{
		"down":  {func() { g.health.set(lost, true) }, func() { g.health.set(lost, false) }},
		"hints": {func() { g.state(serving.State{Backlogs: []serving.Backlog{{Backend: lost, Mode: serving.Draining}}}) }, func() { g.state(serving.State{}) }},
		"incomplete circle": {
			func() { g.state(serving.State{Incomplete: []serving.Incomplete{{Circle: 0, Reason: "a clear"}}}) },
			func() { g.state(serving.State{}) },
		},
		"being filled": {
			func() {
				g.state(serving.State{Copies: []serving.Copy{{Operation: "op", Circles: []int{0, 1}, Fills: []int{0}}}})
			},
			func() { g.state(serving.State{}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			change.set()
			others()
			change.reset()
		})
	}
}

// Each measurement can be read somewhere, though no circle is complete.
func TestOwnersOfSeveralCirclesMakeOneAnswer(t *testing.T) {
	g := newRig(t)
	load(g)
	a := g.owner(0, "d", "m1")
	for _, b := range g.circles[1] {
		if b == g.owner(1, "d", "m1") {
			continue
		}
		g.health.set(a, true)
		g.health.set(b, true)
		g.same(several, "X-Test", "1")
		g.same(single)
		g.health.set(a, false)
		g.health.set(b, false)
		return
	}
}

func TestNoCompleteOwner(t *testing.T) {
	g := newRig(t)
	load(g)
	a, b := g.owner(0, "d", "m1"), g.owner(1, "d", "m1")
	g.state(serving.State{Backlogs: []serving.Backlog{{Backend: a, Mode: serving.Hinting}}})
	g.health.set(b, true)
	got := g.get(single)
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Contains(t, got.body, "circle circle-1: backend "+a+" has writes waiting for it (hinting)")
	require.Contains(t, got.body, "circle circle-2: backend "+b+" does not answer")

	stale := g.get(single, "X-Ringmaster-Stale", "allow")
	require.Equal(t, http.StatusOK, stale.status)
	require.Equal(t, "true", stale.header.Get(query.StaleHeader))
	require.Contains(t, stale.header.Get(query.MissingHeader), a)
	require.Equal(t, g.get2(single), stale.body)
	stale = g.get(several, "X-Ringmaster-Stale", "allow")
	require.Equal(t, "true", stale.header.Get(query.StaleHeader))
	require.Equal(t, g.get2(several), stale.body)
	require.Zero(t, g.session.open)
}

// get2 asks the one server.
func (g *rig) get2(q string) string {
	g.t.Helper()
	return ask(g.t, g.one.URL(), http.MethodGet, url.Values{"q": {q}, "db": {"d"}}).body
}

// A read that waits sees that an owner is complete again.
func TestReadsWait(t *testing.T) {
	g := newRig(t, func(o *query.Options) { o.Wait = time.Minute })
	load(g)
	g.state(serving.State{Incomplete: []serving.Incomplete{{Circle: 0, Reason: "x"}, {Circle: 1, Reason: "y"}}})
	answers := make(chan answered)
	go func() { answers <- g.get(single) }()
	require.Eventually(t, func() bool { return len(g.runner.Running()) == 1 }, 10*time.Second, time.Millisecond)
	g.state(serving.State{})
	require.Equal(t, g.get2(single), (<-answers).body)
}

// Nobody has noticed yet that a server is gone, or it breaks before it has said
// anything that was handed on.
func TestABackendThatBreaksIsReplaced(t *testing.T) {
	for name, brk := range map[string]func(g *rig, url string){
		"gone":      func(g *rig, url string) { g.servers[url].Kill() },
		"cut early": func(g *rig, url string) { g.faults[url].cut.Store(1) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			load(g)
			brk(g, g.owner(0, "d", "m1"))
			for range 6 {
				g.same(several)
				g.same(`SHOW SERIES`)
				if name == "gone" {
					g.same(single)
				}
			}
		})
	}
}

// An answer that has begun and can't be finished never looks whole.
func TestAnAnswerThatBreaksDoesNotLookWhole(t *testing.T) {
	g := newRig(t)
	load(g)
	var lines strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&lines, "m1,host=h1 v=%d,long=\"%s\" %d\n", i, strings.Repeat("x", 30), 1700000000000000000+int64(i)*1000)
	}
	g.write("d", "", lines.String())
	for _, b := range g.faults {
		b.cut.Store(200_000)
	}
	for _, q := range []string{`SELECT * FROM m1`, `SELECT * FROM m1, m2, m3, m4`} {
		for _, way := range [][]string{{}, {"chunked", "true"}, {"Accept", "application/csv"}, {"Accept", "application/x-msgpack", "chunked", "true"}, {"Accept-Encoding", "gzip"}} {
			got := g.get(q, way...)
			if got.err != nil {
				continue // the connection was broken
			}
			if got.status != http.StatusOK {
				require.Contains(t, got.body, "failed", "%s %v", q, way)
				continue
			}
			require.Contains(t, got.body, `"error":"backend `, "%s %v", q, way)
			for doc := range strings.Lines(got.body) {
				require.True(t, json.Valid([]byte(doc)), "%s %v: %.100s", q, way, doc)
			}
		}
	}
	require.Zero(t, g.session.open)
}

func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		bounds query.Bounds
		says   string
	}{
		"points": {query.Bounds{Rows: 100}, "more than 100 points"},
		"bytes":  {query.Bounds{Bytes: 1000}, "more than 1000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(o *query.Options) { o.Bounds = c.bounds })
			load(g)
			got := g.get(single)
			require.Equal(t, g.get2(single), got.body)
			for _, q := range []string{`SELECT * FROM m1`, several} {
				got := g.get(q, "chunked", "true", "chunk_size", "5")
				require.NoError(t, got.err)
				require.Contains(t, got.body, c.says)
				got = g.get(q)
				require.True(t, got.err != nil || strings.Contains(got.body, c.says), got.body)
			}
		})
	}
	t.Run("time", func(t *testing.T) {
		g := newRig(t, func(o *query.Options) { o.Bounds.Time = 10 * time.Millisecond })
		load(g)
		for _, f := range g.faults {
			f.hang.Store(true)
		}
		for _, q := range []string{single, several} {
			got := g.get(q)
			require.Equal(t, http.StatusOK, got.status)
			require.Contains(t, got.body, "it ran longer than 10ms")
		}
	})
}

func TestAClientThatGoesEndsItsQuery(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, f := range g.faults {
		f.hang.Store(true)
	}
	hanging := func() (n int64) {
		for _, at := range g.circles {
			for _, url := range at {
				n += g.faults[url].hanging.Load()
			}
		}
		return n
	}
	for _, q := range []string{single, several} {
		ctx, cancel := cancelled(t)
		ended := make(chan error)
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/query?"+url.Values{"db": {"d"}, "q": {q}}.Encode(), nil)
			if err == nil {
				var res *http.Response
				if res, err = http.DefaultTransport.RoundTrip(req); err == nil {
					res.Body.Close()
				}
			}
			ended <- err
		}()
		require.Eventually(t, func() bool { return hanging() > 0 }, 10*time.Second, time.Millisecond)
		require.Len(t, g.runner.Running(), 1)
		cancel()
		require.Error(t, <-ended)
		require.Eventually(t, func() bool { return hanging() == 0 && len(g.runner.Running()) == 0 }, 10*time.Second, time.Millisecond)
	}
}

func TestAnOperatorEndsAQuery(t *testing.T) {
	g := newRig(t)
	load(g)
	for _, f := range g.faults {
		f.hang.Store(true)
	}
	answers := make(chan answered)
	go func() { answers <- g.get(single) }()
	require.Eventually(t, func() bool { return len(g.runner.Running()) == 1 }, 10*time.Second, time.Millisecond)
	shown := g.runner.Running()[0]
	require.Equal(t, single, shown.Text)
	require.True(t, g.runner.Cancel(shown.ID))
	require.Contains(t, (<-answers).body, "query cancelled by an operator")
	require.False(t, g.runner.Cancel(shown.ID))
}

// A backend that hangs is given up when the prober has lost it.
func TestABackendThatHangsIsReplaced(t *testing.T) {
	g := newRig(t)
	load(g)
	at := g.owner(0, "d", "m1")
	g.faults[at].hang.Store(true)
	answers := make(chan answered, 4)
	for range 4 {
		go func() { answers <- g.get(single) }()
	}
	require.Eventually(t, func() bool { return g.faults[at].hanging.Load() > 0 }, 10*time.Second, time.Millisecond)
	g.health.set(at, true)
	for range 4 {
		require.Equal(t, g.get2(single), (<-answers).body)
	}
}
