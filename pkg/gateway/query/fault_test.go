package query_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// fault is what stands before a server: it hands everything on until it is told
// to break.
type fault struct {
	url string
	// cut breaks an answer to a query after so many bytes; 0 does not.
	cut atomic.Int64
	// hang keeps a query until its client goes away.
	hang    atomic.Bool
	hanging atomic.Int64
	queries atomic.Int64
}

func newFault(t *testing.T, server string) *fault {
	t.Helper()
	target, err := url.Parse(server)
	require.NoError(t, err)
	f := &fault{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{DisableCompression: true}
	proxy.Transport, proxy.FlushInterval = transport, -1
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	proxy.ModifyResponse = func(r *http.Response) error {
		if n := f.cut.Load(); n > 0 {
			r.Body = &cutBody{r.Body, n}
		}
		return nil
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// An answer that begins before the request has been read makes the proxy
		// break the connection.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if r.URL.Path == "/query" {
			f.queries.Add(1)
			if f.hang.Load() {
				f.hanging.Add(1)
				<-r.Context().Done()
				f.hanging.Add(-1)
				panic(http.ErrAbortHandler)
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

var errCut = errors.New("cut")

type cutBody struct {
	io.ReadCloser

	left int64
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errCut
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

func cancelled(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}
