package main

import (
	"context"
	"fmt"
	"time"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/doctor"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
	"ringmaster/pkg/worker"
)

// newDoctor lets the doctor look at everything that this process knows.
func (s *system) newDoctor() *doctor.Doctor {
	o := doctor.Options{
		Configuration: s.options.reread,
		Bus:           s.bus,
		Disk:          func() (bus.Disk, error) { return bus.DiskOf(s.options.data) },
		View:          s.session.View,
		Backends:      s.prober,
		BackendClock:  s.backendClock,
		Backlogs:      s.data.store.Backlogs,
		Workers:       func(ctx context.Context) ([]worker.Status, error) { return worker.Live(ctx, s.engine.Leases) },
		Version:       program.Version(),
		Key:           s.keyStillOpens,
		Open:          s.projection.Open,
		Now:           time.Now,
	}
	if s.nats != nil {
		o.Embedded, o.Frozen, o.Disk = true, s.nats.Frozen, s.nats.Disk
	}
	return doctor.New(o)
}

// reread is what the configuration file says now.
func (o *options) reread() doctor.Configuration {
	again := &options{configFile: o.configFile}
	c := doctor.Configuration{File: o.configFile}
	again.readConfig(func(format string, a ...any) { c.Mistakes = append(c.Mistakes, fmt.Sprintf(format, a...)) })
	if len(c.Mistakes) > 0 {
		return c
	}
	c.Topology = again.config.Topology()
	for _, w := range again.config.Warnings {
		c.Warnings = append(c.Warnings, w.String())
	}
	return c
}

// backendClock asks a backend what time it is there.
func (s *system) backendClock(ctx context.Context, b *topology.Backend) (time.Time, error) {
	client, err := s.clients.Open(b)
	if err != nil {
		return time.Time{}, err
	}
	defer client.Close()
	return client.Clock(ctx)
}

// keyStillOpens says whether the key file, as it is now, holds the cluster's key: the
// next start needs it.
func (s *system) keyStillOpens(ctx context.Context) error {
	keys, err := secrets.Open(s.options.keyFile)
	if err != nil {
		return fmt.Errorf("opening the key file: %w", err)
	}
	return s.engine.Ledger.VerifyKey(ctx, keys)
}
