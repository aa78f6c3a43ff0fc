// Package bustest starts real NATS servers for tests: one embedded as in
// production, or a cluster. Everything ends with the test.
package bustest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

// patience bounds every wait of this package.
const patience = 30 * time.Second

// Start starts an embedded server, applies the specs and returns a connection
// inside the process.
func Start(t testing.TB, options ...bus.ApplyOption) (*bus.Bus, *bus.Server) {
	t.Helper()
	s := StartServer(t, t.TempDir())
	b := Connect(t, bus.Options{Server: s})
	Apply(t, b, options...)
	return b, s
}

// System is a NATS for tests that hold whatever it consists of: an embedded server, or
// a cluster of three if the environment variable NATS_NODES says 3.
type System struct {
	// Bus is a connection whose specs have been applied.
	Bus *bus.Bus

	server  *bus.Server
	cluster *Cluster
}

// StartSystem starts a system.
func StartSystem(t testing.TB, options ...bus.ApplyOption) *System {
	t.Helper()
	switch nodes := os.Getenv("NATS_NODES"); nodes {
	case "", "1":
		b, s := Start(t, options...)
		return &System{Bus: b, server: s}
	case "3":
		return StartSystemOfThree(t, options...)
	default:
		t.Fatalf("NATS_NODES is %s, must be 1 or 3", nodes)
		return nil
	}
}

// StartSystemOfThree starts a system that is a cluster, whatever the environment says.
func StartSystemOfThree(t testing.TB, options ...bus.ApplyOption) *System {
	t.Helper()
	b, c := StartCluster(t, 3, options...)
	return &System{Bus: b, cluster: c}
}

// Connect returns one more connection, in a cluster to another server than the first,
// whose calls may take so long; 0 means as long as by default.
func (s *System) Connect(t testing.TB, timeout time.Duration) *bus.Bus {
	t.Helper()
	if s.cluster != nil {
		return Connect(t, s.cluster.Options(1, timeout))
	}
	return Connect(t, bus.Options{URL: s.server.URL(), Token: s.server.Token(), Timeout: timeout})
}

// Restart restarts the server; of a cluster, that to which Bus connects first.
func (s *System) Restart(t testing.TB) {
	t.Helper()
	if s.cluster != nil {
		s.RestartNode(t, 0)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.server.Restart(ctx))
}

// RestartNode restarts one server of a cluster.
func (s *System) RestartNode(t testing.TB, node int) {
	t.Helper()
	require.NotNil(t, s.cluster)
	s.cluster.StopNode(node)
	s.cluster.StartNode(node)
}

// Stop stops every server for good.
func (s *System) Stop(t testing.TB) {
	t.Helper()
	if s.cluster != nil {
		for i := range s.cluster.nodes {
			s.cluster.StopNode(i)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.server.Close(ctx))
}

// StartServer starts an embedded server on dir and stops it with the test.
func StartServer(t testing.TB, dir string) *bus.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := bus.StartServer(ctx, bus.ServerOptions{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.Close(ctx))
	})
	return s
}

// Connect connects and closes with the test.
func Connect(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if o.Name == "" {
		o.Name = t.Name()
	}
	b, err := bus.Connect(ctx, o)
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// Apply applies the specs. A cluster may still be electing its leader.
func Apply(t testing.TB, b *bus.Bus, options ...bus.ApplyOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, b.Apply(ctx, 0, options...))
}

// Cluster is a cluster of servers with JetStream, synced like the embedded one.
type Cluster struct {
	t       testing.TB
	token   string
	options []*natsserver.Options
	nodes   []*natsserver.Server
}

// StartCluster starts n servers, applies the specs with three replicas and
// returns the cluster and a connection to the first server.
func StartCluster(t testing.TB, n int, options ...bus.ApplyOption) (*bus.Bus, *Cluster) {
	t.Helper()
	c := StartServers(t, n)
	b := c.Connect(0)
	Apply(t, b, options...)
	return b, c
}

// StartServers starts n servers with nothing on them.
func StartServers(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{t: t, token: "cluster-test"}
	ports := FreePorts(t, 2*n)
	routes := make([]*url.URL, n)
	for i := range n {
		routes[i] = &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[n+i])}
	}
	for i := range n {
		c.options = append(c.options, &natsserver.Options{
			ServerName:             fmt.Sprintf("n%d", i),
			Host:                   "127.0.0.1",
			Port:                   ports[i],
			Authorization:          c.token,
			Cluster:                natsserver.ClusterOpts{Name: "ringmaster", Host: "127.0.0.1", Port: ports[n+i]},
			Routes:                 routes,
			JetStream:              true,
			StoreDir:               t.TempDir(),
			JetStreamMaxStore:      16 << 30,
			JetStreamMaxMemory:     64 << 20,
			SyncAlways:             true,
			NoSigs:                 true,
			NoLog:                  true,
			DisableJetStreamBanner: true,
		})
		c.nodes = append(c.nodes, nil)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.StopNode(i)
		}
	})
	for i := range n {
		c.StartNode(i)
	}
	require.Eventually(t, func() bool {
		for _, s := range c.nodes {
			if !s.JetStreamIsCurrent() || s.NumRoutes() == 0 {
				return false
			}
			if s.JetStreamIsLeader() {
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond, "cluster has no leader")
	return c
}

// Connect returns a connection to one node. It moves to others when that node
// goes away.
func (c *Cluster) Connect(node int) *bus.Bus {
	c.t.Helper()
	return Connect(c.t, c.Options(node, 0))
}

// Options are those of a connection to one node whose calls may take so long, 0 means
// as long as by default.
func (c *Cluster) Options(node int, timeout time.Duration) bus.Options {
	urls := []string{c.URL(node)}
	for i := range c.options {
		if i != node {
			urls = append(urls, c.URL(i))
		}
	}
	return bus.Options{URL: strings.Join(urls, ","), Token: c.token, Timeout: timeout}
}

// URL is where a node listens.
func (c *Cluster) URL(node int) string {
	return fmt.Sprintf("nats://127.0.0.1:%d", c.options[node].Port)
}

// Token authenticates to every node.
func (c *Cluster) Token() string { return c.token }

// StartNode starts a node that does not run, on its old store.
func (c *Cluster) StartNode(node int) {
	c.t.Helper()
	s, err := natsserver.NewServer(c.options[node].Clone())
	require.NoError(c.t, err)
	c.nodes[node] = s
	s.Start()
	require.True(c.t, s.ReadyForConnections(patience), "node does not start")
}

// StopNode stops a node if it runs. One that is still starting gets a little time
// first: a server that is shut down while it opens its streams leaves some of
// their goroutines behind.
func (c *Cluster) StopNode(node int) {
	if s := c.nodes[node]; s != nil {
		for start := time.Now(); time.Since(start) < 5*time.Second && !settled(s); {
			<-time.After(10 * time.Millisecond)
		}
		s.Shutdown()
		s.WaitForShutdown()
		c.nodes[node] = nil
	}
}

// settled reports whether a node has caught up with every stream.
func settled(s *natsserver.Server) bool {
	var names []string
	for _, spec := range events.Streams() {
		names = append(names, spec.Name)
	}
	for _, spec := range events.Buckets() {
		names = append(names, "KV_"+spec.Name)
	}
	for _, spec := range events.ObjectStores() {
		names = append(names, "OBJ_"+spec.Name)
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		return !s.JetStreamIsStreamCurrent(natsserver.DEFAULT_GLOBAL_ACCOUNT, name)
	})
}

// StreamLeader returns the node that leads a stream, or -1.
func (c *Cluster) StreamLeader(stream string) int {
	for i, s := range c.nodes {
		if s != nil && s.JetStreamIsStreamLeader(natsserver.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return i
		}
	}
	return -1
}

// FreePorts returns ports that are free at this moment.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	all, err := addresses(n)
	require.NoError(t, err)
	ports := make([]int, n)
	for i, a := range all {
		_, port, err := net.SplitHostPort(a)
		require.NoError(t, err)
		ports[i], err = strconv.Atoi(port)
		require.NoError(t, err)
	}
	return ports
}

// Bound changes how many bytes a stream may hold, as an operator could.
func (s *System) Bound(t testing.TB, stream string, maxBytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var url, token string
	if s.cluster != nil {
		url, token = s.cluster.URL(0), s.cluster.Token()
	} else {
		url, token = s.server.URL(), s.server.Token()
	}
	conn, err := nats.Connect(url, nats.Token(token))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	found, err := js.Stream(ctx, stream)
	require.NoError(t, err)
	config := found.CachedInfo().Config
	config.MaxBytes = maxBytes
	_, err = js.UpdateStream(ctx, config)
	require.NoError(t, err)
}
