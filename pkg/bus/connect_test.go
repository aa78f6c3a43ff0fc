package bus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

func TestConnectNeedsTheToken(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t, t.TempDir())
	for _, token := range []string{"", "wrong"} {
		_, err := bus.Connect(t.Context(), bus.Options{URL: s.URL(), Token: token})
		require.ErrorContains(t, err, "Authorization", token)
		require.NotErrorIs(t, err, bus.ErrUnavailable)
		require.NotContains(t, err.Error(), s.Token())
	}
}

func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := bustest.StartServer(t, dir)
	o := bus.Options{URL: s.URL(), Token: s.Token()}
	stop(t, s)

	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(short, o)
	require.ErrorIs(t, err, bus.ErrUnavailable)

	connected := make(chan error, 1)
	go func() {
		b, err := bus.Connect(t.Context(), o)
		if err == nil {
			b.Close()
		}
		connected <- err
	}()
	bustest.StartServer(t, dir)
	require.NoError(t, <-connected)
}

func TestConnectWithTLS(t *testing.T) {
	t.Parallel()
	certificate, roots := selfSigned(t)
	s, err := bus.StartServer(t.Context(), bus.ServerOptions{
		Dir: t.TempDir(), Listen: "0.0.0.0:0", TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
	})
	require.NoError(t, err)
	defer stop(t, s)
	require.Contains(t, s.URL(), "tls://127.0.0.1:")
	inside := bustest.Connect(t, bus.Options{Server: s})
	bustest.Apply(t, inside)
	outside := bustest.Connect(t, bus.Options{URL: s.URL(), Token: s.Token(), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}})
	require.NoError(t, outside.Probe(t.Context()))
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// Everything that waits on a bus ends when it is closed.
func TestBusCloseEndsReaders(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, s := bustest.Start(t)
	b, err := bus.Connect(ctx, bus.Options{Server: s})
	require.NoError(t, err)
	q, err := b.Queue(ctx)
	require.NoError(t, err)
	changes, err := b.Bucket(events.BucketOperations).Watch(ctx, "")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range changes {
		}
	})
	wg.Go(func() {
		if _, err := q.Fetch(ctx); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("fetch: %v", err)
		}
	})
	wg.Go(func() {
		for _, err := range b.Log(events.StreamEvents).Tail(ctx, 0, events.AllEvents) {
			if err != nil && !errors.Is(err, bus.ErrClosed) {
				t.Errorf("tail: %v", err)
			}
		}
	})
	_, err = b.Log(events.StreamEvents).Append(ctx, events.EventSubject("op", "task"), "", nil)
	require.NoError(t, err)
	b.Close()
	wg.Wait()
	b.Close()
	_, err = b.Bucket(events.BucketOperations).Get(ctx, "a")
	require.ErrorIs(t, err, bus.ErrClosed)
	require.ErrorIs(t, b.Probe(ctx), bus.ErrClosed)
}

// Connections open and close while others work.
func TestBusStartStopStress(t *testing.T) {
	t.Parallel()
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	_, s := bustest.Start(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range rounds {
				b, err := bus.Connect(t.Context(), bus.Options{Server: s})
				if err != nil {
					t.Error(err)
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				changes, err := b.Bucket(events.BucketTasks).Watch(ctx, "")
				if err != nil {
					t.Error(err)
				}
				if err := b.Probe(ctx); err != nil {
					t.Error(err)
				}
				cancel()
				b.Close()
				for range changes {
				}
			}
		})
	}
	wg.Wait()
}
