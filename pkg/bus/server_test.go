package bus_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

func stop(t *testing.T, s *bus.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Close(ctx))
}

func TestServerRefusesASecondOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := bustest.StartServer(t, dir)

	_, err := bus.StartServer(t.Context(), bus.ServerOptions{Dir: dir})
	require.ErrorIs(t, err, bus.ErrStoreInUse)
	require.ErrorContains(t, err, fmt.Sprintf("process %d", os.Getpid()))

	out, err := child(t, "start", dir).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), fmt.Sprintf("store directory is in use: process %d", os.Getpid()))

	stop(t, first)
	out, err = child(t, "start", dir).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestServerKeepsPortTokenAndDataOverRestarts(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	s := bustest.StartServer(t, dir)
	before, err := bus.ReadNATSFile(dir)
	require.NoError(t, err)
	require.Equal(t, bus.NATSFile{URL: s.URL(), Token: s.Token()}, before)
	info, err := os.Stat(filepath.Join(dir, "nats.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	b := bustest.Connect(t, bus.Options{URL: before.URL, Token: before.Token})
	bustest.Apply(t, b)
	require.DirExists(t, filepath.Join(dir, "jetstream", "$G"), "the store is where it is said to be")
	k := b.Bucket(events.BucketOperations)
	revision, err := k.Create(ctx, "a", []byte("1"))
	require.NoError(t, err)
	sequences, err := take(t, b, "op", "circle/0")
	require.NoError(t, err)
	changes, err := k.Watch(ctx, "")
	require.NoError(t, err)

	stop(t, s)
	require.ErrorIs(t, b.Probe(ctx), bus.ErrUnavailable)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = k.Get(short, "a")
	require.ErrorIs(t, err, bus.ErrUnavailable)
	waiting := make(chan error, 1)
	go func() {
		_, err := k.Update(ctx, "a", []byte("2"), revision)
		waiting <- err
	}()

	bustest.StartServer(t, dir)
	after, err := bus.ReadNATSFile(dir)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, <-waiting, "a call outlasts the restart")
	bustest.Apply(t, b)
	got, err := k.Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "2", string(got.Value))
	lock, err := b.Scopes().Holder(ctx, "circle/0")
	require.NoError(t, err)
	require.Equal(t, sequences[1], lock.Sequence)
	start := time.Now()
	change := <-changes
	require.Equal(t, "2", string(change.Value))
	t.Logf("watcher was %v late after the restart", time.Since(start).Round(time.Millisecond))
}

func TestServerListenAddress(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, listen := range []string{"0.0.0.0:0", ":0", "192.0.2.1:4222", "example.org:4222", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"} {
		_, err := bus.StartServer(ctx, bus.ServerOptions{Dir: t.TempDir(), Listen: listen})
		require.ErrorContains(t, err, "listen address", listen)
	}
	_, err := bus.StartServer(ctx, bus.ServerOptions{})
	require.Error(t, err)

	// An address that is given.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	_, err = bus.StartServer(ctx, bus.ServerOptions{Dir: t.TempDir(), Listen: address})
	require.ErrorIs(t, err, bus.ErrPortTaken)
	require.ErrorContains(t, err, address)
	require.NoError(t, l.Close())
	dir := t.TempDir()
	s, err := bus.StartServer(ctx, bus.ServerOptions{Dir: dir, Listen: address})
	require.NoError(t, err)
	require.Equal(t, "nats://"+address, s.URL())
	stop(t, s)

	// A kept port that another process has taken meanwhile.
	s = bustest.StartServer(t, dir)
	u, err := url.Parse(s.URL())
	require.NoError(t, err)
	stop(t, s)
	l, err = net.Listen("tcp", u.Host)
	require.NoError(t, err)
	_, err = bus.StartServer(ctx, bus.ServerOptions{Dir: dir})
	require.ErrorIs(t, err, bus.ErrPortTaken)
	require.ErrorContains(t, err, filepath.Join(dir, "nats.json"))
	require.NoError(t, l.Close())
	stop(t, bustest.StartServer(t, dir)) // the lock was given up

	// A file that cannot be read is not overwritten.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nats.json"), []byte("{"), 0o600))
	_, err = bus.StartServer(ctx, bus.ServerOptions{Dir: dir})
	require.ErrorContains(t, err, "nats.json")
}

// kill -9 of the process that hosts the server: everything that was acknowledged
// is there, under the same sequence, and of a batch there is all or nothing.
func TestServerKeepsAcknowledgedMessagesWhenKilled(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for round := range 3 {
		dir := t.TempDir()
		type ack struct {
			i                           int
			sequence, revision, command uint64
		}
		var acks []ack
		cmd := child(t, "write", dir)
		output := lines(t, cmd)
		require.NoError(t, cmd.Start())
		for len(acks) < 40+round && output.Scan() {
			var a ack
			_, err := fmt.Sscan(output.Text(), &a.i, &a.sequence, &a.revision, &a.command)
			require.NoError(t, err, output.Text())
			acks = append(acks, a)
		}
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		require.Len(t, acks, 40+round)

		b := bustest.Connect(t, bus.Options{Server: bustest.StartServer(t, dir)})
		held := map[string][]uint64{}
		for r, err := range b.Scopes().Open(ctx, events.AllCommands) {
			require.NoError(t, err)
			_, operation, ok := events.ParseCommandSubject(r.Subject)
			require.True(t, ok)
			held[operation] = append(held[operation], r.Sequence)
		}
		for r, err := range b.Scopes().Open(ctx, events.AllScopes) {
			require.NoError(t, err)
			held[string(r.Data)] = append(held[string(r.Data)], r.Sequence)
		}
		for operation, sequences := range held {
			require.Len(t, sequences, 3, operation)
		}
		for _, a := range acks {
			page, err := b.Log(events.StreamAudit).Page(ctx, a.sequence, events.AllAudit, 1)
			require.NoError(t, err)
			require.Len(t, page, 1)
			require.Equal(t, a.sequence, page[0].Sequence)
			require.Equal(t, fmt.Sprint(a.i), string(page[0].Data))
			got, err := b.Bucket(events.BucketOperations).Get(ctx, fmt.Sprintf("op.%d", a.i))
			require.NoError(t, err)
			require.Equal(t, a.revision, got.Revision)
			require.Equal(t, []uint64{a.command, a.command + 1, a.command + 2}, held[fmt.Sprint("op-", a.i)])
		}
	}
}

// Servers start and stop, and are stopped by several at once, without leaving
// anything behind.
func TestServerStartStopStress(t *testing.T) {
	t.Parallel()
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
			defer cancel()
			for range rounds {
				s, err := bus.StartServer(ctx, bus.ServerOptions{Dir: filepath.Join(dir, fmt.Sprint(i))})
				if err != nil {
					t.Error(err)
					return
				}
				var closing sync.WaitGroup
				for range 3 {
					closing.Go(func() {
						if err := s.Close(ctx); err != nil {
							t.Error(err)
						}
					})
				}
				closing.Wait()
			}
		})
	}
	wg.Wait()
}

func TestServerCloseGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := bustest.StartServer(t, dir)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ended); err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	stop(t, s)
	stop(t, bustest.StartServer(t, dir))
}

func TestReadNATSFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := bus.ReadNATSFile(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, content := range []string{"", "[]", `{"url":"nats://127.0.0.1:1"}`, `{"token":"x"}`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "nats.json"), []byte(content), 0o600))
		_, err := bus.ReadNATSFile(dir)
		require.ErrorContains(t, err, "nats.json")
		require.NotErrorIs(t, err, os.ErrNotExist)
	}
}
