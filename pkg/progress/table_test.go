package progress

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

func TestHigherRevisionWins(t *testing.T) {
	table := newTable(10)
	require.True(t, table.putRecord(op(1, operation.Running), 7))
	require.False(t, table.putRecord(op(1, operation.Planning), 6), "late")
	require.False(t, table.putRecord(op(1, operation.Failed), 7), "double")
	got, ok := table.get(id(1))
	require.True(t, ok)
	require.Equal(t, operation.Running, got.State)
}

func TestTableShowsNoCredentials(t *testing.T) {
	table := newTable(10)
	o := op(1, operation.Running)
	o.Parameters = json.RawMessage(`{"circle_id":0,"operation":"rm","removed_backends":[{"name":"b","url":"http://b","username":"u","password":"p","sealed":"s"}]}`)
	table.putRecord(o, 1)
	got, _ := table.get(id(1))
	require.JSONEq(t, `{"circle_id":0,"operation":"rm","removed_backends":[{"name":"b","url":"http://b"}]}`, string(got.Parameters))
}

func TestWhichProgressIsShown(t *testing.T) {
	recorded := func(state operation.State, copied int64, seconds int) operation.Operation {
		o := op(1, state)
		o.Progress.Points.Copied = copied
		if seconds > 0 {
			o.Progress.AsOf = epoch.Add(time.Duration(seconds) * time.Second)
		}
		return o
	}
	for name, c := range map[string]struct {
		record   operation.Operation
		revision uint64
		events   []events.OperationProgress
		want     int64
	}{
		"none but the record's":            {recorded(operation.Running, 10, 5), 3, nil, 10},
		"an event that has seen it":        {recorded(operation.Running, 10, 5), 3, []events.OperationProgress{progressOf(1, 3, 2, 20)}, 20},
		"an event of later totals":         {recorded(operation.Running, 10, 5), 3, []events.OperationProgress{progressOf(1, 2, 6, 20)}, 20},
		"an event of earlier totals":       {recorded(operation.Running, 10, 5), 3, []events.OperationProgress{progressOf(1, 2, 4, 5)}, 10},
		"the higher seq":                   {recorded(operation.Running, 10, 5), 3, []events.OperationProgress{progressOf(1, 3, 9, 30), progressOf(1, 3, 8, 25)}, 30},
		"the next controller's":            {recorded(operation.Running, 10, 5), 4, []events.OperationProgress{progressOf(1, 3, 9, 30), progressOf(1, 4, 2, 40)}, 40},
		"the record's when terminal":       {recorded(operation.Succeeded, 10, 5), 3, []events.OperationProgress{progressOf(1, 3, 9, 9)}, 10},
		"a retry's, before its first word": {recorded(operation.Queued, 0, 0), 9, []events.OperationProgress{progressOf(1, 3, 9, 30)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			// The record may come before or after the events.
			for _, early := range []bool{true, false} {
				table := newTable(10)
				table.putRecord(recorded(operation.Queued, 0, 0), 1)
				if early {
					table.putRecord(c.record, c.revision)
				}
				for _, e := range c.events {
					_, known := table.putProgress(e)
					require.True(t, known)
				}
				if !early {
					table.putRecord(c.record, c.revision)
				}
				got, _ := table.get(id(1))
				require.Equal(t, c.want, got.Progress.Points.Copied, "record early: %v", early)
			}
		})
	}
}

func TestProgressOfAnUnknownOperationIsNotKept(t *testing.T) {
	table := newTable(10)
	changed, known := table.putProgress(progressOf(1, 1, 1, 1))
	require.False(t, changed)
	require.False(t, known)
	require.Empty(t, table.rows)
}

func TestOldestTerminalOperationsAreDropped(t *testing.T) {
	table := newTable(3)
	table.putRecord(op(0, operation.Running), 1)
	for n := 1; n <= 5; n++ {
		table.putRecord(op(n, operation.Succeeded), uint64(n)+1)
	}
	require.Equal(t, []string{id(0), id(3), id(4), id(5)}, table.ids, "an open one stays however old")
	table.putRecord(op(1, operation.Succeeded), 2)
	require.Equal(t, []string{id(0), id(3), id(4), id(5)}, table.ids, "a late event does not bring one back")
	table.putRecord(op(3, operation.Queued), 20)
	table.putRecord(op(6, operation.Failed), 21)
	require.Equal(t, []string{id(0), id(3), id(4), id(5), id(6)}, table.ids, "a retried one is open")
	table.putRecord(op(0, operation.Cancelled), 22)
	require.Equal(t, []string{id(3), id(4), id(5), id(6)}, table.ids)
	require.Len(t, table.rows, 4)
	require.Equal(t, 3, table.terminal)
}

// TestAnyHistoryConverges is the promise of the package: whatever happens to
// the events on the way, what is shown becomes what is recorded.
func TestAnyHistoryConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		records := newRecords()
		p := New(records, newLog(), Options{})
		var told []events.Payload
		shown := map[string]uint64{}
		p.options.OnChange = func(o operation.Operation) {
			require.GreaterOrEqual(t, p.table.rows[o.ID].revision, shown[o.ID], "shown states never go back")
			shown[o.ID] = p.table.rows[o.ID].revision
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n := rapid.IntRange(0, 5).Draw(t, "operation")
				o := op(n, operation.Queued)
				if was, err := records.Operation(ctx, o.ID); err == nil {
					o = was.Value
					next := slices.DeleteFunc(operation.States(), func(s operation.State) bool { return !o.State.CanMove(s, o.PausedIn) })
					if len(next) == 0 {
						t.Skip("nothing follows")
					}
					var err error
					o, err = o.Move(rapid.SampledFrom(next).Draw(t, "state"))
					require.NoError(t, err)
				}
				told = append(told, records.put(o))
			},
			"progress": func(t *rapid.T) {
				n := rapid.IntRange(0, 5).Draw(t, "operation")
				was, err := records.Operation(ctx, id(n))
				if err != nil {
					t.Skip("not there")
				}
				seq := uint64(len(told) + 1)
				told = append(told, progressOf(n, was.Revision, seq, int64(seq)))
			},
			"refuse": func(t *rapid.T) {
				// A request that was refused takes its record back. Its event, if
				// there ever was one, is not told again.
				n := rapid.IntRange(6, 8).Draw(t, "operation")
				c := records.put(op(n, operation.Queued))
				if rapid.Bool().Draw(t, "seen") {
					require.NoError(t, p.rescan(ctx))
				}
				if rapid.Bool().Draw(t, "told") {
					p.apply(c)
				}
				records.remove(id(n))
			},
			"deliver": func(t *rapid.T) {
				if len(told) == 0 {
					t.Skip("nothing was told")
				}
				e := rapid.SampledFrom(told).Draw(t, "event")
				p.take(ctx, bus.Record{Sequence: 1, Subject: events.Address(e), Data: message(t, e)})
			},
			"poll":   func(t *rapid.T) { require.NoError(t, p.pollOpen(ctx)) },
			"rescan": func(t *rapid.T) { require.NoError(t, p.rescan(ctx)) },
			"": func(t *rapid.T) {
				require.True(t, slices.IsSorted(p.table.ids))
				require.Len(t, p.table.rows, len(p.table.ids))
			},
		})
		require.NoError(t, p.pollOpen(ctx))
		require.NoError(t, p.rescan(ctx))

		want, err := records.all()
		require.NoError(t, err)
		items, next, err := p.List(operation.Filter{}, "", MaxPage)
		require.NoError(t, err)
		require.Empty(t, next)
		require.Len(t, items, len(want))
		for _, got := range items {
			require.Equal(t, want[got.ID].Value.State, got.State)
			require.Equal(t, want[got.ID].Revision, p.table.rows[got.ID].revision)
			if got.State.Terminal() {
				require.Equal(t, want[got.ID].Value.Progress, got.Progress)
			}
		}
	})
}

func BenchmarkLatestWithoutAMatch(b *testing.B) {
	p := New(newRecords(), newLog(), Options{})
	for n := range DefaultMaxTerminal {
		p.Observe(op(n, operation.Succeeded), uint64(n)+1)
	}
	for b.Loop() {
		p.Latest(operation.KindRebalance, "circle/none")
	}
}
