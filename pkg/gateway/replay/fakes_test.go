package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	leaseTTL   = 900 * time.Millisecond
	viewDelay  = 20 * time.Millisecond
	backendURL = "http://10.0.0.1:8086"
)

// cluster is what processes share: the record, the sessions, the leases, the hints
// and the backends, all in memory.
type cluster struct {
	t        testing.TB
	mu       sync.Mutex
	revision uint64
	topology *topology.Topology
	state    serving.State
	sessions []*fakeSession
	leases   map[string]*lease
	streams  map[string]*stream
	backends map[string]*backend
	letters  map[string]events.PointsRefuse
}

// newCluster has circles of backends with these URLs.
func newCluster(t testing.TB, circles ...[]string) *cluster {
	c := &cluster{
		t: t, leases: map[string]*lease{}, streams: map[string]*stream{}, backends: map[string]*backend{},
		letters: map[string]events.PointsRefuse{},
	}
	c.shape(t, 1, circles...)
	return c
}

// shape sets the topology, without a transition.
func (c *cluster) shape(t testing.TB, epoch uint64, circles ...[]string) {
	top := &topology.Topology{Epoch: epoch, HashKey: "url", ShardKey: "%db,%mm", VNodes: 64}
	for i, urls := range circles {
		circle := topology.Circle{ID: i, Name: fmt.Sprint("circle-", i)}
		for j, url := range urls {
			circle.Backends = append(circle.Backends, topology.Backend{Name: fmt.Sprintf("b-%d-%d", i, j), URL: url})
			if c.backends[url] == nil {
				c.backends[url] = &backend{url: url, values: map[string]string{}}
			}
		}
		top.Circles = append(top.Circles, circle)
	}
	_, err := serving.NewView(1, top, serving.State{})
	require.NoError(t, err)
	c.mu.Lock()
	c.topology = top
	c.revision++
	c.mu.Unlock()
	c.publish()
}

func (c *cluster) view() *serving.View {
	v, err := serving.NewView(c.revision, c.topology, c.state)
	if err != nil {
		c.t.Errorf("the view of revision %d: %v", c.revision, err)
		return &serving.View{}
	}
	return v
}

// publish tells every session of the record, each a little later.
func (c *cluster) publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view()
	for i, s := range c.sessions {
		time.AfterFunc(viewDelay*time.Duration(i), func() { s.install(v) })
	}
}

// fakeSession is a process's.
type fakeSession struct {
	cluster *cluster

	mu      sync.Mutex
	current *serving.View
	changed chan struct{}
	sends   map[*serving.View]map[string]int
	dead    time.Time // when nobody waits for it any more
}

func (c *cluster) session() *fakeSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &fakeSession{cluster: c, current: c.view(), changed: make(chan struct{}), sends: map[*serving.View]map[string]int{}}
	c.sessions = append(c.sessions, s)
	return s
}

func (s *fakeSession) install(v *serving.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.Revision <= s.current.Revision {
		return
	}
	s.current = v
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeSession) View() *serving.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *fakeSession) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

var errDead = errors.New("its session has run out")

func (s *fakeSession) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead.IsZero()
}

func (s *fakeSession) BeginSend(url string) (serving.Mode, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dead.IsZero() {
		return "", nil, errDead
	}
	v := s.current
	if s.sends[v] == nil {
		s.sends[v] = map[string]int{}
	}
	s.sends[v][url]++
	return v.Mode(url), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sends[v][url]--; s.sends[v][url] == 0 {
			delete(s.sends[v], url)
		}
	}, nil
}

func (s *fakeSession) Change(ctx context.Context, change func(*serving.View) (serving.State, error)) (*serving.View, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if s.isDead() {
			return nil, errDead
		}
		s.cluster.mu.Lock()
		v := s.cluster.view()
		s.cluster.mu.Unlock()
		next, err := change(v)
		if err != nil {
			return nil, err
		}
		s.cluster.mu.Lock()
		if s.cluster.revision != v.Revision {
			s.cluster.mu.Unlock()
			continue
		}
		s.cluster.state = next
		s.cluster.revision++
		v = s.cluster.view()
		s.cluster.mu.Unlock()
		s.cluster.publish()
		s.install(v)
		return v, nil
	}
}

// passed reports whether nothing goes on by a mode of a revision older than this.
func (s *fakeSession) passed(revision uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dead.IsZero() && time.Now().After(s.dead) {
		return true
	}
	if s.current.Revision < revision {
		return false
	}
	for v, sends := range s.sends {
		for url := range sends {
			if v.Revision < revision && v.Mode(url) != s.current.Mode(url) {
				return false
			}
		}
	}
	return true
}

func (s *fakeSession) AwaitSends(ctx context.Context, revision uint64) error {
	for {
		s.cluster.mu.Lock()
		sessions := slices.Clone(s.cluster.sessions)
		s.cluster.mu.Unlock()
		if !slices.ContainsFunc(sessions, func(s *fakeSession) bool { return !s.passed(revision) }) {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// process is the leases as one process sees them.
type process struct {
	cluster *cluster
	mu      sync.Mutex
	gone    bool // it renews and releases nothing any more
}

func (p *process) TTL() time.Duration { return leaseTTL }

// lease is one lease of one holder.
type lease struct {
	process *process
	key     string
	expires time.Time
}

func (p *process) Acquire(_ context.Context, key string, _ []byte) (replay.Lease, error) {
	p.cluster.mu.Lock()
	defer p.cluster.mu.Unlock()
	if l := p.cluster.leases[key]; l != nil && time.Now().Before(l.expires) {
		return nil, &bus.HeldError{Key: key}
	}
	l := &lease{process: p, key: key, expires: time.Now().Add(leaseTTL)}
	p.cluster.leases[key] = l
	return l, nil
}

func (l *lease) Expires() time.Time {
	l.process.cluster.mu.Lock()
	defer l.process.cluster.mu.Unlock()
	return l.expires
}

func (l *lease) Held() bool { return time.Now().Before(l.Expires()) }

func (l *lease) Renew(context.Context) error {
	l.process.cluster.mu.Lock()
	defer l.process.cluster.mu.Unlock()
	if l.process.isGone() {
		return bus.ErrUnavailable
	}
	if l.process.cluster.leases[l.key] != l || !time.Now().Before(l.expires) {
		return bus.ErrLeaseLost
	}
	l.expires = time.Now().Add(leaseTTL)
	return nil
}

func (l *lease) Release(context.Context) error {
	l.process.cluster.mu.Lock()
	defer l.process.cluster.mu.Unlock()
	if l.process.isGone() {
		return nil
	}
	if l.process.cluster.leases[l.key] == l {
		delete(l.process.cluster.leases, l.key)
	}
	l.expires = time.Time{}
	return nil
}

func (p *process) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// stream is a backend's hints.
type stream struct {
	mu       sync.Mutex
	url      string
	first    uint64
	messages [][]byte
	times    []time.Time
	maxBytes int64
}

func (c *cluster) Open(_ context.Context, url string, maxBytes int64) (replay.Hints, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[url] == nil {
		c.streams[url] = &stream{url: url, first: 1, maxBytes: maxBytes}
	}
	return c.streams[url], nil
}

func (c *cluster) List(ctx context.Context) (all []bus.HintsState, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		state, err := s.State(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, state)
	}
	return all, nil
}

func (c *cluster) Remove(_ context.Context, url string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[url]; s != nil && len(s.messages) > 0 {
		return bus.ErrNotEmpty
	}
	delete(c.streams, url)
	return nil
}

func (s *stream) Append(_ context.Context, parts [][]byte) error {
	<-time.After(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(0)
	for _, m := range slices.Concat(s.messages, parts) {
		size += int64(len(m))
	}
	if size > s.maxBytes {
		return bus.ErrHintsFull
	}
	for _, p := range parts {
		s.messages = append(s.messages, bytes.Clone(p))
		s.times = append(s.times, time.Now())
	}
	return nil
}

func (s *stream) State(context.Context) (bus.HintsState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := bus.HintsState{Backend: s.url, Messages: uint64(len(s.messages)), MaxBytes: s.maxBytes, First: s.first, Next: s.first + uint64(len(s.messages))}
	for _, m := range s.messages {
		state.Bytes += uint64(len(m))
	}
	if len(s.times) > 0 {
		state.Oldest = s.times[0]
	}
	return state, nil
}

func (s *stream) Read(_ context.Context, after uint64, limit int) (all []bus.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.messages {
		if seq := s.first + uint64(i); seq > after && len(all) < min(limit, 7) {
			all = append(all, bus.Record{Sequence: seq, Time: s.times[i], Data: bytes.Clone(m)})
		}
	}
	return all, nil
}

func (s *stream) DeleteThrough(_ context.Context, sequence uint64) error {
	<-time.After(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.messages) > 0 && s.first <= sequence {
		s.messages, s.times = s.messages[1:], s.times[1:]
		s.first++
	}
	return nil
}

// Refuse keeps a dead letter.
func (c *cluster) Refuse(_ context.Context, id string, p events.PointsRefuse) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letters[id] = p
	return nil
}

// backend is a server whose points are `key value` lines: the measurement is the
// key, and the last value wins.
type backend struct {
	url string

	mu     sync.Mutex
	values map[string]string
	writes int // requests
	busy   int
	down   bool // refuses connections
	blip   bool // the next one only
	hung   bool // takes requests and answers none; carries them out when it wakes
	slept  []string
	refuse func(db, rp string, lines []byte) error
	took   time.Duration
}

// apply stores lines; mu is held.
func (b *backend) apply(lines string) {
	for l := range strings.Lines(lines) {
		key, rest, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		value, _, _ := strings.Cut(rest, " ")
		b.values[key] = value
	}
}

func (b *backend) get(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.values[key]
}

// carriesOut is how many requests that nobody waits for go on.
func (b *backend) carriesOut() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy
}

func refused(status int, text string, dropped int, storedRest bool) error {
	class := influx.Permanent
	if storedRest {
		class = influx.PartialWrite
	}
	return &influx.Error{Class: class, Op: "writing to x", Status: status, Message: text, Dropped: dropped, StoredRest: storedRest}
}

var errDown = &influx.Error{Class: influx.Transient, Op: "writing to x", Message: "connection refused"}

func (b *backend) write(ctx context.Context, db, rp string, lines []byte) error {
	b.mu.Lock()
	if b.down || b.blip {
		b.blip = false
		b.mu.Unlock()
		return errDown
	}
	b.writes++
	if b.hung {
		b.slept = append(b.slept, string(lines))
		b.busy++
		b.mu.Unlock()
		<-ctx.Done()
		return &influx.Error{Class: influx.Transient, Op: "writing to x", Message: ctx.Err().Error()}
	}
	took := b.took
	b.mu.Unlock()
	<-time.After(took)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(db, rp, lines); err != nil {
			return err
		}
	}
	b.apply(string(lines))
	return nil
}

// wake lets a hung backend go on: what it has taken it carries out one by one, last
// first.
func (b *backend) wake() {
	b.mu.Lock()
	b.hung = false
	slept := b.slept
	b.slept = nil
	b.mu.Unlock()
	for _, lines := range slices.Backward(slept) {
		<-time.After(7 * time.Millisecond)
		b.mu.Lock()
		b.apply(lines)
		b.busy--
		b.mu.Unlock()
	}
}

// dial returns the Dialer of the cluster's backends.
func (c *cluster) dial(b *topology.Backend, guard func() error) (replay.Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &connection{c.backends[b.URL], guard}, nil
}

type connection struct {
	backend *backend
	guard   func() error
}

func (c *connection) Write(ctx context.Context, db, rp string, lines []byte) error {
	if err := c.guard(); err != nil {
		return fmt.Errorf("%w: %w", influx.ErrGuard, err)
	}
	return c.backend.write(ctx, db, rp, lines)
}

func (c *connection) Probe(ctx context.Context) error {
	c.backend.mu.Lock()
	defer c.backend.mu.Unlock()
	if c.backend.down || c.backend.hung {
		return errDown
	}
	return ctx.Err()
}

func (c *connection) Busy(context.Context) (int, error) {
	c.backend.mu.Lock()
	defer c.backend.mu.Unlock()
	if c.backend.down {
		return 0, errDown
	}
	return c.backend.busy, nil
}

func (c *connection) Lacking(_ context.Context, _, _ string, lines []byte) (lacking []byte, err error) {
	c.backend.mu.Lock()
	defer c.backend.mu.Unlock()
	if c.backend.down {
		return nil, errDown
	}
	for l := range bytes.Lines(lines) {
		key, _, _ := bytes.Cut(l, []byte(" "))
		if _, ok := c.backend.values[string(key)]; !ok {
			lacking = append(lacking, l...)
		}
	}
	return lacking, nil
}

func (c *connection) Close() {}

// member is a process with all its parts.
type member struct {
	*process
	session *fakeSession
	store   *replay.Store
	keeper  *replay.Keeper
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// join starts a process.
func (c *cluster) join(change ...func(*replay.Options)) *member {
	m := &member{process: &process{cluster: c}, session: c.session()}
	m.store = replay.NewStore(replay.StoreOptions{Streams: c, Session: m.session, Poll: 50 * time.Millisecond, Throttle: time.Second})
	o := replay.Options{
		Session: m.session, Store: m.store, Leases: m.process, Letters: c, Dial: c.dial, ID: "p",
		WriteTimeout: 100 * time.Millisecond, ProbeEvery: 10 * time.Millisecond, Settle: 5 * time.Millisecond, SettleLimit: time.Second,
	}
	for _, f := range change {
		f(&o)
	}
	m.keeper = replay.NewKeeper(o)
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	m.done.Go(func() { _ = m.store.Run(ctx) })
	m.done.Go(func() { _ = m.keeper.Run(ctx) })
	return m
}

// stop ends a process in order.
func (m *member) stop() {
	m.session.mu.Lock()
	m.session.dead = time.Now()
	m.session.mu.Unlock()
	m.cancel()
	m.done.Wait()
}

// kill ends a process at once: its lease and its session run out by themselves.
func (m *member) kill() {
	m.process.mu.Lock()
	m.gone = true
	m.process.mu.Unlock()
	m.session.mu.Lock()
	m.session.dead = time.Now().Add(leaseTTL)
	m.session.mu.Unlock()
	m.cancel()
	m.done.Wait()
}

// logger writes what is logged into b. It is for one goroutine at a time.
func logger(b *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
