package integration_test

import (
	"fmt"
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

// shownWorker is a worker as /v1/workers shows it.
type shownWorker struct {
	ID       string
	Busy     int
	Slots    int
	Draining bool
}

func (in *installation) workers() map[string]shownWorker {
	in.t.Helper()
	var page struct{ Items []shownWorker }
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/workers", &page))
	all := map[string]shownWorker{}
	for _, w := range page.Items {
		all[w.ID] = w
	}
	return all
}

// batches counts the writes to each database, each of which is one batch here.
type batches struct {
	mu  sync.Mutex
	all map[string]int
}

func (b *batches) add(db string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[db]++
}

// again is how many batches were written more than once.
func (b *batches) again() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, times := range b.all {
		n += times - 1
	}
	return n
}

// Workers are seen soon after they have joined and gone soon after they have died;
// tasks are spread evenly over them; one that is told to stop gives its tasks to the
// others, who do nothing again but the batch that it had in hand.
func TestWorkersJoinShareAndLeave(t *testing.T) {
	t.Parallel()
	const slots, databases = 2, 160
	b := startBackends(t, 2)
	in := install(t)
	owner := b[1].proxied()
	in.behind[owner.URL()] = b[1].URL()
	var names []string
	for d := range databases {
		names = append(names, fmt.Sprintf("db-%03d", d))
		b[0].fill(names[d], 1, 1900) // about twelve to a task
	}
	written := batches{all: map[string]int{}}
	writes := newGate()
	t.Cleanup(writes.release)
	owner.Handle(func(w http.ResponseWriter, r *http.Request) {
		db := r.URL.Query().Get("db")
		if !harness.IsWrite(r) || !strings.HasPrefix(db, "db-") {
			owner.Forward(w, r)
			return
		}
		writes.reached.open()
		select {
		case <-writes.open.done:
			written.add(db)
			owner.Forward(w, r)
		case <-r.Context().Done():
			harness.Hangup()
		}
	})
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI()
	ids := map[string]*harness.Program{}
	join := func() *harness.Program {
		began := time.Now()
		w := in.startWorker("-slots", fmt.Sprint(slots))
		id := workerID(t, w)
		require.True(t, waitFor(t, func() bool { return in.workers()[id].Slots == slots }))
		require.Less(t, time.Since(began), 3*time.Second, "a worker is seen soon")
		ids[id] = w
		return w
	}
	for range 4 {
		join()
	}
	op := in.rebalanceRemove(0, []harness.Backend{{Name: "leaver", URL: b[0].URL()}})
	requireSpread := func(workers int) {
		t.Helper()
		last := map[string]shownWorker{}
		require.True(t, waitFor(t, func() bool {
			last = in.workers()
			for _, w := range last {
				if w.Busy != slots {
					return false
				}
			}
			return len(last) == workers
		}), "tasks are not spread evenly: %v; the tasks are %d", last, len(in.tasks(op.ID)))
	}
	requireSpread(4)

	// One dies, and is gone within its lease.
	var victim string
	for id := range ids {
		victim = id
	}
	ids[victim].Kill()
	died := time.Now()
	require.True(t, waitFor(t, func() bool { _, there := in.workers()[victim]; return !there }))
	require.Less(t, time.Since(died), 4*time.Second, "its lease is "+lease)
	delete(ids, victim)
	// One comes in its place and takes its share.
	join()
	requireSpread(4)

	// One is told to stop in the middle of its batches.
	var leaver string
	for id := range ids {
		leaver = id
	}
	require.NoError(t, ids[leaver].Signal(syscall.SIGTERM))
	<-ids[leaver].Done()
	require.NotContains(t, in.workers(), leaver, "who has given everything back is gone at once")
	requireSpread(3)
	writes.release()
	in.succeed(op.ID)
	require.LessOrEqual(t, written.again(), slots, "only what was in hand was done again")
	in.requireMoved(0, b[:1], b[1:], names...)
	for _, task := range in.tasks(op.ID) {
		require.Equal(t, operation.TaskDone, task.State)
	}
}
