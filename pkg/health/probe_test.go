package health_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/health"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
)

// whole is a topology of one circle.
type whole struct {
	atomic.Pointer[topology.Topology]
}

func (w *whole) Current() *topology.Topology { return w.Load() }

const sealContext = "test"

// cluster is a sealed topology of one circle, and what opens it.
func cluster(t *testing.T, databases []string, backends ...topology.Backend) (*whole, *secrets.Keyring) {
	t.Helper()
	keys, err := secrets.OpenOrCreate(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	sealed, err := (&topology.Topology{
		Epoch: 1, Circles: []topology.Circle{{Backends: backends}}, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256, Databases: databases,
	}).Seal(keys, sealContext)
	require.NoError(t, err)
	w := &whole{}
	w.Store(sealed)
	return w, keys
}

// probing runs a prober that writes often.
func probing(t *testing.T, w *whole, keys *secrets.Keyring, l *log) *health.Prober {
	t.Helper()
	p := health.New(w, health.Options{
		Every: 10 * time.Millisecond, WriteEvery: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(l, nil)),
		Clients: health.NewClients(keys, sealContext, influx.Options{Timeout: time.Second}),
	})
	runs(t, p.Run)
	return p
}

// broken stands before a server and answers what it is told to.
type broken struct {
	*httptest.Server

	handler atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func (b *broken) handle(h func(w http.ResponseWriter, r *http.Request) bool) { b.handler.Store(&h) }

// before returns what stands before a server and forwards everything at first.
func before(t *testing.T, s *influxtest.Server) *broken {
	t.Helper()
	target, err := url.Parse(s.URL())
	require.NoError(t, err)
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	b := &broken{}
	b.handle(func(http.ResponseWriter, *http.Request) bool { return false })
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (*b.handler.Load())(w, r) {
			return
		}
		// Read whole: a server that answers closes what is left of a body, and a
		// transport that still reads it takes that for an error.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { b.Close(); transport.CloseIdleConnections() })
	return b
}

// writes answers writes with a status and an error's words.
func writes(status int, words string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/write" {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if words != "" {
			http.Error(w, `{"error":"`+words+`"}`, status)
		} else {
			w.WriteHeader(status)
		}
		return true
	}
}

func stored(s health.Status) bool { return s.Active && s.Writes == health.WritesStored }
func failed(s health.Status) bool { return s.Active && s.Writes == health.WritesFailed }
func noted(s health.Status) bool  { return s.Active && s.Note != "" }

func TestAPointIsWrittenAndReadBack(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	server.Exec(`CREATE DATABASE theirs`)
	w, keys := cluster(t, nil, topology.Backend{Name: "a", URL: server.URL()})
	p := probing(t, w, keys, &log{})
	s := eventually(t, p, server.URL(), stored)
	require.True(t, s.Healthy())
	require.Empty(t, s.Error+s.Note)
	require.False(t, s.WroteAt.IsZero())

	// What it leaves there lives for an hour and is nobody's data.
	policies := server.Query(`SHOW RETENTION POLICIES ON "` + influx.ProbeDatabase + `"`)[0].Series[0].Values
	require.Len(t, policies, 1)
	require.Equal(t, "1h0m0s", policies[0][1])
	c, err := influx.New(influx.Endpoint{URL: server.URL()}, influx.Options{})
	require.NoError(t, err)
	defer c.Close()
	databases, err := c.Databases(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"theirs"}, databases)
	groups, err := c.ShardGroups(t.Context())
	require.NoError(t, err)
	require.Empty(t, groups)

	// One that is dropped is made again.
	server.Exec(`DROP DATABASE "` + influx.ProbeDatabase + `"`)
	at := time.Now()
	eventually(t, p, server.URL(), func(s health.Status) bool { return stored(s) && s.WroteAt.After(at) })
}

func TestWhatKeepsABackendFromStoring(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	for _, c := range []struct {
		name, says string
		fault      func(http.ResponseWriter, *http.Request) bool
	}{
		{"full disk", "its disk is full", writes(500, "engine: error writing WAL entry: write /var/lib/influxdb/wal/_00001.wal: no space left on device")},
		{"full disk while the database is made", "its disk is full", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/query" {
				return false
			}
			http.Error(w, `{"error":"open /var/lib/influxdb/meta/meta.dbtmp: no space left on device"}`, http.StatusInternalServerError)
			return true
		}},
		{"read-only disk", "it is read-only", writes(500, "engine: error opening segment: read-only file system")},
		{"read-only server", "it is read-only", writes(403, "this server is read-only")},
		{"forgets", "cannot be read back", writes(204, "")},
		{"overloaded", "503", writes(503, "request throttled, exceeds concurrency")},
		{"hangs", "no byte came or went", func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/write" {
				return false
			}
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, l := before(t, server), &log{}
			b.handle(c.fault)
			w, keys := cluster(t, nil, topology.Backend{Name: "a", URL: b.URL})
			p := probing(t, w, keys, l)
			s := eventually(t, p, b.URL, failed)
			require.Contains(t, s.Error, c.says)
			require.False(t, s.Healthy())
			require.Empty(t, s.Note)
			require.Eventually(t, func() bool { return l.lines() == 2 }, 10*time.Second, time.Millisecond,
				"one line when it answers, one when it turns out not to store")

			b.handle(func(http.ResponseWriter, *http.Request) bool { return false })
			s = eventually(t, p, b.URL, stored)
			require.Empty(t, s.Error)
			require.Equal(t, 3, l.lines(), "a change is told once")
		})
	}
}

// A backend that is gone and comes back is not what it was before.
func TestAfterAnOutageNothingIsKnownOfWrites(t *testing.T) {
	t.Parallel()
	b := before(t, influxtest.Start(t))
	b.handle(writes(500, "no space left on device"))
	w, keys := cluster(t, nil, topology.Backend{Name: "a", URL: b.URL})
	p := probing(t, w, keys, &log{})
	eventually(t, p, b.URL, failed)
	b.handle(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, `{"error":"starting"}`, http.StatusServiceUnavailable)
		return true
	})
	s := eventually(t, p, b.URL, func(s health.Status) bool { return !s.Active })
	require.Equal(t, health.WritesUnknown, s.Writes)
	require.Contains(t, s.Error, "starting")
	b.handle(func(http.ResponseWriter, *http.Request) bool { return false })
	require.Empty(t, eventually(t, p, b.URL, stored).Error)
}

func TestABackendThatMayNotBeWrittenToIsOnlyPinged(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t, influxtest.WithAuth())
	server.Exec(`CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES`)
	exec := func(q string) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.PostForm(server.URL()+"/query?u=admin&p=secret", url.Values{"q": {q}})
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
	exec(`CREATE USER "read-only" WITH PASSWORD 'secret'`)
	for _, c := range []struct {
		name      string
		user      string
		password  string
		databases []string
		says      string
	}{
		{"an account that may not", "read-only", "secret", nil, "does not let this account"},
		{"a wrong password", "admin", "wrong", nil, "does not let this account"},
		{"no account", "", "", nil, "does not let this account"},
		{"an allow-list", "admin", "secret", []string{"users"}, "db_list does not allow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, keys := cluster(t, c.databases, topology.Backend{
				Name: "a", URL: server.URL(), Credentials: topology.Credentials{Username: c.user, Password: c.password},
			})
			s := eventually(t, probing(t, w, keys, &log{}), server.URL(), noted)
			require.True(t, s.Healthy())
			require.Equal(t, health.WritesUnknown, s.Writes)
			require.Contains(t, s.Note, c.says)
			require.Empty(t, s.Error)
			require.NotContains(t, s.Note, "wrong")
		})
	}

	// With the right ones it is written to, as soon as the record has them.
	w, keys := cluster(t, []string{"users", influx.ProbeDatabase}, topology.Backend{Name: "a", URL: server.URL()})
	l := &log{}
	p := probing(t, w, keys, l)
	eventually(t, p, server.URL(), noted)
	opened := w.Load().Clone()
	opened.Circles[0].Backends[0].Credentials = topology.Credentials{Username: "admin", Password: "secret"}
	revised, err := opened.Seal(keys, sealContext)
	require.NoError(t, err)
	w.Store(revised)
	eventually(t, p, server.URL(), stored)
	require.NotContains(t, l.text(), "secret")
	require.NotContains(t, l.text(), "WARN")
}
