package progress

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// started runs a projection in a bubble of its own time, and stops it.
func started(t *testing.T, options Options, test func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		records, log := newRecords(), newLog()
		p := New(records, log, options)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		test(t, p, records, log)
		cancel()
		require.NoError(t, <-done)
	})
}

// pass lets time go by in a bubble, and what it sets off come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func state(p *Projection, n int) operation.State {
	o, _ := p.Operation(id(n))
	return o.State
}

func TestProjectionStartsFromTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, log := newRecords(), newLog()
		log.tell(t, records.put(op(1, operation.Queued)))
		records.put(op(1, operation.Running))
		records.put(op(2, operation.Succeeded))
		p := New(records, log, Options{})
		require.ErrorIs(t, p.Ready(), ErrNotReady)
		require.True(t, p.AsOf().IsZero())

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		require.NoError(t, p.Ready())
		require.Equal(t, time.Now(), p.AsOf())
		require.Equal(t, operation.Running, state(p, 1))
		require.Equal(t, operation.Succeeded, state(p, 2))

		require.ErrorIs(t, p.Run(ctx), ErrRunning)
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, operation.Running, state(p, 1), "what is known stays")
	})
}

// What was told before the process began is shown by the rules of what is told
// while it runs.
func TestProjectionStartsWithTheLastProgressThatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, log := newRecords(), newLog()
		subject := func(n int) string { return events.EventSubject(id(n), events.NounProgress) }
		told := func(n int, state operation.State, copied int64) {
			c := records.put(op(n, state))
			log.tell(t, progressOf(n, c.Revision, 1, copied-1))
			log.tell(t, progressOf(n, c.Revision, 2, copied))
		}
		told(1, operation.Running, 500)
		told(2, operation.Running, 600)
		log.append(subject(2), []byte("no event"))
		told(3, operation.Running, 700)
		log.broken[subject(3)] = true
		for n := 10; n < 10+2*recallReaders; n++ {
			told(n, operation.Running, 800)
			log.hanging[subject(n)] = n < 10+recallReaders
		}
		log.tell(t, progressOf(4, 1, 1, 900))
		later := op(4, operation.Paused)
		later.Progress.AsOf = epoch.Add(time.Hour)
		records.put(later) // after what was told of it
		records.put(op(5, operation.Queued))
		told(6, operation.Succeeded, 900)

		p := New(records, log, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		began := time.Now()
		pass(recallPatience)
		require.NoError(t, p.Ready())
		require.Less(t, time.Since(began), 2*recallPatience)
		copied := func(n int) int64 {
			o, ok := p.Operation(id(n))
			require.True(t, ok)
			return o.Progress.Points.Copied
		}
		require.EqualValues(t, 500, copied(1))
		for n := 2; n <= 6; n++ {
			require.Zero(t, copied(n), "operation %d", n)
		}
		require.Equal(t, operation.Paused, state(p, 4))
		for n := 10 + recallReaders; n < 10+2*recallReaders; n++ {
			require.EqualValues(t, 800, copied(n), "those that do not answer hold up no other")
		}
		log.tell(t, progressOf(1, 1, 3, 501))
		synctest.Wait()
		require.EqualValues(t, 501, copied(1), "the events are followed from there")
		cancel()
		require.NoError(t, <-done)
	})
}

// However many reads get no answer, the start does not wait for all of them.
func TestProjectionStartsThoughNoProgressCanBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, log := newRecords(), newLog()
		for n := range 20 * recallReaders {
			records.put(op(n, operation.Running))
			log.hanging[events.EventSubject(id(n), events.NounProgress)] = true
		}
		p := New(records, log, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		pass(recallLimit)
		require.NoError(t, p.Ready())
		require.Equal(t, operation.Running, state(p, 1))
		cancel()
		require.NoError(t, <-done)
	})
}

func TestProjectionFollowsEvents(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog) {
		c := records.put(op(1, operation.Running))
		log.append("ringmaster.event.x.operation", []byte("no event"))
		log.tell(t, c)
		log.tell(t, progressOf(1, c.Revision, 1, 500))
		synctest.Wait()
		o, ok := p.Operation(id(1))
		require.True(t, ok)
		require.Equal(t, operation.Running, o.State)
		require.EqualValues(t, 500, o.Progress.Points.Copied)

		log.tell(t, records.put(op(1, operation.Succeeded)))
		log.tell(t, c)
		synctest.Wait()
		require.Equal(t, operation.Succeeded, state(p, 1))
	})
}

func TestLostEventIsMadeUpForByThePoll(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, _ *memoryLog) {
		records.put(op(1, operation.Running))
		pass(DefaultPoll)
		require.Equal(t, operation.Running, state(p, 1))
		require.Equal(t, time.Now(), p.AsOf())

		records.put(op(1, operation.Succeeded))
		pass(DefaultPoll)
		require.Equal(t, operation.Succeeded, state(p, 1))
		require.Empty(t, p.Open())
	})
}

// One record that cannot be read keeps neither the others from being read nor the
// process from being ready.
func TestUnreadableRecordHoldsUpNoOther(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, _ *memoryLog) {
		for n := 1; n <= 9; n++ {
			records.put(op(n, operation.Running))
		}
		records.tear(id(5))
		pass(10 * DefaultPoll)
		require.NoError(t, p.Ready())
		for n := 1; n <= 9; n++ {
			if n != 5 {
				require.Equal(t, operation.Running, state(p, n))
			}
		}
	})
}

func TestOperationOfWhichEveryEventWasLostIsFoundByTheRescan(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, _ *memoryLog) {
		records.put(op(1, operation.Succeeded))
		pass(DefaultRescan)
		require.Equal(t, operation.Succeeded, state(p, 1))
	})
}

func TestGapMakesTheRecordsBeReadAtOnce(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog) {
		records.put(op(1, operation.Succeeded))
		log.trim(100)
		synctest.Wait()
		require.Equal(t, operation.Succeeded, state(p, 1))
		log.tell(t, records.put(op(2, operation.Queued)))
		synctest.Wait()
		require.Equal(t, operation.Queued, state(p, 2), "the tail goes on behind the gap")
	})
}

func TestProgressOfAnUnknownOperationMakesItsRecordBeRead(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog) {
		c := records.put(op(1, operation.Running))
		log.tell(t, progressOf(1, c.Revision, 1, 5))
		log.tell(t, progressOf(2, 1, 1, 5))
		synctest.Wait()
		require.Equal(t, operation.Running, state(p, 1))
		_, ok := p.Operation(id(2))
		require.False(t, ok)
	})
}

func TestRefusedOperationIsForgotten(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, _ *memoryLog) {
		c := records.put(op(1, operation.Queued))
		p.Observe(c.Operation, c.Revision)
		require.Equal(t, operation.Queued, state(p, 1), "a process sees at once what it has written")
		records.remove(id(1))
		pass(DefaultPoll)
		_, ok := p.Operation(id(1))
		require.False(t, ok)
	})
}

// An operation that has been removed from the history is not shown any more: at once
// where the event is heard, and at the next reading of all records elsewhere.
func TestRemovedOperationsAreForgotten(t *testing.T) {
	started(t, Options{}, func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog) {
		for i := range 3 {
			log.tell(t, records.put(op(i+1, operation.Succeeded)))
		}
		synctest.Wait()
		records.remove(id(1))
		records.remove(id(2))
		log.tell(t, events.OperationRemove{OperationID: id(1), RemovedAt: time.Now(), Reason: "old"})
		synctest.Wait()
		shown := func() (ids []string) {
			items, _, err := p.List(operation.Filter{}, "", 0)
			require.NoError(t, err)
			for i := range items {
				ids = append(ids, items[i].ID)
			}
			return ids
		}
		require.Equal(t, []string{id(3), id(2)}, shown(), "the second one's event was lost")
		pass(DefaultRescan)
		require.Equal(t, []string{id(3)}, shown())
	})
}

func TestTroubleIsToldAndSurvived(t *testing.T) {
	var written bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&written, nil))
	started(t, Options{Logger: logger}, func(t *testing.T, p *Projection, records *memoryRecords, log *memoryLog) {
		before := time.Now()
		records.setDown(true)
		log.setDown(true)
		pass(staleAfter * DefaultPoll)
		require.NoError(t, p.Ready())
		require.Equal(t, before, p.AsOf())
		pass(time.Second)
		require.ErrorIs(t, p.Ready(), ErrStale)
		require.ErrorContains(t, p.Ready(), "for 16s")
		require.Contains(t, written.String(), "following the event stream")
		require.Contains(t, written.String(), "reading the operation records")

		records.put(op(1, operation.Running))
		records.setDown(false)
		log.setDown(false)
		pass(retryPause)
		require.NoError(t, p.Ready())
		require.Equal(t, operation.Running, state(p, 1))
	})
}

func TestProjectionWaitsForTheRecordsAtItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, log := newRecords(), newLog()
		records.put(op(1, operation.Running))
		records.setDown(true)
		p := New(records, log, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		pass(time.Minute)
		require.ErrorIs(t, p.Ready(), ErrNotReady)
		records.setDown(false)
		pass(retryPause)
		require.NoError(t, p.Ready())
		cancel()
		require.NoError(t, <-done)
	})
}

func TestOnChangeIsToldOfEveryChangeOnce(t *testing.T) {
	var seen []string
	note := func(o operation.Operation) {
		seen = append(seen, fmt.Sprintf("%s %d", o.State, o.Progress.Points.Copied))
	}
	started(t, Options{OnChange: note}, func(t *testing.T, _ *Projection, records *memoryRecords, log *memoryLog) {
		c := records.put(op(1, operation.Running))
		for range 2 {
			log.tell(t, c)
			log.tell(t, progressOf(1, c.Revision, 1, 5))
		}
		log.tell(t, progressOf(1, c.Revision, 2, 6))
		log.tell(t, records.put(op(1, operation.Succeeded)))
		log.tell(t, progressOf(1, c.Revision, 3, 7))
		synctest.Wait()
		require.Equal(t, []string{"running 0", "running 5", "running 6", "succeeded 0"}, seen)
	})
}

func TestListIsNewestFirstAndItsPagesAreStable(t *testing.T) {
	p := New(newRecords(), newLog(), Options{})
	for n := range 7 {
		p.Observe(op(n, operation.Succeeded), uint64(n)+1)
	}
	var got []string
	cursor := ""
	for page := range 4 {
		items, next, err := p.List(operation.Filter{}, cursor, 2)
		require.NoError(t, err)
		for _, o := range items {
			got = append(got, o.ID)
		}
		// What begins between two pages is on neither.
		p.Observe(op(100+page, operation.Queued), uint64(100+page))
		cursor = next
	}
	require.Equal(t, []string{id(6), id(5), id(4), id(3), id(2), id(1), id(0)}, got)
	require.Empty(t, cursor)
}

func TestListSelects(t *testing.T) {
	p := New(newRecords(), newLog(), Options{})
	for n := range 9 {
		states := []operation.State{operation.Succeeded, operation.Running}
		p.Observe(op(n, states[n%2]), uint64(n)+1)
	}
	for name, c := range map[string]struct {
		filter operation.Filter
		want   []string
	}{
		"state":           {operation.Filter{State: operation.Running}, []string{id(7), id(5), id(3), id(1)}},
		"scope":           {operation.Filter{Scope: "circle/2"}, []string{id(8), id(5), id(2)}},
		"state and scope": {operation.Filter{State: operation.Running, Scope: "circle/2"}, []string{id(5)}},
		"kind":            {operation.Filter{Kind: operation.KindResync}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			items, next, err := p.List(c.filter, "", 0)
			require.NoError(t, err)
			require.NotNil(t, items, "an empty page is an empty list")
			require.Empty(t, next)
			var got []string
			for _, o := range items {
				got = append(got, o.ID)
			}
			require.Equal(t, c.want, got)
		})
	}
	items, next, err := p.List(operation.Filter{Scope: "circle/2"}, "", 3)
	require.NoError(t, err)
	require.Len(t, items, 3)
	require.Empty(t, next, "no next page when nothing more is selected")
}

func TestListBoundsItsPages(t *testing.T) {
	p := New(newRecords(), newLog(), Options{})
	for n := range MaxPage + 5 {
		p.Observe(op(n, operation.Succeeded), uint64(n)+1)
	}
	for limit, want := range map[int]int{-1: DefaultPage, 0: DefaultPage, 1: 1, MaxPage: MaxPage, MaxPage + 1: MaxPage} {
		items, next, err := p.List(operation.Filter{}, "", limit)
		require.NoError(t, err)
		require.Len(t, items, want)
		require.NotEmpty(t, next)
	}
}

func TestListRefusesAForeignCursor(t *testing.T) {
	p := New(newRecords(), newLog(), Options{})
	for _, cursor := range []string{"?", "abc", id(1), base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix))} {
		_, _, err := p.List(operation.Filter{}, cursor, 1)
		require.ErrorIs(t, err, ErrCursor, cursor)
	}
}

func TestLatestIsOfTheScope(t *testing.T) {
	p := New(newRecords(), newLog(), Options{})
	for n := range 9 {
		p.Observe(op(n, operation.Succeeded), uint64(n)+1)
	}
	o, ok := p.Latest(operation.KindRebalance, "circle/1")
	require.True(t, ok)
	require.Equal(t, id(7), o.ID)
	_, ok = p.Latest(operation.KindResync, "circle/1")
	require.False(t, ok)
	_, ok = p.Latest(operation.KindRebalance, "circle/9")
	require.False(t, ok)
}

func TestStartStopStress(t *testing.T) {
	records, log := newRecords(), newLog()
	p := New(records, log, Options{Poll: time.Millisecond, Rescan: time.Millisecond})
	var all sync.WaitGroup
	for g := range 10 {
		all.Go(func() {
			for n := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- p.Run(ctx) }()
				c := records.put(op(g*50+n, operation.Running))
				log.tell(t, c)
				log.tell(t, progressOf(g*50+n, c.Revision, 1, 1))
				p.Open()
				p.Latest(operation.KindRebalance, "circle/0")
				cancel()
				if err := <-done; err != nil && !errors.Is(err, ErrRunning) {
					t.Errorf("run: %v", err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, p.rescan(t.Context()))
	require.Len(t, p.Open(), 500)
}

func TestEventsOfTasksAreNotRead(t *testing.T) {
	require.True(t, concerns(events.EventSubject("op", events.NounOperation)))
	require.True(t, concerns(events.EventSubject("op", events.NounProgress)))
	require.False(t, concerns(events.EventSubject("op", events.NounTask)))
	require.False(t, concerns(events.EventSubject("op", events.NounTaskProgress)))
}
