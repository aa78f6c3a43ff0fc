package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/doctor"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/health"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is an installation to examine, well unless it is changed.
type patient struct {
	config   doctor.Configuration
	frozen   error
	probe    error
	facts    bus.Facts
	factsErr error
	ahead    time.Duration
	clockErr error
	disk     bus.Disk
	view     *serving.View
	probed   map[string]health.Status
	skew     map[string]time.Duration
	mute     map[string]bool
	backlogs []replay.Backlog
	workers  []worker.Status
	workErr  error
	key      error
	open     []operation.Operation
}

func at() time.Time { return time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC) }

func (p *patient) Probe(context.Context) error              { return p.probe }
func (p *patient) Facts(context.Context) (bus.Facts, error) { return p.facts, p.factsErr }
func (p *patient) Clock(context.Context) (ahead, within time.Duration, err error) {
	return p.ahead, time.Millisecond, p.clockErr
}
func (p *patient) Backends(context.Context) map[string]health.Status { return p.probed }

func healthy(t *testing.T) *patient {
	t.Helper()
	cluster := &topology.Topology{Epoch: 3, HashKey: "idx", ShardKey: "%db,%mm", VNodes: 256, Circles: []topology.Circle{
		{ID: 0, Name: "one", Backends: []topology.Backend{{Name: "a", URL: "http://a:1"}, {Name: "b", URL: "http://b:1"}}},
		{ID: 1, Name: "two", Backends: []topology.Backend{{Name: "c", URL: "http://c:1"}}},
	}}
	cluster.Digest = cluster.ComputeDigest()
	view, err := serving.NewView(1, cluster, serving.State{})
	require.NoError(t, err)
	well := health.Status{Active: true, Version: "1.8.3", CheckedAt: at(), Writes: health.WritesStored, WroteAt: at()}
	stream := bus.StreamFacts{Name: "S", Replicas: 1, Current: 1, MaxBytes: 100, Refuses: true}
	return &patient{
		config: doctor.Configuration{File: "proxy.json", Topology: cluster}, view: view,
		facts:  bus.Facts{Server: "ringmaster", Version: "2.15.2", Used: 10, Limit: 100, Streams: []bus.StreamFacts{stream}},
		disk:   bus.Disk{Dir: "data", Free: 1 << 30, Size: 2 << 30, MinFree: 1 << 20},
		probed: map[string]health.Status{"http://a:1": well, "http://b:1": well, "http://c:1": well},
		workers: []worker.Status{
			{Info: worker.Info{ID: "w", Host: "h", Version: "v1", Slots: 4, Clock: at()}, Busy: 1, SeenAt: at()},
		},
	}
}

func (p *patient) examine(t *testing.T, embedded bool) []doctor.Finding {
	t.Helper()
	o := doctor.Options{
		Configuration: func() doctor.Configuration { return p.config }, Bus: p, Embedded: embedded,
		Disk: func() (bus.Disk, error) { return p.disk, nil }, View: func() *serving.View { return p.view }, Backends: p,
		BackendClock: func(_ context.Context, b *topology.Backend) (time.Time, error) {
			switch {
			case p.mute[b.URL]:
				return time.Time{}, nil
			case !p.probed[b.URL].Active:
				return time.Time{}, errors.New("connection refused")
			}
			return at().Add(p.skew[b.URL]).Truncate(time.Second), nil
		},
		Backlogs: func() []replay.Backlog { return p.backlogs },
		Workers:  func(context.Context) ([]worker.Status, error) { return p.workers, p.workErr },
		Version:  "v1", Key: func(context.Context) error { return p.key },
		Open: func() []operation.Operation { return p.open }, Now: at,
	}
	if embedded {
		o.Frozen = func() error { return p.frozen }
	}
	return doctor.New(o).Examine(t.Context())
}

func TestAHealthyInstallation(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, f := range healthy(t).examine(t, true) {
		require.Equal(t, doctor.OK, f.Status, "%+v", f)
		require.Empty(t, f.Remedy)
		require.NotEmpty(t, f.Detail)
		names[f.Name] = true
	}
	for _, name := range []string{"configuration", "circles", "nats", "nats replicas", "nats sync", "nats store", "disk", "clock", "backends", "hints", "workers", "key", "operations"} {
		require.True(t, names[name], name)
	}
}

// Each illness is found, by its name, with words that say what it is and what to do.
func TestIllnesses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		remote bool
		harm   func(p *patient)
		status doctor.Status
		check  string
		says   []string
	}{
		{"bad file", false, func(p *patient) { p.config.Mistakes = []string{"circles[0].name is missing"} }, doctor.Fail, "configuration", []string{"circles[0].name", "mend proxy.json"}},
		{"warned file", false, func(p *patient) { p.config.Warnings = []string{"tls is old"} }, doctor.Warn, "configuration", []string{"tls is old"}},
		{"other circles", false, func(p *patient) { p.config.Topology = &topology.Topology{Digest: "other"} }, doctor.Warn, "configuration", []string{"epoch 3", "SIGHUP", "-accept-config"}},
		{"nothing read", false, func(p *patient) { p.view = nil }, doctor.Fail, "configuration", []string{"no topology"}},
		{"incomplete circle", false, func(p *patient) {
			v, _ := serving.NewView(2, p.view.Topology, p.view.State.WithIncomplete(1, "recovery o has not succeeded", at()))
			p.view = v
		}, doctor.Warn, "circles", []string{"circle 1 is not read", "ringctl recovery"}},
		{"a changing circle", false, func(p *patient) {
			before := p.view.Topology.Clone()
			before.Circles[0].Backends = before.Circles[0].Backends[:1]
			s, _ := serving.State{}.Changed(before, p.view.Topology, at())
			s, _ = s.Stepped(0, serving.Opening, "", at())
			p.view, _ = serving.NewView(2, p.view.Topology, s)
		}, doctor.Warn, "circles", []string{"circle 0 is changing", "ringctl rebalance --circle-id 0"}},
		{"frozen", false, func(p *patient) { p.frozen = errors.New("write error") }, doctor.Fail, "nats", []string{"write error", "free space"}},
		{"no answer", false, func(p *patient) { p.probe = bus.ErrUnavailable }, doctor.Fail, "nats", []string{"does not store"}},
		{"no facts", false, func(p *patient) { p.factsErr = bus.ErrUnavailable }, doctor.Fail, "nats store", []string{"cannot be looked at"}},
		{"too few replicas", true, func(p *patient) { p.facts.Cluster = "C" }, doctor.Fail, "nats replicas", []string{"S is held by 1", "--replicas=3"}},
		{"a server is away", true, func(p *patient) {
			p.facts.Cluster = "C"
			p.facts.Streams[0].Replicas, p.facts.Streams[0].Current, p.facts.Streams[0].Behind = 3, 2, []string{"n3"}
		}, doctor.Fail, "nats replicas", []string{"2 of 3 servers; behind: n3"}},
		{"no leader", true, func(p *patient) {
			p.facts.Cluster, p.facts.Streams[0].Replicas, p.facts.Streams[0].Leaderless = "C", 3, true
		}, doctor.Fail, "nats replicas", []string{"no leader"}},
		{"in memory", false, func(p *patient) { p.facts.Streams[0].InMemory = true }, doctor.Fail, "nats replicas", []string{"memory"}},
		{"no streams", false, func(p *patient) { p.facts.Streams = nil }, doctor.Fail, "nats replicas", []string{"no streams"}},
		{"one server", true, func(*patient) {}, doctor.Warn, "nats replicas", []string{"one server only", "three new NATS servers"}},
		{"not synced", false, func(p *patient) { p.facts.Streams[0].Unsynced = true }, doctor.Fail, "nats sync", []string{"before a message is written"}},
		{"not to be seen", true, func(*patient) {}, doctor.Warn, "nats sync", []string{"cannot be seen from here", "sync_interval: always"}},
		{"full store", false, func(p *patient) { p.facts.Used = 90 }, doctor.Warn, "nats store", []string{"90 bytes of 100 bytes"}},
		{"full stream", false, func(p *patient) { p.facts.Streams[0].Bytes = 90 }, doctor.Warn, "nats store", []string{"S has 90 bytes"}},
		{"full disk", false, func(p *patient) { p.disk.Free = 1 }, doctor.Fail, "disk", []string{"1 bytes of 2.0 GiB", "free space"}},
		{"little space", false, func(p *patient) { p.disk.Free = 2 << 20 }, doctor.Warn, "disk", []string{"below 1.0 MiB"}},
		{"NATS ahead", true, func(p *patient) { p.ahead = 10 * time.Second }, doctor.Warn, "clock", []string{"NATS is 10s ahead", "NTP"}},
		{"NATS mute", true, func(p *patient) { p.clockErr = bus.ErrUnavailable }, doctor.Warn, "clock", []string{"does not tell"}},
		{"worker behind", false, func(p *patient) { p.workers[0].Clock = at().Add(-2 * time.Minute) }, doctor.Fail, "clock", []string{"worker w on h is 2m0s behind"}},
		{"backend ahead", false, func(p *patient) { p.skew = map[string]time.Duration{"http://b:1": time.Hour} }, doctor.Fail, "clock", []string{"b http://b:1", "ahead"}},
		{"backend mute", false, func(p *patient) { p.mute = map[string]bool{"http://b:1": true} }, doctor.Warn, "clock", []string{"b http://b:1 does not tell"}},
		{"backend away", false, func(p *patient) {
			p.probed["http://a:1"] = health.Status{CheckedAt: at(), Error: "connection refused"}
		}, doctor.Fail, "backends", []string{"a http://a:1 does not answer: connection refused", "start it"}},
		{"backend full", false, func(p *patient) {
			p.probed["http://a:1"] = health.Status{Active: true, CheckedAt: at(), Writes: health.WritesFailed, Error: "no space left"}
		}, doctor.Fail, "backends", []string{"does not store", "no space left"}},
		{"backend not asked", false, func(p *patient) { delete(p.probed, "http://c:1") }, doctor.Warn, "backends", []string{"has not been asked"}},
		{"backend not written to", false, func(p *patient) {
			p.probed["http://a:1"] = health.Status{Active: true, CheckedAt: at(), Note: "pinged only"}
		}, doctor.Warn, "backends", []string{"pinged only"}},
		{"hints", false, func(p *patient) {
			p.backlogs = []replay.Backlog{{Backend: "http://a:1", Mode: serving.Hinting, Bytes: 2048, Oldest: at().Add(-time.Minute)}}
		}, doctor.Warn, "hints", []string{"2.0 KiB for http://a:1 wait, mode hinting, the oldest for 1m0s"}},
		{"many hints", false, func(p *patient) {
			p.backlogs = []replay.Backlog{{Backend: "http://a:1", Alarm: "90 % of the bytes"}}
		}, doctor.Fail, "hints", []string{"90 %", "-hint-bytes"}},
		{"nobody works", false, func(p *patient) { p.workers = nil }, doctor.Fail, "workers", []string{"no slot"}},
		{"workers not listed", false, func(p *patient) { p.workErr = bus.ErrUnavailable }, doctor.Fail, "workers", []string{"cannot be listed"}},
		{"two releases", false, func(p *patient) { p.workers[0].Version = "v0" }, doctor.Warn, "workers", []string{`1 are of release "v0"`}},
		{"other key", false, func(p *patient) { p.key = errors.New("sealed with another key") }, doctor.Fail, "key", []string{"another key"}},
		{"stalled", false, func(p *patient) {
			p.open = []operation.Operation{{ID: "o", Conditions: []operation.Condition{{Type: "stalled", Reason: "outage", Since: at()}}}}
		}, doctor.Warn, "operations", []string{"operation o is stalled since 2026-11-21T18:00:00Z: outage", "ringctl ops get o"}},
		{"held", false, func(p *patient) {
			p.open = []operation.Operation{{ID: "o", State: operation.AwaitingApproval, Scope: []string{"circle/0"}}}
		}, doctor.Warn, "operations", []string{"awaiting_approval and holds circle/0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := healthy(t)
			c.harm(p)
			found := p.examine(t, !c.remote)
			require.True(t, slices.ContainsFunc(found, func(f doctor.Finding) bool {
				return f.Name == c.check && f.Status == c.status && f.Remedy != "" &&
					!slices.ContainsFunc(c.says, func(s string) bool { return !strings.Contains(f.Detail+"\n"+f.Remedy, s) })
			}), "%+v", found)
		})
	}
}

func TestManyOfAKindAreCounted(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	p.config.Warnings = make([]string, 1000)
	found := p.examine(t, true)
	require.Less(t, len(found), 50)
	require.True(t, slices.ContainsFunc(found, func(f doctor.Finding) bool { return strings.Contains(f.Detail, fmt.Sprintf("and %d more", 980)) }))
}
