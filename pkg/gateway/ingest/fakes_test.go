package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/gateway/ingest"
	gatewaysession "ringmaster/pkg/gateway/session"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster returns a topology of circles of backends with these addresses.
func cluster(circles ...[]string) *topology.Topology {
	t := &topology.Topology{Epoch: 1, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256, CreatedAt: time.Unix(0, 0), Source: "test"}
	for i, urls := range circles {
		c := topology.Circle{ID: i, Name: fmt.Sprintf("circle-%d", i)}
		for j, u := range urls {
			c.Backends = append(c.Backends, topology.Backend{Name: fmt.Sprintf("influxdb-%d-%d", i, j), URL: u})
		}
		t.Circles = append(t.Circles, c)
	}
	t.Digest = t.ComputeDigest()
	return t
}

// session is one process's session, alone.
type session struct {
	t        testing.TB
	mu       sync.Mutex
	view     *serving.View
	changed  chan struct{}
	refuse   error
	lost     error // of writes that have begun
	passes   int
	ended    int
	touched  []gatewaysession.Touched
	sends    map[string]int // under way
	sendsEnd chan struct{}
}

func newSession(t testing.TB, topo *topology.Topology) *session {
	v, err := serving.NewView(1, topo, serving.State{})
	require.NoError(t, err)
	return &session{t: t, view: v, changed: make(chan struct{}), sends: map[string]int{}, sendsEnd: make(chan struct{})}
}

func (s *session) View() *serving.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *session) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

type pass struct {
	s    *session
	view *serving.View
}

func (p *pass) View() *serving.View { return p.view }

func (p *pass) Held() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.s.lost
}

func (p *pass) End() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.ended++
}

func (s *session) Tenure() *gatewaysession.Tenure { return nil }

func (s *session) BeginWrite() (ingest.Pass, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.passes++
	return &pass{s, s.view}, nil
}

func (s *session) BeginSend(url string) (serving.Mode, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return "", nil, s.refuse
	}
	s.sends[url]++
	return s.view.Mode(url), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sends[url]--
		close(s.sendsEnd)
		s.sendsEnd = make(chan struct{})
	}, nil
}

func (s *session) Note(_ context.Context, _ *serving.View, touched []gatewaysession.Touched) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = append(s.touched, touched...)
	return nil
}

// change puts another state in force.
func (s *session) change(f func(serving.State) (serving.State, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := f(s.view.State)
	if err != nil {
		return err
	}
	v, err := serving.NewView(s.view.Revision+1, s.view.Topology, next)
	if err != nil {
		return err
	}
	s.view = v
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// turn changes the mode of a backend.
func (s *session) turn(url string, from, to serving.Mode, reason string) error {
	return s.change(func(st serving.State) (serving.State, error) {
		return st.WithMode(url, from, to, reason, time.Unix(0, 0))
	})
}

// awaitSends returns when nothing is under way to a backend.
func (s *session) awaitSends(ctx context.Context, url string) error {
	for {
		s.mu.Lock()
		n, end := s.sends[url], s.sendsEnd
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-end:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keeper turns a suspect backend to hinting as soon as nobody sends any more.
type keeper struct {
	*session
	mu      sync.Mutex
	reasons []string
	err     error
	turning sync.WaitGroup
}

func (k *keeper) Suspect(ctx context.Context, url, reason string) error {
	k.mu.Lock()
	k.reasons = append(k.reasons, reason)
	err := k.err
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if err := k.turn(url, serving.Direct, serving.Suspect, reason); err != nil {
		if errors.Is(err, serving.ErrStep) {
			return nil // it is already
		}
		return err
	}
	k.turning.Go(func() {
		if k.awaitSends(context.WithoutCancel(ctx), url) == nil {
			_ = k.turn(url, serving.Suspect, serving.Hinting, reason)
		}
	})
	return nil
}

func (k *keeper) told() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.reasons)
}

// hints keep frames in memory.
type hints struct {
	mu       sync.Mutex
	frames   map[string][]hint.Frame
	reserved map[string]int64
	err      error
}

func newHints() *hints {
	return &hints{frames: map[string][]hint.Frame{}, reserved: map[string]int64{}}
}

func (h *hints) Append(_ context.Context, url string, f *hint.Frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	kept := *f
	kept.Lines = slices.Clone(f.Lines)
	h.frames[url] = append(h.frames[url], kept)
	return nil
}

func (h *hints) Reserve(url string, bytes int64) (func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, h.err
	}
	h.reserved[url] += bytes
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.reserved[url] -= bytes
	}, nil
}

func (h *hints) of(url string) []hint.Frame {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.frames[url])
}

// rig is a write path over real or null servers.
type rig struct {
	*ingest.Ingest
	session *session
	keeper  *keeper
	hints   *hints
}

func newRig(t testing.TB, topo *topology.Topology, change ...func(*ingest.Options)) *rig {
	t.Helper()
	s := newSession(t, topo)
	r := &rig{session: s, keeper: &keeper{session: s}, hints: newHints()}
	o := ingest.Options{Session: s, Hints: r.hints, Keeper: r.keeper}
	for _, c := range change {
		c(&o)
	}
	var err error
	r.Ingest, err = ingest.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		require.NoError(t, r.Close(ctx))
		r.keeper.turning.Wait()
		require.Zero(t, r.Stats().InFlight, "every byte is given back")
		require.Equal(t, s.passes, s.ended, "every pass ends")
		for url, n := range r.hints.reserved {
			require.Zero(t, n, url)
		}
	})
	return r
}
