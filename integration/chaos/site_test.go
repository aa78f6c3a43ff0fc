// Package chaos_test runs the whole for a while with everything going wrong at random,
// and looks all along whether what is promised holds. A run is the moves that a seed
// chooses; what the machine makes of them differs a little each time.
package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/integration/traffic"
	"ringmaster/pkg/influx/influxtest"
)

const (
	// startTimeout bounds the start of a process, while others are in trouble.
	startTimeout = 2 * time.Minute
	database     = "chaos"
	// lease is short, so that work changes hands often.
	lease = "3s"
)

// site is three NATS servers, two gateways, four workers and two circles of three
// backends, with clients at work.
type site struct {
	t        *testing.T
	nats     *harness.NATS
	backends []*backend
	gateways []*gateway
	workers  []*process
	traffic  *traffic.Traffic
	witness  *witness
}

// process is a program of ours, and its own lines to the NATS servers.
type process struct {
	name  string
	lines []*harness.Line
	start func(ctx context.Context) (*harness.Program, error)

	mu      sync.Mutex
	program *harness.Program
	ended   []*harness.Program
}

// gateway is an api.
type gateway struct {
	*process

	cluster *harness.Cluster
}

// backend is an InfluxDB server behind a proxy.
type backend struct {
	circle int
	url    string
	proxy  *harness.Proxy
	// process is changed by one fault at a time.
	process *influxtest.Process
}

// restart starts the server again that was killed.
func (b *backend) restart(ctx context.Context) error {
	next, err := b.process.Restart(ctx)
	if err == nil {
		b.process = next
	}
	return err
}

func newSite(t *testing.T, seed uint64) *site {
	t.Helper()
	bin := t.TempDir()
	require.NoError(t, harness.BuildPrograms(t.Context(), bin))
	binary, err := harness.BuildNATS(t.Context(), bin)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s := &site{t: t, witness: newWitness()}
	s.nats, err = harness.StartNATS(ctx, filepath.Join(t.TempDir(), "nats"), binary)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.nats.Close()) })
	for i := range 6 {
		s.addBackend(ctx, i/3)
	}
	t.Cleanup(s.stop)
	for i := range 2 {
		s.addGateway(ctx, bin, i)
	}
	for i := range 4 {
		s.addWorker(ctx, bin, i)
	}
	s.query("CREATE DATABASE " + database)
	s.traffic = traffic.Start(traffic.Options{
		Targets: []string{s.gateways[0].cluster.Client.URL, s.gateways[1].cluster.Client.URL}, Database: database,
		Writers: 4, Measurements: 4, Readers: 2, Batch: 12, Faults: true, Seed: seed,
		Begin: time.Now().Add(-20 * 24 * time.Hour), Step: 1009 * time.Second, Most: 900, Pause: 10 * time.Millisecond,
	})
	t.Cleanup(func() { s.traffic.Stop() })
	return s
}

func (s *site) addBackend(ctx context.Context, circle int) {
	s.t.Helper()
	p, err := influxtest.Launch(ctx, influxtest.Config{Dir: s.t.TempDir()})
	require.NoError(s.t, err)
	b := &backend{process: p, url: p.URL(), circle: circle}
	s.t.Cleanup(func() { require.NoError(s.t, b.process.Stop()) })
	b.proxy, err = harness.NewProxy(b.url)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, b.proxy.Close()) })
	s.backends = append(s.backends, b)
	s.serve(b, nil)
}

// serve has a backend's requests handled by h, nil means as they should be. What
// deletes is looked at first.
func (s *site) serve(b *backend, h http.HandlerFunc) {
	if h != nil {
		b.proxy.HandleAll(h)
		return
	}
	b.proxy.HandleAll(func(w http.ResponseWriter, r *http.Request) {
		if q := harness.Statements(r); strings.Contains(q, "DELETE FROM") {
			s.witness.deletion(s, b, q)
		}
		b.proxy.Forward(w, r)
	})
}

// own opens the lines of a process to the NATS servers, and returns the flag that
// leads over them.
func (s *site) own(p *process, user string) []string {
	s.t.Helper()
	var addresses []string
	for _, node := range s.nats.Nodes {
		l, err := harness.NewLine(node.Client)
		require.NoError(s.t, err)
		s.t.Cleanup(func() { require.NoError(s.t, l.Close()) })
		p.lines = append(p.lines, l)
		addresses = append(addresses, l.Address())
	}
	return []string{"-nats", s.nats.URLs(user, addresses...)}
}

// circles is the configuration: the third backend of the first circle comes and goes.
func (s *site) circles(third bool) []harness.Circle {
	all := []harness.Circle{{Name: "one"}, {Name: "two"}}
	for i, b := range s.backends {
		if i == 2 && !third {
			continue
		}
		all[b.circle].Backends = append(all[b.circle].Backends, harness.Backend{Name: fmt.Sprintf("backend-%d", i), URL: b.proxy.URL()})
	}
	return all
}

func (s *site) addGateway(ctx context.Context, bin string, i int) {
	s.t.Helper()
	c, err := harness.NewCluster(s.t.TempDir(), bin, nil)
	require.NoError(s.t, err)
	c.Settings = map[string]any{"check_interval": 1}
	g := &gateway{process: &process{name: fmt.Sprint("api ", i)}, cluster: c}
	require.NoError(s.t, c.WriteCircles(s.circles(true)...))
	args := append(s.own(g.process, "api"), "-accept-config", "-slots", "0", "-lease", lease, "-patience", "30s", "-backend-timeout", "3s")
	if i > 0 {
		args = append(args, "-key-file", filepath.Join(s.gateways[0].cluster.DataDir(), "key"))
	}
	g.start = func(ctx context.Context) (*harness.Program, error) {
		return harness.StartProgramWith(ctx, nil, s.nats.Env(), filepath.Join(bin, "api"), append([]string{"-config", c.ConfigFile()}, args...)...)
	}
	require.NoError(s.t, g.launch(ctx))
	s.gateways = append(s.gateways, g)
}

func (s *site) addWorker(ctx context.Context, bin string, i int) {
	s.t.Helper()
	p := &process{name: fmt.Sprint("worker ", i)}
	args := append(s.own(p, "worker"), "-slots", "2", "-patience", "30s", "-backend-timeout", "3s")
	p.start = func(ctx context.Context) (*harness.Program, error) {
		return harness.StartProgramWith(ctx, nil, s.nats.Env(), filepath.Join(bin, "worker"), append([]string{"-data", s.gateways[0].cluster.DataDir()}, args...)...)
	}
	require.NoError(s.t, p.launch(ctx))
	s.workers = append(s.workers, p)
}

// launch starts the process if it does not run.
func (p *process) launch(ctx context.Context) error {
	if p.running() != nil {
		return nil
	}
	program, err := p.start(ctx)
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program = program
	return nil
}

func (p *process) running() *harness.Program {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.program
}

// end takes the process out, by kill or in order.
func (p *process) end(kill bool) error {
	p.mu.Lock()
	program := p.program
	p.program = nil
	if program != nil {
		p.ended = append(p.ended, program)
	}
	p.mu.Unlock()
	switch {
	case program == nil:
		return nil
	case kill:
		program.Kill()
		return nil
	default:
		_, err := program.Stop()
		return err
	}
}

// outputs is what the process has printed, in all its lives.
func (p *process) outputs() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, program := range p.ended {
		all = append(all, program.Output())
	}
	if p.program != nil {
		all = append(all, p.program.Output())
	}
	return all
}

// processes are workers and gateways.
func (s *site) processes() []*process {
	all := append([]*process{}, s.workers...)
	for _, g := range s.gateways {
		all = append(all, g.process)
	}
	return all
}

// stop ends our programs, and shows what they have printed if the test has failed.
func (s *site) stop() {
	for _, p := range s.processes() {
		for _, l := range p.lines {
			l.Mend()
		}
		if err := p.end(false); err != nil {
			s.t.Errorf("%s did not stop: %v", p.name, err)
		}
		for _, out := range p.outputs() {
			for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
				if strings.Contains(out, bad) {
					s.t.Errorf("%s printed %q", p.name, bad)
				}
			}
		}
	}
	if !s.t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "ringmaster-chaos-")
	if err != nil {
		s.t.Logf("keeping the logs: %v", err)
		return
	}
	for _, p := range s.processes() {
		for i, out := range p.outputs() {
			name := filepath.Join(dir, strings.ReplaceAll(p.name, " ", "-")+fmt.Sprintf("-%d.log", i))
			if err := os.WriteFile(name, []byte(out), 0o600); err != nil {
				s.t.Logf("keeping the logs: %v", err)
			}
		}
	}
	for i := range s.nats.Nodes {
		if raw, err := os.ReadFile(s.nats.LogFile(i)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("nats-%d.log", i)), raw, 0o600) // a help, no more
		}
	}
	s.t.Logf("the logs of all processes are in %s", dir)
}

// query sends a statement until it is carried out.
func (s *site) query(statement string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s.eventually(startTimeout, "a statement is carried out: "+statement, func() error {
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		res, body, err := s.gateways[0].cluster.Client.Do(ctx, http.MethodPost, "/query", header, []byte("q="+strings.ReplaceAll(statement, " ", "+")))
		if err == nil && (res.StatusCode != http.StatusOK || strings.Contains(string(body), `"error"`)) {
			err = fmt.Errorf("%s: %s", res.Status, body)
		}
		return err
	})
}

// eventually requires that something comes true within a time.
func (s *site) eventually(within time.Duration, what string, check func() error) {
	s.t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(within); ; <-ticker.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			require.FailNow(s.t, "this did not come true within "+within.String(), "%s: %v", what, err)
		}
	}
}
