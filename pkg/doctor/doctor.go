// Package doctor examines an installation: its configuration, how durable its NATS
// keeps records, clocks, disks, backends, workers and keys. What it finds is for a
// person, who is told what to mend.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/health"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

// Status is how grave a finding is.
type Status string

// The statuses of a finding.
const (
	// OK: it was looked at, and there is nothing to mend.
	OK Status = "ok"
	// Warn: it works, and somebody should look at it.
	Warn Status = "warn"
	// Fail: something does not work, or acknowledged data may be lost.
	Fail Status = "fail"
)

// Finding is what was found when one thing was examined.
type Finding struct {
	// Name says what was examined, such as "nats" or "clock".
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	// Remedy says what to do; empty when there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Configuration is what the configuration file of this process says now.
type Configuration struct {
	File string
	// Mistakes are why it could not be applied, Warnings what should be looked at.
	Mistakes, Warnings []string
	// Topology are the circles of the file; nil when it cannot be read.
	Topology *topology.Topology
}

// Bus is the NATS to look at.
type Bus interface {
	Probe(ctx context.Context) error
	Facts(ctx context.Context) (bus.Facts, error)
	Clock(ctx context.Context) (ahead, within time.Duration, err error)
}

// Backends are what the probes have found, by URL.
type Backends interface {
	Backends(ctx context.Context) map[string]health.Status
}

// Options are what a Doctor looks at. All are required unless they say otherwise.
type Options struct {
	Configuration func() Configuration
	Bus           Bus
	// Embedded is whether the NATS is this process's own, which syncs every message.
	Embedded bool
	// Frozen says why the embedded NATS stores nothing; nil when there is none.
	Frozen func() error
	// Disk is the room on the disk of the data directory.
	Disk     func() (bus.Disk, error)
	View     func() *serving.View
	Backends Backends
	// BackendClock asks what time it is at a backend; the zero time if it does not say.
	BackendClock func(ctx context.Context, b *topology.Backend) (time.Time, error)
	Backlogs     func() []replay.Backlog
	Workers      func(ctx context.Context) ([]worker.Status, error)
	// Version is this process's own.
	Version string
	// Key returns nil if the key file holds the key of the cluster.
	Key func(ctx context.Context) error
	// Open returns the operations that have not ended.
	Open func() []operation.Operation
	Now  func() time.Time
}

// Doctor examines an installation. It is safe for use by several goroutines.
type Doctor struct{ Options }

// New returns a doctor.
func New(o Options) *Doctor { return &Doctor{o} }

// patience bounds each examination: what has not answered by then is told as such.
const patience = 8 * time.Second

// Examine looks at everything, at most for a few seconds. The findings come in a
// fixed order; there is at least one of each part.
func (d *Doctor) Examine(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	parts := []func(context.Context, *chart){
		d.configuration, d.circles, d.nats, d.store, d.disk, d.clocks, d.backends, d.backlogs, d.workers, d.key, d.operations,
	}
	charts := make([]chart, len(parts))
	var examining sync.WaitGroup
	for i, part := range parts {
		examining.Go(func() { part(ctx, &charts[i]) })
	}
	examining.Wait()
	var all []Finding
	for i := range charts {
		all = append(all, charts[i].findings...)
	}
	return all
}

// chart collects the findings of a part.
type chart struct{ findings []Finding }

func (c *chart) note(name string, s Status, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{Name: name, Status: s, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

// mostOfAKind bounds the findings of one kind: with a thousand backends away, the
// first ones and their number say enough.
const mostOfAKind = 20

// several notes findings of a kind, and how many more there are.
func (c *chart) several(name string, s Status, remedy string, details []string) {
	for i, detail := range details {
		if i == mostOfAKind {
			c.note(name, s, remedy, "and %d more", len(details)-i)
			return
		}
		c.note(name, s, remedy, "%s", detail)
	}
}
