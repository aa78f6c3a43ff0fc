package mover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// quietJob is a Job of which a batcher or a stream needs nothing.
type quietJob struct {
	Job
	alive atomic.Int64
}

func (j *quietJob) Alive()               { j.alive.Add(1) }
func (j *quietJob) Wait(*operation.Wait) {}
func (j *quietJob) Guard() error         { return nil }

// writes is a destination that takes batches as a test says.
type writes struct {
	mu     sync.Mutex
	bodies [][]byte
	answer func(n int, body []byte) (status int, text string, header http.Header)
}

func (d *writes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	d.mu.Lock()
	n := len(d.bodies)
	d.bodies = append(d.bodies, body)
	d.mu.Unlock()
	if d.answer != nil {
		if status, text, header := d.answer(n, body); status != 0 {
			for k := range header {
				w.Header().Set(k, header.Get(k))
			}
			http.Error(w, fmt.Sprintf(`{"error":%q}`, text), status)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// got is what has come so far.
func (d *writes) got() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.bodies)
}

// newTransfer returns a transfer whose both ends are h.
func newTransfer(t testing.TB, h http.Handler, c Config) *transfer {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	client, err := influx.New(influx.Endpoint{URL: s.URL}, influx.Options{})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	m := New(nil, c)
	m.unsigned.known[s.URL] = unsignedAnswer{at: m.config.Now()}
	e := &end{Client: client, mover: m}
	return &transfer{Config: m.config, mover: m, job: &quietJob{}, source: e, destination: e}
}

// produce writes rows of one series, a string value of the given size each.
func produce(out *batcher, slice, rows, size int) error {
	if err := out.setSeries(&lineproto.Series{Measurement: "m"}, []string{"v"}); err != nil {
		return err
	}
	for i := range rows {
		v := lineproto.StringValue(strings.Repeat("x", size))
		if err := out.row(slice, int64(i), []lineproto.Value{v}); err != nil {
			return err
		}
	}
	return nil
}

// nobody is told of refused points; a test that has some fails.
func nobody(t testing.TB) func(int, int64) {
	t.Helper()
	return func(i int, points int64) { t.Errorf("retention refused %d points of slice %d", points, i) }
}

// refusedIn counts refused points as the copy does.
func refusedIn(evidence []operation.Evidence) func(int, int64) {
	return func(i int, points int64) {
		evidence[i].Expired += points
		evidence[i].Written -= points
	}
}

func TestBatchesAreBoundedAndWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rows, size, maxRows, maxBytes int }{
		{1000, 3, 100, 1 << 20},  // by rows
		{1000, 100, 5000, 1000},  // by bytes
		{100, 999, 5000, 1000},   // a row is larger than a batch may be
		{0, 1, 10, 10},           // nothing
		{1, 1, 10, 10},           // one
		{101, 10, 100, 1 << 20},  // one more than a batch
		{500, 200, 5, 1 << 20},   // many small ones
		{50, 300_000, 5, 1 << 1}, // large ones
	} {
		var d writes
		tr := newTransfer(t, &d, Config{BatchRows: c.maxRows, BatchBytes: c.maxBytes})
		err := tr.writing(t.Context(), tr.destination, &operation.Slice{}, nobody(t), func(_ context.Context, out *batcher) error {
			return produce(out, 0, c.rows, c.size)
		})
		require.NoError(t, err)
		var got []string
		sent := 0
		for _, b := range d.got() {
			lines := strings.SplitAfter(string(b), "\n")
			lines = lines[:len(lines)-1]
			require.LessOrEqual(t, len(lines), c.maxRows)
			require.True(t, len(b) <= c.maxBytes || len(lines) == 1, "%d bytes in %d rows", len(b), len(lines))
			got = append(got, lines...)
			sent += len(b)
		}
		var want []string
		for i := range c.rows {
			want = append(want, fmt.Sprintf("m v=%q %d\n", strings.Repeat("x", c.size), i))
		}
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got, "%+v", c)
		require.EqualValues(t, sent, tr.sent.take())
		require.LessOrEqual(t, len(tr.buffers.idle), tr.Writers+1)
	}
}

// TestRefusedBatchEndsTheCopy: whatever the producer and the other writers are
// waiting for, the first refusal ends them, and the memory comes back.
func TestRefusedBatchEndsTheCopy(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusInternalServerError} {
		for at := range 6 {
			d := writes{answer: func(n int, _ []byte) (int, string, http.Header) {
				if n >= at {
					return status, "no more", nil
				}
				return 0, "", nil
			}}
			tr := newTransfer(t, &d, Config{BatchRows: 1, Writers: 3})
			err := tr.writing(t.Context(), tr.destination, &operation.Slice{}, nobody(t), func(_ context.Context, out *batcher) error {
				return produce(out, 0, 1000, 10)
			})
			var refused *influx.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, refused.Message, "no more")
			var write *patience.WriteError
			require.ErrorAs(t, err, &write)
			require.LessOrEqual(t, len(tr.buffers.idle), tr.Writers+1)
			require.LessOrEqual(t, len(d.got()), at+3, "nobody goes on")
		}
	}
}

// TestProducerThatFails: what it broke is not sent, and its error is the answer.
func TestProducerThatFails(t *testing.T) {
	t.Parallel()
	var d writes
	tr := newTransfer(t, &d, Config{BatchRows: 10})
	broken := errors.New("the source broke")
	err := tr.writing(t.Context(), tr.destination, &operation.Slice{}, nobody(t), func(_ context.Context, out *batcher) error {
		require.NoError(t, produce(out, 0, 25, 10))
		return broken
	})
	require.ErrorIs(t, err, broken)
	require.Len(t, tr.buffers.idle, tr.Writers+1, "all memory comes back")
	require.LessOrEqual(t, len(d.got()), 2)
}

func TestCancelledCopyEndsAtOnce(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	entered := make(chan struct{}, 8)
	tr := newTransfer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-hold:
		}
	}), Config{BatchRows: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the worker stops")
	go func() {
		<-entered
		cancel(why)
	}()
	err := tr.writing(ctx, tr.destination, &operation.Slice{}, nobody(t), func(_ context.Context, out *batcher) error {
		return produce(out, 0, 1000, 10)
	})
	require.ErrorIs(t, err, why)
}

// TestRetryInPlace: only a refusal that says that nothing was taken, and only for
// as long as it pays; all else is for who compares first.
func TestRetryInPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		after  string // Retry-After
		calls  int
		fails  bool
	}{
		{name: "503", status: 503, calls: 3},
		{name: "429", status: 429, calls: 3},
		{name: "429 for long", status: 429, after: "3600", calls: 1, fails: true},
		{name: "500 may have stored it", status: 500, calls: 1, fails: true},
		{name: "504", status: 504, calls: 1, fails: true},
		{name: "400", status: 400, calls: 1, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := writes{answer: func(n int, _ []byte) (int, string, http.Header) {
				if n < 2 {
					h := http.Header{}
					if c.after != "" {
						h.Set("Retry-After", c.after)
					}
					return c.status, "not now", h
				}
				return 0, "", nil
			}}
			tr := newTransfer(t, &d, Config{Backoff: time.Millisecond})
			err := tr.writing(t.Context(), tr.destination, &operation.Slice{}, nobody(t), func(_ context.Context, out *batcher) error {
				return produce(out, 0, 5, 10)
			})
			require.Equal(t, c.fails, err != nil, "%v", err)
			require.Len(t, d.got(), c.calls)
		})
	}
}

func TestExpiredPointsAreCountedPerSlice(t *testing.T) {
	t.Parallel()
	drop := func(int, []byte) (int, string, http.Header) {
		return 400, "partial write: points beyond retention policy dropped=2", nil
	}
	write := func(slices ...int) ([]operation.Evidence, error) {
		tr := newTransfer(t, &writes{answer: drop}, Config{})
		evidence := make([]operation.Evidence, 3)
		return evidence, tr.writing(t.Context(), tr.destination, &operation.Slice{}, refusedIn(evidence), func(_ context.Context, out *batcher) error {
			for _, s := range slices {
				evidence[s].Written += 5
				if err := produce(out, s, 5, 1); err != nil {
					return err
				}
			}
			return nil
		})
	}
	got, err := write(1)
	require.NoError(t, err)
	require.Equal(t, []operation.Evidence{{}, {Written: 3, Expired: 2}, {}}, got)
	_, err = write(0, 1)
	require.ErrorIs(t, err, errMixedExpiry)
	require.True(t, aboutSlices(t.Context(), err), "the slices are then copied one by one")
}

// TestOtherPartialWritesAreNotExpiry: a type conflict with the same words in it.
func TestOtherPartialWritesAreNotExpiry(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`partial write: field type conflict: input field "points beyond retention policy" on measurement "m" is type float, already exists as type string dropped=1`,
		`field type conflict: input field "v" on measurement "m" is type float, already exists as type string`,
		`partial write: max-values-per-tag limit exceeded (1/1): measurement="m" tag="k" value="v" dropped=3`,
	} {
		d := writes{answer: func(int, []byte) (int, string, http.Header) { return 400, text, nil }}
		tr := newTransfer(t, &d, Config{})
		evidence := make([]operation.Evidence, 1)
		err := tr.writing(t.Context(), tr.destination, &operation.Slice{}, refusedIn(evidence), func(_ context.Context, out *batcher) error { return produce(out, 0, 5, 1) })
		require.ErrorContains(t, err, text)
		require.Zero(t, evidence[0].Expired)
	}
}
