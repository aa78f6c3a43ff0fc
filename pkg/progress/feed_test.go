package progress

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// storyLog holds six events: of operation 1, 2, 1, nothing readable, a later
// release's about 1, and a task's of 2.
func storyLog(t *testing.T) *memoryLog {
	t.Helper()
	log := newLog()
	change := func(n int) events.OperationChange {
		return events.OperationChange{Operation: op(n, operation.Running), Revision: 1}
	}
	log.tell(t, change(1))
	log.tell(t, change(2))
	log.tell(t, progressOf(1, 1, 1, 5))
	log.append(events.EventSubject(id(1), "operation"), []byte("no event"))
	log.append(events.EventSubject(id(1), "novelty"),
		[]byte(`{"id":"1","source":"s","type":"ringmaster.novelty.appear.v1","specversion":"1.0","time":"2026-03-04T05:06:07Z","subject":"`+id(1)+`","datacontenttype":"application/json","data":{}}`))
	log.tell(t, events.TaskProgress{OperationID: id(2), TaskID: "t", Seq: 1})
	return log
}

// read takes what a subscription yields until it waits.
func read(t *testing.T, f *Feed, operationID string, after uint64) []FeedEvent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var got []FeedEvent
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range f.Subscribe(ctx, operationID, after) {
			if err != nil {
				t.Errorf("feed: %v", err)
				return
			}
			got = append(got, e)
		}
	}()
	synctest.Wait()
	cancel()
	<-done
	return got
}

func sequences(list []FeedEvent) []uint64 {
	out := []uint64{}
	for _, e := range list {
		out = append(out, e.Sequence)
	}
	return out
}

func TestFeed(t *testing.T) {
	for name, c := range map[string]struct {
		operation string
		after     uint64
		want      []uint64
	}{
		"all":                        {"", 0, []uint64{1, 2, 3, 5, 6}},
		"all after":                  {"", 3, []uint64{5, 6}},
		"one":                        {id(2), 0, []uint64{2, 6}},
		"one after another's":        {id(1), 2, []uint64{3, 5}},
		"nothing new":                {"", 6, []uint64{}},
		"an operation that is not":   {id(9), 0, []uint64{}},
		"after an unreadable record": {"", 4, []uint64{5, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := NewFeed(storyLog(t))
				got := read(t, f, c.operation, c.after)
				require.Equal(t, c.want, sequences(got))
				page, err := f.Page(t.Context(), c.operation, c.after, 0)
				require.NoError(t, err)
				require.Equal(t, got, append([]FeedEvent(nil), page.Events...))
			})
		})
	}
}

func TestFeedEventSaysWhatTheEnvelopeSays(t *testing.T) {
	page, err := NewFeed(storyLog(t)).Page(t.Context(), "", 4, 2)
	require.NoError(t, err)
	require.Len(t, page.Events, 2)
	later, task := page.Events[0], page.Events[1]
	require.Equal(t, "ringmaster.novelty.appear.v1", later.Type, "what a later release tells is passed on")
	require.Equal(t, id(1), later.OperationID)
	require.Equal(t, events.TypeTaskProgress, task.Type)
	require.Equal(t, id(2), task.OperationID, "a task's event is of its operation")
	require.Equal(t, epoch, task.Time)
	var e events.Envelope
	require.NoError(t, json.Unmarshal(task.Data, &e))
	require.Equal(t, id(2)+"/t", e.Subject)
}

func TestFeedTellsOfAGap(t *testing.T) {
	gap := func(sequence, after, first uint64) FeedEvent {
		return Gap{After: after, First: first}.event(sequence)
	}
	for name, c := range map[string]struct {
		after uint64
		want  []FeedEvent
		rest  []uint64
	}{
		"older than the stream": {1, []FeedEvent{gap(2, 1, 3)}, []uint64{3, 5, 6}},
		"just not too old":      {2, []FeedEvent{}, []uint64{3, 5, 6}},
		"from the beginning":    {0, []FeedEvent{gap(2, 0, 3)}, []uint64{3, 5, 6}},
		"of another stream":     {7, []FeedEvent{gap(2, 7, 3)}, []uint64{3, 5, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := storyLog(t)
				log.trim(3)
				f := NewFeed(log)
				got := read(t, f, "", c.after)
				require.Equal(t, c.want, append([]FeedEvent{}, got[:len(c.want)]...))
				require.Equal(t, c.rest, sequences(got[len(c.want):]))
				page, err := f.Page(t.Context(), "", c.after, 0)
				require.NoError(t, err)
				require.Equal(t, got, page.Events)
				require.EqualValues(t, 6, page.Next)
			})
		})
	}
}

// What happened before an operation began is no loss to those who read of it.
func TestFeedOfOneOperationTellsWhetherItsBeginningIsGone(t *testing.T) {
	began := func(n int) events.OperationChange {
		return events.OperationChange{Operation: op(n, operation.Queued), Revision: 1}
	}
	planned := func(n int) events.OperationChange {
		return events.OperationChange{Operation: op(n, operation.Planning), Revision: 2, Previous: operation.Queued}
	}
	gap := Gap{After: 0, First: 4}.event(3)
	for name, c := range map[string]struct {
		tell []events.Payload // the first three are dropped
		gap  bool
		want []uint64
	}{
		"it is there":           {[]events.Payload{began(2), planned(2), planned(2), began(1), planned(1)}, false, []uint64{4, 5}},
		"told of a little late": {[]events.Payload{began(2), planned(2), planned(2), planned(1), began(1)}, false, []uint64{4, 5}},
		"it is gone":            {[]events.Payload{began(2), planned(2), began(1), planned(2), planned(1)}, true, []uint64{5}},
		"all is gone":           {[]events.Payload{began(1), planned(1), planned(1), began(2)}, true, []uint64{}},
		"the stream is empty":   {[]events.Payload{began(1), planned(1), planned(1)}, true, []uint64{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newLog()
				for _, p := range c.tell {
					log.tell(t, p)
				}
				log.trim(4)
				f := NewFeed(log)
				got := read(t, f, id(1), 0)
				page, err := f.Page(t.Context(), id(1), 0, 0)
				require.NoError(t, err)
				require.Equal(t, got, append([]FeedEvent(nil), page.Events...))
				if c.gap {
					require.NotEmpty(t, got)
					require.Equal(t, gap, got[0])
					got = got[1:]
				}
				require.Equal(t, c.want, sequences(got))
				again, err := f.Page(t.Context(), id(1), page.Next, 0)
				require.NoError(t, err)
				require.Empty(t, again.Events, "a gap is told of once")
			})
		})
	}
}

func TestFeedTellsOfAGapWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := storyLog(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []FeedEvent
		for e, err := range NewFeed(log).Subscribe(ctx, id(1), 0) {
			require.NoError(t, err)
			got = append(got, e)
			switch len(got) {
			case 1: // the reader is slow, the stream drops what it was to read
				log.trim(20)
				log.tell(t, progressOf(1, 1, 9, 9))
			case 3:
				cancel()
			}
		}
		require.Equal(t, []uint64{1, 19, 20}, sequences(got))
		require.Equal(t, TypeGap, got[1].Type)
		require.JSONEq(t, `{"after":1,"first":20}`, string(got[1].Data))
	})
}

func TestFeedPagesFollowEachOther(t *testing.T) {
	f := NewFeed(storyLog(t))
	var got []uint64
	after := uint64(0)
	for range 6 {
		page, err := f.Page(t.Context(), "", after, 1)
		require.NoError(t, err)
		got = append(got, sequences(page.Events)...)
		require.Equal(t, after+1, page.Next, "also past what is left out")
		after = page.Next
	}
	require.Equal(t, []uint64{1, 2, 3, 5, 6}, got)
	page, err := f.Page(t.Context(), "", after, 1)
	require.NoError(t, err)
	require.Equal(t, FeedPage{Events: []FeedEvent{}, Next: after}, page)
}

func TestFeedLast(t *testing.T) {
	last, err := NewFeed(newLog()).Last(t.Context())
	require.NoError(t, err)
	require.Zero(t, last)
	last, err = NewFeed(storyLog(t)).Last(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 6, last)
}

func TestFeedTellsOfTrouble(t *testing.T) {
	log := storyLog(t)
	f := NewFeed(log)
	yielded := 0
	for e, err := range f.Subscribe(t.Context(), "", 0) {
		if yielded++; yielded == 1 {
			require.NoError(t, err)
			require.EqualValues(t, 1, e.Sequence)
			log.setDown(true)
			continue
		}
		require.ErrorIs(t, err, errDown)
	}
	require.Equal(t, 2, yielded, "an error is the last that is yielded")
	for _, err := range f.Subscribe(t.Context(), "", 0) {
		require.ErrorIs(t, err, errDown)
	}
	_, err := f.Page(t.Context(), "", 0, 1)
	require.ErrorIs(t, err, errDown)
	_, err = f.Last(t.Context())
	require.ErrorIs(t, err, errDown)
}
