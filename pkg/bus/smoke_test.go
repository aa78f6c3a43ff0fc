package bus_test

import (
	"testing"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	for name, b := range map[string]func() *bus.Bus{
		"one":   func() *bus.Bus { b, _ := bustest.Start(t); return b },
		"three": func() *bus.Bus { b, _ := bustest.StartCluster(t, 3); return b },
	} {
		t.Run(name, func(t *testing.T) {
			b := b()
			ctx := t.Context()
			require.NoError(t, b.Probe(ctx))
			k := b.Bucket(events.BucketOperations)
			rev, err := k.Create(ctx, "a.b", []byte("1"))
			require.NoError(t, err)
			_, err = k.Create(ctx, "a.b", []byte("1"))
			require.ErrorIs(t, err, bus.ErrExists)
			rev2, err := k.Update(ctx, "a.b", []byte("2"), rev)
			require.NoError(t, err)
			_, err = k.Update(ctx, "a.b", []byte("3"), rev)
			require.ErrorIs(t, err, bus.ErrConflict)
			n := 0
			for e, err := range k.List(ctx, "a") {
				require.NoError(t, err)
				require.Equal(t, "a.b", e.Key)
				n++
			}
			require.Equal(t, 1, n)
			require.NoError(t, k.Delete(ctx, "a.b", rev2))
			seqs, err := b.Scopes().Take(ctx, "op1", bus.Message{Subject: events.CommandSubject("rebalance", "op1")}, []string{"circle/0", "circle/1"})
			require.NoError(t, err)
			_, err = b.Scopes().Take(ctx, "op2", bus.Message{Subject: events.CommandSubject("rebalance", "op2")}, []string{"circle/1"})
			require.ErrorIs(t, err, bus.ErrScopeHeld)
			require.NoError(t, b.Scopes().Release(ctx, seqs))
			require.NoError(t, b.Scopes().Release(ctx, seqs))
			q, err := b.Queue(ctx)
			require.NoError(t, err)
			require.NoError(t, q.Publish(ctx, bus.Message{Subject: events.TaskSubject("rebalance", "op", "t1")}))
			require.NoError(t, q.Publish(ctx, bus.Message{Subject: events.TaskSubject("rebalance", "op", "t1")}))
			nd, err := q.Fetch(ctx)
			require.NoError(t, err)
			require.NoError(t, nd.Ack(ctx))
			l := b.Log(events.StreamEvents)
			_, err = l.Append(ctx, events.EventSubject("op", "task"), "1", []byte("x"))
			require.NoError(t, err)
			for r, err := range l.Tail(ctx, 1, events.AllEvents) {
				require.NoError(t, err)
				require.Equal(t, "x", string(r.Data))
				break
			}
			p, err := l.Page(ctx, 1, events.AllEvents, 10)
			require.NoError(t, err)
			require.Len(t, p, 1)
			o, err := b.Objects(ctx, events.ObjectStorePlans)
			require.NoError(t, err)
			_, err = o.PutBytes(ctx, "p", []byte("hello"))
			require.NoError(t, err)
			d, err := o.GetBytes(ctx, "p")
			require.NoError(t, err)
			require.Equal(t, "hello", string(d))
			ls, err := b.Leases(ctx)
			require.NoError(t, err)
			le, err := ls.Acquire(ctx, "x", []byte("me"))
			require.NoError(t, err)
			require.NoError(t, le.Renew(ctx))
			require.NoError(t, le.Release(ctx))
		})
	}
}
