package integration_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// latch lets goroutines wait for something that happens once.
type latch struct {
	once sync.Once
	done chan struct{}
}

func newLatch() *latch { return &latch{done: make(chan struct{})} }

func (l *latch) open() { l.once.Do(func() { close(l.done) }) }

// await waits for the latch, in handlers and tests.
func (l *latch) await(t testing.TB, what string) {
	t.Helper()
	select {
	case <-l.done:
	case <-bounded(t).Done():
		t.Errorf("this did not happen: %s", what)
	}
}

// workerID reads a worker's id from its ready line.
func workerID(t testing.TB, w *harness.Program) string {
	t.Helper()
	_, rest, ok := strings.Cut(w.Output(), "ringmaster worker ")
	require.True(t, ok, w.Output())
	id, _, _ := strings.Cut(rest, " ")
	return id
}

// stoppedWorker is an operation whose only worker is stopped in the middle of
// writing database b: of three databases, a has been copied and c has not.
type stoppedWorker struct {
	*installation

	source, owner *backend
	first         *harness.Program
	proxy         *harness.Proxy
	op            operation.Operation
	// second is the worker that takes over.
	second *harness.Program
}

// stopWriting starts the operation. hold is called with the write of database b,
// stops the worker by calling stop, and returns when it is to go on.
func stopWriting(t *testing.T, fill func(source *backend), hold func(s *stoppedWorker, w http.ResponseWriter, r *http.Request, stop func())) *stoppedWorker {
	t.Helper()
	b := startBackends(t, 2)
	s := &stoppedWorker{source: b[0], owner: b[1], proxy: b[1].proxied(), installation: install(t)}
	s.behind[s.proxy.URL()] = s.owner.URL()
	fill(s.source)
	stopped := newLatch()
	var once sync.Once
	s.proxy.Handle(func(w http.ResponseWriter, r *http.Request) {
		if harness.IsWrite(r) && r.URL.Query().Get("db") == "b" {
			mine := false
			once.Do(func() { mine = true })
			if mine {
				hold(s, w, r, func() {
					// The kernel has stopped it when it says so in its status.
					if err := s.first.Signal(syscall.SIGSTOP); err != nil {
						t.Errorf("stopping the worker: %v", err)
					}
					stopped.open()
				})
				return
			}
		}
		s.proxy.Forward(w, r)
	})
	require.NoError(t, s.WriteConfigURLs(s.proxy.URL()))
	s.startAPI()
	s.first = s.startWorker("-slots", "1")
	t.Cleanup(func() { _ = s.first.Signal(syscall.SIGCONT) }) // or it could not stop in order
	s.op = s.rebalanceRemove(0, []harness.Backend{{Name: "leaver", URL: s.source.URL()}})
	stopped.await(t, "the worker writes to database b and is stopped")
	return s
}

// takeOver starts the second worker and waits until it has the task.
func (s *stoppedWorker) takeOver() {
	s.t.Helper()
	s.second = s.startWorker("-slots", "1")
	id := workerID(s.t, s.second)
	require.Eventually(s.t, func() bool {
		for _, task := range s.tasks(s.op.ID) {
			if task.Attempt > 1 && task.Holder == id {
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond, "the second worker takes the task over")
}

// awaitRefusal waits until the first worker has been told that its task is
// another's: by the record, which refuses its checkpoint.
func (s *stoppedWorker) awaitRefusal() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for line := range strings.Lines(s.first.Output()) {
			if strings.Contains(line, `"msg":"task lost to another worker"`) {
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond, "the first worker is refused")
}

// finishAndCompare waits for the end and requires the clients' values where
// clients have written, and the source's everywhere else.
func (s *stoppedWorker) finishAndCompare(clients func(harness.Place, string) (string, bool)) {
	s.t.Helper()
	s.finish(s.op.ID, operation.Succeeded)
	have := s.owner.dump()
	seen := 0
	for place, points := range s.source.dump() {
		for key, value := range points {
			if client, ok := clients(place, key); ok {
				value, seen = client, seen+1
			}
			require.Equal(s.t, value, have[place][key], "%v %s", place, key)
		}
		require.Len(s.t, have[place], len(points))
	}
	require.Positive(s.t, seen, "clients have written where the source has points")
	for _, task := range s.tasks(s.op.ID) {
		require.Equal(s.t, operation.TaskDone, task.State)
		if task.Attempt > 1 {
			require.Equal(s.t, workerID(s.t, s.second), task.Holder)
		}
	}
}

// clientWrites is what clients write to the owner while the worker is stopped:
// each tenth point of a measurement, with a value that no source has.
func clientWrites(measurement string, points int) (lines string) {
	for i := 0; i < points; i += 10 {
		lines += fmt.Sprintf("%s,host=h%d,zone=z value=-1 %d\n", measurement, i%10, int64(firstTime)+int64(i/10)*10_000_000_000)
	}
	return lines
}

func isClients(_ harness.Place, key string) (string, bool) {
	// "float -1": -1 in bits.
	return "float bff0000000000000 \"\"", strings.HasPrefix(key, `"host"="h0"`) && strings.Contains(key, ` "value" `)
}

func TestWorkerStoppedPastItsLeaseIsRefusedItsCheckpoint(t *testing.T) {
	t.Parallel()
	const points = 2000
	resume, overwritten := newLatch(), newLatch()
	waiting := newLatch()
	s := stopWriting(t, func(source *backend) {
		for _, db := range []string{"a", "b", "c"} {
			source.fill(db, 1, points)
		}
	}, func(s *stoppedWorker, w http.ResponseWriter, r *http.Request, stop func()) {
		// The batch is stored; the worker is stopped before it hears of it.
		res, _, err := s.proxy.Fetch(r)
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Errorf("the first write of database b: %v, %v", res, err)
		}
		stop()
		resume.await(t, "the worker goes on")
		w.WriteHeader(http.StatusNoContent)
	})
	// The second worker has the task and is about to write c when clients have
	// overwritten points of all databases, and while the first one goes on.
	s.proxy.Handle(func(w http.ResponseWriter, r *http.Request) {
		if harness.IsWrite(r) && r.URL.Query().Get("db") == "c" {
			waiting.open()
			overwritten.await(t, "clients have overwritten points and the first worker was refused")
		}
		s.proxy.Forward(w, r)
	})
	s.owner.write("b", "", clientWrites("m000", points/2))
	s.owner.write("c", "", clientWrites("m000", points))
	s.takeOver()
	waiting.await(t, "the second worker writes database c")
	s.owner.write("a", "", clientWrites("m000", points))
	s.owner.write("b", "", clientWrites("m000", points))
	before := s.tasks(s.op.ID)
	require.NoError(t, s.first.Signal(syscall.SIGCONT))
	resume.open()
	s.awaitRefusal()
	for i, task := range s.tasks(s.op.ID) {
		require.Equal(t, before[i].Holder, task.Holder, "the stopped worker has changed nothing")
		require.Equal(t, before[i].Attempt, task.Attempt)
	}
	overwritten.open()
	s.finishAndCompare(isClients)
}

func TestWorkerStoppedInTheMiddleOfABatchSendsNoMoreOfIt(t *testing.T) {
	t.Parallel()
	// One point that is larger than all buffers between the worker and the proxy.
	var big strings.Builder
	big.WriteString("m000,host=h0,zone=z value=1")
	for i := range 160 {
		fmt.Fprintf(&big, ",text%03d=\"%s\"", i, strings.Repeat(string(rune('a'+i%26)), 60<<10))
	}
	fmt.Fprintf(&big, " %d\n", int64(firstTime))
	resume, done := newLatch(), newLatch()
	s := stopWriting(t, func(source *backend) {
		source.fill("a", 1, 100)
		source.fill("b", 0, 0)
		source.write("b", "", big.String())
		source.fill("c", 1, 100)
	}, func(s *stoppedWorker, w http.ResponseWriter, r *http.Request, stop func()) {
		defer done.open()
		head := make([]byte, 100<<10)
		if _, err := io.ReadFull(r.Body, head); err != nil {
			t.Errorf("reading the beginning of the batch: %v", err)
		}
		stop()
		resume.await(t, "the worker goes on")
		// Now the rest may come: what the worker still sends reaches the backend.
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(head), r.Body))
		s.proxy.Forward(w, r)
	})
	s.takeOver()
	s.finish(s.op.ID, operation.Succeeded)
	// Clients overwrite what has been copied; the stopped worker would turn it
	// back if it went on with its batch.
	s.owner.write("b", "", fmt.Sprintf("m000,host=h0,zone=z value=-1 %d\n", int64(firstTime)))
	// Nobody tells the worker that its claim is gone: the api with its NATS is
	// stopped too. Only the worker's own clock can keep it from going on.
	require.NoError(t, s.API.Signal(syscall.SIGSTOP))
	resume.open()
	require.NoError(t, s.first.Signal(syscall.SIGCONT))
	done.await(t, "the batch has ended at the backend")
	require.NoError(t, s.API.Signal(syscall.SIGCONT))
	s.awaitRefusal()
	s.finishAndCompare(func(p harness.Place, key string) (string, bool) {
		value, ok := isClients(p, key)
		return value, ok && p.Database == "b"
	})
}
