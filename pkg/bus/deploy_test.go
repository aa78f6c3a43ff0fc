package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// The configuration in deploy/nats makes a cluster in which each program can do
// its work and no more.
func TestDeployedCluster(t *testing.T) {
	urls, authority := startDeployed(t)
	connect := func(user string, timeout time.Duration) *bus.Bus {
		var as []string
		for _, u := range urls {
			as = append(as, fmt.Sprintf("tls://%s:%s-password@%s", user, user, u))
		}
		return bustest.Connect(t, bus.Options{URL: strings.Join(as, ","), TLS: authority, Timeout: timeout})
	}
	api := connect("api", 0)
	bustest.Apply(t, api)
	ctx := t.Context()

	t.Run("the api does its work", func(t *testing.T) {
		require.NoError(t, api.Probe(ctx))
		for _, b := range events.Buckets() {
			k := api.Bucket(b.Name)
			revision, err := k.Create(ctx, "key", []byte("1"))
			require.NoError(t, err, b.Name)
			revision, err = k.Update(ctx, "key", []byte("2"), revision)
			require.NoError(t, err, b.Name)
			require.NoError(t, k.Delete(ctx, "key", revision), b.Name)
		}
		for _, o := range events.ObjectStores() {
			store, err := api.Objects(ctx, o.Name)
			require.NoError(t, err)
			_, err = store.PutBytes(ctx, "plan", []byte("1"))
			require.NoError(t, err)
			_, err = store.PutBytes(ctx, "plan", []byte("2"))
			require.NoError(t, err)
		}
		sequences, err := api.Scopes().Take(ctx, "op", bus.Message{Subject: events.CommandSubject("rebalance", "op")}, []string{"circle/0"})
		require.NoError(t, err)
		require.NoError(t, api.Scopes().Release(ctx, sequences))
		for subject, stream := range map[string]string{
			events.EventSubject("op", events.NounTask): events.StreamEvents,
			events.AuditSubject("op"):                  events.StreamAudit,
			events.DeadLetterSubject("TASKS"):          events.StreamDeadLetters,
		} {
			log := api.Log(stream)
			_, err := log.Append(ctx, subject, subject, nil)
			require.NoError(t, err)
			for _, err := range log.Tail(ctx, 1, subject) {
				require.NoError(t, err)
				break
			}
		}
	})

	t.Run("a worker does its work", func(t *testing.T) {
		worker := connect("worker", 0)
		queue, err := worker.Queue(ctx)
		require.NoError(t, err)
		require.NoError(t, queue.Publish(ctx, nudge(t, "1")))
		n := fetch(t, queue)
		leases, err := worker.Leases(ctx)
		require.NoError(t, err)
		lease, err := leases.Acquire(ctx, "task", []byte("worker"))
		require.NoError(t, err)
		require.NoError(t, lease.Renew(ctx))
		for _, err := range leases.Bucket().List(ctx, "") {
			require.NoError(t, err)
		}
		tasks := worker.Bucket(events.BucketTasks)
		revision, err := tasks.Create(ctx, "op.1", []byte("1"))
		require.NoError(t, err)
		_, err = tasks.Update(ctx, "op.1", []byte("2"), revision)
		require.NoError(t, err)
		for _, b := range events.Buckets() {
			_, err := worker.Bucket(b.Name).Get(ctx, "none")
			require.ErrorIs(t, err, bus.ErrNotFound, b.Name)
		}
		plans, err := worker.Objects(ctx, events.ObjectStorePlans)
		require.NoError(t, err)
		plan, err := plans.GetBytes(ctx, "plan")
		require.NoError(t, err)
		require.Equal(t, "2", string(plan))
		_, err = worker.Log(events.StreamEvents).Append(ctx, events.EventSubject("op", events.NounTask), "id", nil)
		require.NoError(t, err)
		_, err = worker.Log(events.StreamDeadLetters).Append(ctx, events.DeadLetterSubject("TASKS"), "id", nil)
		require.NoError(t, err)
		require.NoError(t, n.Working())
		require.NoError(t, n.Ack(ctx))
		require.NoError(t, lease.Release(ctx))
	})

	t.Run("a worker does no more", func(t *testing.T) {
		sequences, err := api.Scopes().Take(ctx, "mine", bus.Message{Subject: events.CommandSubject("rebalance", "mine")}, []string{"circle/1"})
		require.NoError(t, err)
		worker := connect("worker", 500*time.Millisecond) // what is refused is not answered
		_, err = worker.Scopes().Take(ctx, "op", bus.Message{Subject: events.CommandSubject("rebalance", "op")}, []string{"circle/0"})
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.ErrorIs(t, worker.Scopes().Release(ctx, sequences), bus.ErrUnavailable)
		for _, name := range []string{events.BucketOperations, events.BucketTopology, events.BucketIdempotency} {
			_, err := worker.Bucket(name).Create(ctx, "key", nil)
			require.ErrorIs(t, err, bus.ErrUnavailable, name)
			_, err = api.Bucket(name).Get(ctx, "key")
			require.ErrorIs(t, err, bus.ErrNotFound, name)
		}
		plans, err := worker.Objects(ctx, events.ObjectStorePlans)
		require.NoError(t, err)
		_, err = plans.PutBytes(ctx, "plan", []byte("3"))
		require.ErrorIs(t, err, bus.ErrUnavailable)
		_, err = worker.Log(events.StreamAudit).Append(ctx, events.AuditSubject("op"), "id2", nil)
		require.ErrorIs(t, err, bus.ErrUnavailable)
		lock, err := api.Scopes().Holder(ctx, "circle/1")
		require.NoError(t, err)
		require.Equal(t, "mine", lock.Holder)
	})

	t.Run("nobody destroys a stream, and nobody comes in without a name", func(t *testing.T) {
		conn, err := nats.Connect("tls://api:api-password@"+urls[0], nats.Secure(authority))
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Request("$JS.API.STREAM.DELETE."+events.StreamCommands, nil, 500*time.Millisecond)
		require.ErrorIs(t, err, nats.ErrTimeout)
		for _, user := range []string{"", "api:worker-password@"} {
			_, err = nats.Connect("tls://"+user+urls[0], nats.Secure(authority))
			require.ErrorIs(t, err, nats.ErrAuthorization)
		}
	})
}

// startDeployed runs three servers with the configuration in deploy/nats, whose
// addresses and directories are changed to ones that exist here.
func startDeployed(t *testing.T) (urls []string, authority *tls.Config) {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/nats/nats.conf")
	require.NoError(t, err)
	const n = 3
	ports := bustest.FreePorts(t, 2*n)
	dir := t.TempDir()
	authority = writeCertificates(t, dir)
	for _, user := range []string{"RINGMASTER_API", "RINGMASTER_WORKER", "NATS_SYSTEM"} {
		_, name, _ := strings.Cut(user, "_")
		t.Setenv(user+"_PASSWORD", strings.ToLower(name)+"-password")
	}
	var nodes []*natsserver.Server
	t.Cleanup(func() {
		for _, s := range nodes {
			s.Shutdown()
		}
		for _, s := range nodes {
			s.WaitForShutdown()
		}
	})
	for i := range n {
		t.Setenv("NATS_SERVER_NAME", fmt.Sprintf("n%d", i+1))
		changes := []string{
			"0.0.0.0:4222", fmt.Sprintf("127.0.0.1:%d", ports[i]),
			"0.0.0.0:6222", fmt.Sprintf("127.0.0.1:%d", ports[n+i]),
			"127.0.0.1:8222", "127.0.0.1:-1",
			"/etc/nats/tls", dir,
			"/var/lib/nats", filepath.Join(dir, fmt.Sprintf("n%d", i+1)),
		}
		for j := range n {
			changes = append(changes, fmt.Sprintf("nats-%d:6222", j+1), fmt.Sprintf("127.0.0.1:%d", ports[n+j]))
		}
		for j := 0; j < len(changes); j += 2 {
			require.Contains(t, string(raw), changes[j])
		}
		file := filepath.Join(dir, fmt.Sprintf("n%d.conf", i+1))
		require.NoError(t, os.WriteFile(file, []byte(strings.NewReplacer(changes...).Replace(string(raw))), 0o600))
		o, err := natsserver.ProcessConfigFile(file)
		require.NoError(t, err)
		require.True(t, o.SyncAlways, "an acknowledgement means that it is on disk")
		require.Positive(t, o.JetStreamMaxStore)
		o.NoSigs, o.NoLog = true, true
		s, err := natsserver.NewServer(o)
		require.NoError(t, err)
		nodes = append(nodes, s)
		s.Start()
		urls = append(urls, fmt.Sprintf("127.0.0.1:%d", ports[i]))
	}
	for _, s := range nodes {
		require.True(t, s.ReadyForConnections(patience))
	}
	require.Eventually(t, func() bool {
		for _, s := range nodes {
			if s.JetStreamIsLeader() {
				return true
			}
		}
		return false
	}, patience, tick, "the cluster has no leader")
	return urls, authority
}

// writeCertificates makes an authority and a certificate for this host, and
// returns what a client needs to know of them.
func writeCertificates(t *testing.T, dir string) *tls.Config {
	t.Helper()
	write := func(name, kind string, content []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	until := time.Now().Add(time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := key()
	raw, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	require.NoError(t, err)
	write("ca.pem", "CERTIFICATE", raw)
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	serverKey := key()
	signed, err := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	require.NoError(t, err)
	write("server.pem", "CERTIFICATE", signed)
	private, err := x509.MarshalPKCS8PrivateKey(serverKey)
	require.NoError(t, err)
	write("server-key.pem", "PRIVATE KEY", private)
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	pool.AddCert(parsed)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}
