package influx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
)

// cutter is a TCP proxy that closes each connection after it has passed on some
// bytes of the answers.
type cutter struct {
	target string
	limit  atomic.Int64 // of bytes; negative: none
	passed atomic.Int64 // by all connections so far
	ln     net.Listener
	wg     sync.WaitGroup
}

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &cutter{target: strings.TrimPrefix(target, "http://"), ln: ln}
	p.limit.Store(-1)
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		ln.Close()
		p.wg.Wait()
	})
	return p
}

func (p *cutter) url() string { return "http://" + p.ln.Addr().String() }

func (p *cutter) serve() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.pass(in) })
	}
}

func (p *cutter) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer out.Close()
	p.wg.Go(func() {
		_, _ = io.Copy(out, in)
		out.Close()
	})
	var answer io.Reader = out
	if limit := p.limit.Load(); limit >= 0 {
		answer = io.LimitReader(out, limit)
	}
	n, _ := io.Copy(in, answer)
	p.passed.Add(n)
}

// An answer that is cut anywhere is never taken for a whole one.
func TestCutAnswersAreNeverComplete(t *testing.T) {
	t.Parallel()
	s, direct := start(t)
	database(t, direct, "d", "m,t=a v=1i 1", "m,t=b v=2i 2", `n s="text" 3`)
	sels := []influx.Selection{everything("d", "autogen", "m"), everything("d", "autogen", "none"), everything("d", "autogen", "n")}
	p := newCutter(t, s.URL())

	whole := func(limit int64) (rows int, err error) {
		p.limit.Store(limit)
		// A client of its own: one request on one connection.
		c, err := influx.New(influx.Endpoint{URL: p.url()}, influx.Options{Timeout: 5 * time.Second})
		require.NoError(t, err)
		defer c.Close()
		got, err := tryRead(t, c, sels...)
		return len(got), err
	}
	p.limit.Store(-1)
	rows, err := whole(-1)
	require.NoError(t, err)
	require.Equal(t, 3, rows)
	require.Eventually(t, func() bool { return p.passed.Load() > 0 }, 5*time.Second, time.Millisecond)
	size := p.passed.Load()
	for cut := range size {
		_, err := whole(cut)
		require.Error(t, err, "an answer of %d bytes was cut after %d", size, cut)
		require.True(t, influx.IsTransient(err), "%v", err)
	}
	_, err = whole(size)
	require.NoError(t, err)
}

// fake is a server made of a handler.
func fake(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestRefusalsSayWhenToComeBack(t *testing.T) {
	t.Parallel()
	date := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		status int
		header string
		class  influx.Class
		after  time.Duration
	}{
		"429":             {429, "3", influx.Transient, 3 * time.Second},
		"503":             {503, "", influx.Transient, 0},
		"503 with a date": {503, date.Add(90 * time.Second).Format(http.TimeFormat), influx.Transient, 90 * time.Second},
		"an old date":     {503, date.Add(-time.Hour).Format(http.TimeFormat), influx.Transient, 0},
		"too long":        {503, "99999999999", influx.Transient, time.Hour},
		"negative":        {503, "-5", influx.Transient, 0},
		"nonsense":        {503, "soon", influx.Transient, 0},
		"500":             {500, "", influx.Transient, 0},
		"502":             {502, "", influx.Transient, 0},
		"408":             {408, "", influx.Transient, 0},
		"400":             {400, "", influx.Permanent, 0},
		"302":             {302, "", influx.Permanent, 0},
		"501":             {501, "", influx.Permanent, 0},
		"200":             {200, "", influx.Permanent, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fake(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", date.Format(http.TimeFormat))
				w.Header().Set("Location", "http://127.0.0.1:1/")
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, "<html>words</html>")
			})
			cl := client(t, s.URL, influx.Options{})
			e := requireError(t, cl.Write(t.Context(), "d", "rp", []byte("m v=1 1\n")), c.class, c.status)
			require.Equal(t, c.after, e.RetryAfter)
			require.Contains(t, e.Message, "words")
			require.Equal(t, s.URL, e.Server())
			_, err := cl.Databases(t.Context())
			require.Equal(t, c.class == influx.Transient, influx.IsTransient(err), "%v", err)
		})
	}
}

// A server that is silent breaks the request after the timeout, however much it
// said before; one that goes on talking does not, however long that takes.
func TestSilenceBreaksARequest(t *testing.T) {
	t.Parallel()
	const timeout = 150 * time.Millisecond
	chunk := "\x81\xa7results\x91\x82\xacstatement_id\x00\xa6series\x91\x83\xa4name\xa1m\xa7columns\x92\xa4time\xa1v\xa6values\x9a"
	row := "\x92\x01\x02"
	for name, talk := range map[string]func(w http.ResponseWriter, gone <-chan struct{}){
		"nothing": func(_ http.ResponseWriter, gone <-chan struct{}) { <-gone },
		"a head":  func(w http.ResponseWriter, gone <-chan struct{}) { w.(http.Flusher).Flush(); <-gone },
		"half an answer": func(w http.ResponseWriter, gone <-chan struct{}) {
			_, _ = io.WriteString(w, chunk+row)
			w.(http.Flusher).Flush()
			<-gone
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			s := fake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/x-msgpack")
				talk(w, gone)
			})
			defer close(gone)
			c := client(t, s.URL, influx.Options{Timeout: timeout})
			_, err := tryRead(t, c, everything("d", "rp", "m"))
			e := requireError(t, err, influx.Transient, 0)
			require.Contains(t, e.Message, "no byte came or went for 150ms")
		})
	}
	t.Run("slowly", func(t *testing.T) {
		t.Parallel()
		s := fake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-msgpack")
			_, _ = io.WriteString(w, chunk)
			tick := time.NewTicker(timeout / 5)
			defer tick.Stop()
			for range 10 {
				_, _ = io.WriteString(w, row)
				w.(http.Flusher).Flush()
				<-tick.C
			}
		})
		c := client(t, s.URL, influx.Options{Timeout: timeout})
		rows, err := tryRead(t, c, everything("d", "rp", "m"))
		require.NoError(t, err)
		require.Len(t, rows, 10)
	})
	t.Run("a reader that takes its time", func(t *testing.T) {
		t.Parallel()
		s := fake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-msgpack")
			_, _ = io.WriteString(w, chunk+strings.Repeat(row, 10))
		})
		c := client(t, s.URL, influx.Options{Timeout: timeout})
		st, err := c.Read(t.Context(), []influx.Selection{everything("d", "rp", "m")})
		require.NoError(t, err)
		defer st.Close()
		require.True(t, st.Next())
		ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
		defer cancel()
		<-ctx.Done()
		for st.Next() {
		}
		require.NoError(t, st.Err())
	})
	t.Run("a write that nobody reads", func(t *testing.T) {
		t.Parallel()
		ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts by itself, and never reads
		require.NoError(t, err)
		defer ln.Close()
		c := client(t, "http://"+ln.Addr().String(), influx.Options{Timeout: timeout})
		err = c.Write(t.Context(), "d", "rp", make([]byte, 64<<20))
		requireError(t, err, influx.Transient, 0)
	})
}

func TestConnectionsThatCannotBeMadeAreTransient(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	ln.Close()
	c := client(t, "http://"+addr, influx.Options{})
	for _, f := range []func() error{
		func() error { return c.Write(t.Context(), "d", "rp", []byte("m v=1 1\n")) },
		func() error { _, err := c.Ping(t.Context()); return err },
		func() error { _, err := c.Databases(t.Context()); return err },
	} {
		e := requireError(t, f(), influx.Transient, 0)
		require.Contains(t, e.Error(), "refused")
		var op *net.OpError
		require.ErrorAs(t, e, &op)
	}
}

// The end of a context is not an error of the server.
func TestContextsEndRequests(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	gone := make(chan struct{})
	asked := make(chan struct{}, 2)
	s := fake(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-msgpack")
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		<-gone
	})
	defer close(gone)
	c := client(t, s.URL, influx.Options{})
	check := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, why)
		var e *influx.Error
		require.NotErrorAs(t, err, &e)
		require.False(t, influx.IsTransient(err))
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	st, err := c.Read(ctx, []influx.Selection{everything("d", "rp", "m")})
	require.NoError(t, err)
	defer st.Close()
	<-asked
	cancel(why)
	require.False(t, st.Next())
	check(st.Err())
	_, err = c.Read(ctx, []influx.Selection{everything("d", "rp", "m")})
	check(err)
	check(c.Write(ctx, "d", "rp", []byte("m v=1 1\n")))
}

// watched counts what a client has put into its connection, and says when it is
// closed.
type watched struct {
	*net.TCPConn

	written *atomic.Int64
	closed  chan<- struct{}
}

func (w *watched) Close() error {
	err := w.TCPConn.Close()
	w.closed <- struct{}{}
	return err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.TCPConn.Write(p)
	w.written.Add(int64(n))
	return n, err
}

// What was given up does not arrive later: the rest of a write that a partition
// holds up in the sender's kernel would otherwise reach the server when the
// partition heals, over whatever was written there since.
func TestWhatIsGivenUpDoesNotArriveLater(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()

	var written atomic.Int64
	closed := make(chan struct{}, 8)
	c := client(t, "http://"+ln.Addr().String(), influx.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tcp := nc.(*net.TCPConn)
		return &watched{TCPConn: tcp, written: &written, closed: closed}, tcp.SetWriteBuffer(1 << 20)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const size = 128 << 10
	given := make(chan error, 1)
	go func() { given <- c.Write(ctx, "d", "rp", make([]byte, size)) }()

	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close()
	require.NoError(t, server.(*net.TCPConn).SetReadBuffer(4<<10))
	require.Eventually(t, func() bool { return written.Load() > size }, 10*time.Second, time.Millisecond,
		"the whole request is in the sender's kernel")
	cancel()
	require.ErrorIs(t, <-given, context.Canceled)
	<-closed

	arrived, err := io.Copy(io.Discard, server)
	require.Error(t, err, "the connection ended as if the request were whole")
	require.Less(t, arrived, int64(size), "the request arrived after it had been given up")
}

// An answer that is not whole, whatever is missing, is an error.
func TestIncompleteAnswers(t *testing.T) {
	t.Parallel()
	result := func(id, tail string) string {
		return "\x81\xa7results\x91" + tail[:1] + "\xacstatement_id" + id + tail[1:]
	}
	empty := "\x82\xa6series\x90"
	partial := "\x83\xa6series\x90\xa7partial\xc3"
	for name, body := range map[string]string{
		"nothing":                   "",
		"one of two statements":     result("\x00", empty),
		"an announced rest":         result("\x00", empty) + result("\x01", partial),
		"the rest of another":       result("\x00", partial) + result("\x01", empty),
		"one twice":                 result("\x00", empty) + result("\x00", empty),
		"one too many":              result("\x00", empty) + result("\x01", empty) + result("\x02", empty),
		"half a chunk":              result("\x00", empty) + result("\x01", empty)[:20],
		"something after it":        result("\x00", empty) + result("\x01", empty) + "\x01",
		"text":                      "internal server error\n",
		"text after half of it":     result("\x00", empty) + "oops",
		"an unknown value":          result("\x00", "\x82\xa6series\x91\x83\xa4name\xa1m\xa7columns\x91\xa4time\xa6values\x91\x91\xc4\x00"),
		"more values than columns":  result("\x00", "\x82\xa6series\x91\x83\xa4name\xa1m\xa7columns\x91\xa4time\xa6values\x91\x92\x01\x02"),
		"values without columns":    result("\x00", "\x82\xa6series\x91\x82\xa4name\xa1m\xa6values\x91\x91\x01"),
		"a series without values":   result("\x00", "\x82\xa6series\x91\x82\xa4name\xa1m\xa7columns\x91\xa4time"),
		"no columns":                result("\x00", "\x82\xa6series\x91\x83\xa4name\xa1m\xa7columns\x90\xa6values\x90"),
		"a series that is not gone": result("\x00", "\x83\xa6series\x91\x84\xa4name\xa1m\xa7columns\x91\xa4time\xa6values\x90\xa7partial\xc3\xa7partial\xc3") + result("\x00", empty) + result("\x01", empty),
		"a string of 4 GB":          result("\x00", "\x82\xa6series\x91\x83\xa4name\xdb\xff\xff\xff\xff"),
		"4 billion columns":         result("\x00", "\x82\xa6series\x91\x83\xa4name\xa1m\xa7columns\xdd\xff\xff\xff\xff"),
		"4 billion tags":            result("\x00", "\x82\xa6series\x91\x84\xa4name\xa1m\xa4tags\xdf\xff\xff\xff\xff"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fake(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-msgpack")
				_, _ = io.WriteString(w, body)
			})
			c := client(t, s.URL, influx.Options{})
			rows, err := tryRead(t, c, everything("d", "rp", "m"), everything("d", "rp", "m"))
			require.Empty(t, rows)
			require.True(t, influx.IsTransient(err), "%v", err)
			require.ErrorContains(t, err, s.URL)
		})
	}
}

func TestWhatIsNoInfluxDBIsTold(t *testing.T) {
	t.Parallel()
	s := fake(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	_, err := client(t, s.URL, influx.Options{}).Databases(t.Context())
	e := requireError(t, err, influx.Permanent, 200)
	require.Contains(t, e.Message, "not msgpack")
}

// A server that has gone and come back in the meantime is no error for the next
// request, though the connections to it are broken.
func TestRestartBetweenRequests(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	database(t, c, "d", "m v=1i 1")
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 1)
	s.Kill()
	s.Restart()
	require.NoError(t, c.Write(t.Context(), "d", "autogen", []byte("m v=2i 2\n")))
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 2)
}
