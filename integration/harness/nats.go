package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
)

// BuildNATS builds the NATS server that the module is made for into dir, and returns
// the binary.
func BuildNATS(ctx context.Context, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "nats-server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the NATS server: %w\n%s", err, out)
	}
	return binary, nil
}

// NATS is a cluster of NATS servers with the configuration in deploy/nats, each a
// process. Servers reach one another over lines of their own, which Isolate cuts;
// clients reach each over one that the caller may cut too.
type NATS struct {
	*bustest.Deployed

	dir, binary string
	nodes       []*natsNode
	// routes are the lines between servers, by the one that dials and the one that
	// answers; clients those in front of each server.
	routes  map[[2]int]*Line
	clients []*Line
}

type natsNode struct {
	mu     sync.Mutex
	cmd    *exec.Cmd
	done   chan struct{}
	paused bool
}

// StartNATS starts the servers below dir and returns when they are ready.
func StartNATS(ctx context.Context, dir, binary string) (_ *NATS, err error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("starting NATS: %w", err)
	}
	n := &NATS{dir: dir, binary: binary, routes: map[[2]int]*Line{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	through := func(from, to int, address string) (string, error) {
		l, err := NewLine(address)
		if err != nil {
			return "", err
		}
		n.routes[[2]int{from, to}] = l
		return l.Address(), nil
	}
	if n.Deployed, err = bustest.NewDeployed(root, dir, bustest.DeployedOptions{Through: through}); err != nil {
		return nil, err
	}
	for _, node := range n.Nodes {
		l, err := NewLine(node.Client)
		if err != nil {
			return nil, err
		}
		n.clients = append(n.clients, l)
		n.nodes = append(n.nodes, &natsNode{})
	}
	for i := range n.nodes {
		if err := n.launch(i); err != nil {
			return nil, err
		}
	}
	return n, n.AwaitReady(ctx)
}

// Line is in front of a server, for all of its clients.
func (n *NATS) Line(node int) *Line { return n.clients[node] }

// URL names all servers, for a user.
func (n *NATS) URL(user string) string {
	var all []string
	for _, l := range n.clients {
		all = append(all, l.Address())
	}
	return n.URLs(user, all...)
}

// Env is what a program needs in its environment to trust the servers.
func (n *NATS) Env() []string { return []string{"SSL_CERT_FILE=" + n.Authority} }

// Connect connects as the user api.
func (n *NATS) Connect(ctx context.Context, name string) (*bus.Bus, error) {
	return bus.Connect(ctx, bus.Options{URL: n.URL("api"), TLS: n.TLS, Name: name})
}

// launch starts a server that does not run.
func (n *NATS) launch(i int) error {
	node := n.nodes[i]
	log, err := openLog(n.LogFile(i))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.binary, "-c", n.Nodes[i].Config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = os.Environ()
	for name, value := range n.Nodes[i].Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting NATS server %d: %w", i, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(done)
	}()
	node.mu.Lock()
	defer node.mu.Unlock()
	node.cmd, node.done, node.paused = cmd, done, false
	return nil
}

// LogFile is what a server prints to.
func (n *NATS) LogFile(i int) string { return filepath.Join(n.dir, fmt.Sprintf("n%d.log", i+1)) }

// Kill ends a server as a crash does, and waits until it is gone. One that does not
// run is left alone.
func (n *NATS) Kill(i int) {
	node := n.nodes[i]
	node.mu.Lock()
	defer node.mu.Unlock()
	if node.cmd == nil {
		return
	}
	_ = node.cmd.Process.Kill() // it may have ended by itself
	<-node.done
	node.cmd = nil
}

// Start starts a server again that was killed. It returns at once; see AwaitReady.
func (n *NATS) Start(i int) error {
	if n.Running(i) {
		return nil
	}
	return n.launch(i)
}

// Running reports whether a server was started and not killed since.
func (n *NATS) Running(i int) bool {
	n.nodes[i].mu.Lock()
	defer n.nodes[i].mu.Unlock()
	return n.nodes[i].cmd != nil
}

// answers reports whether a server runs and is not paused.
func (n *NATS) answers(i int) bool {
	n.nodes[i].mu.Lock()
	defer n.nodes[i].mu.Unlock()
	return n.nodes[i].cmd != nil && !n.nodes[i].paused
}

// Pause stops a server as if its machine had: its connections stay and nothing is
// answered until Resume.
func (n *NATS) Pause(i int) error { return n.signal(i, syscall.SIGSTOP, true) }

// Resume lets a paused server go on.
func (n *NATS) Resume(i int) error { return n.signal(i, syscall.SIGCONT, false) }

func (n *NATS) signal(i int, s syscall.Signal, paused bool) error {
	node := n.nodes[i]
	node.mu.Lock()
	defer node.mu.Unlock()
	if node.cmd == nil || node.paused == paused {
		return nil
	}
	if err := node.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signalling NATS server %d: %w", i, err)
	}
	node.paused = paused
	return nil
}

// Isolate cuts a server off from the others; its clients still reach it.
func (n *NATS) Isolate(i int) { n.eachRoute(i, (*Line).Cut) }

// Rejoin ends what Isolate has begun.
func (n *NATS) Rejoin(i int) { n.eachRoute(i, (*Line).Mend) }

func (n *NATS) eachRoute(i int, do func(*Line)) {
	for ends, l := range n.routes {
		if ends[0] == i || ends[1] == i {
			do(l)
		}
	}
}

// Heal lets every server run and be reached again.
func (n *NATS) Heal() error {
	var errs []error
	for i := range n.nodes {
		n.Rejoin(i)
		n.Line(i).Mend()
		errs = append(errs, n.Resume(i), n.Start(i))
	}
	return errors.Join(errs...)
}

// AwaitReady waits until every server takes connections, has caught up, and the
// cluster has a leader.
func (n *NATS) AwaitReady(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := n.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for NATS: %w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

func (n *NATS) ready(ctx context.Context) error {
	for i := range n.nodes {
		var health struct{ Status, Error string }
		if err := n.ask(ctx, i, "/healthz", &health); err != nil {
			return err
		}
		if health.Status != "ok" {
			return fmt.Errorf("NATS server %d is %s: %s", i, health.Status, health.Error)
		}
	}
	var js struct {
		Meta struct {
			Leader string
			Size   int `json:"cluster_size"`
		} `json:"meta_cluster"`
	}
	if err := n.ask(ctx, 0, "/jsz", &js); err != nil {
		return err
	}
	if js.Meta.Leader == "" || js.Meta.Size != len(n.nodes) {
		return fmt.Errorf("the cluster of NATS servers has %d members and the leader %q", js.Meta.Size, js.Meta.Leader)
	}
	return nil
}

// askTimeout bounds a question to a server, which may be stopped.
const askTimeout = 2 * time.Second

// ask reads what a server's monitoring says.
func (n *NATS) ask(ctx context.Context, i int, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Nodes[i].Monitor+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("asking NATS server %d: %w", i, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking NATS server %d: %w", i, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("asking NATS server %d: %w", i, err)
	}
	return nil
}

// NATSStream is a stream as one server sees it.
type NATSStream struct {
	Name string
	// Leader is the server that leads it, -1 if it has none.
	Leader int
	// Replicas is how many servers hold it.
	Replicas int
}

// Streams asks a server, which must run, for all streams, buckets and object stores.
func (n *NATS) Streams(ctx context.Context, node int) ([]NATSStream, error) {
	var js struct {
		Accounts []struct {
			Streams []struct {
				Name    string
				Cluster struct{ Leader string }
				Config  struct {
					Replicas int `json:"num_replicas"`
				}
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := n.ask(ctx, node, "/jsz?streams=true&config=true", &js); err != nil {
		return nil, err
	}
	var all []NATSStream
	for _, a := range js.Accounts {
		for _, s := range a.Streams {
			one := NATSStream{Name: s.Name, Leader: -1, Replicas: s.Config.Replicas}
			for i, node := range n.Nodes {
				if node.Env["NATS_SERVER_NAME"] == s.Cluster.Leader {
					one.Leader = i
				}
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// Leader is the server that leads a stream, or -1, as the first that runs sees it.
func (n *NATS) Leader(ctx context.Context, stream string) (int, error) {
	for i := range n.nodes {
		if !n.answers(i) {
			continue
		}
		all, err := n.Streams(ctx, i)
		if err != nil {
			return -1, err
		}
		for _, s := range all {
			if s.Name == stream {
				return s.Leader, nil
			}
		}
		return -1, fmt.Errorf("NATS has no stream %s", stream)
	}
	return -1, errors.New("no NATS server runs")
}

// Close ends the servers and the lines.
func (n *NATS) Close() error {
	var errs []error
	for i := range n.nodes {
		n.Kill(i)
	}
	for _, l := range slices.Concat(n.clients, slices.Collect(maps.Values(n.routes))) {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
