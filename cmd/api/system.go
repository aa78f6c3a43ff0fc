package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"ringmaster/cmd/internal/program"
	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/health"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/notify"
	"ringmaster/pkg/progress"
)

// system is everything that one api process runs.
type system struct {
	options    *options
	logger     *slog.Logger
	nats       *bus.Server
	bus        *bus.Bus
	engine     *program.Engine
	session    *session.Session
	atlas      *controller.Atlas
	projection *progress.Projection
	results    *progress.ResultLog
	prober     *health.Prober
	census     *health.Census
	data       *dataPlane
	// notifier tells the webhook; nil without one.
	notifier *notify.Sender
	handler  *httpapi.Engine
	clients  *health.Clients
	// configuration is applied at start and whenever SIGHUP asks for it.
	configuration *controller.Configuration
	// retention keeps the history of operations within its bounds.
	retention *controller.Retention
	// sweeper repairs what does not fit together.
	sweeper *controller.Sweeper
	// disk is that of the embedded NATS; nil without one. outage watches any other; nil
	// with an embedded one.
	disk   *disk
	outage *outage
	// draining is closed when the process is about to stop.
	draining chan struct{}
}

// closeTimeout bounds how long stopping may take.
const closeTimeout = 30 * time.Second

// newSystem builds the process from the bottom up. On an error, what has been
// started is closed again.
func newSystem(ctx context.Context, o *options, logger *slog.Logger) (_ *system, err error) {
	s := &system{options: o, logger: logger, draining: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(program.Interrupted(ctx, err), s.close(ctx))
		}
	}()
	if err := os.MkdirAll(o.data, 0o750); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	if err := s.openBus(ctx); err != nil {
		return nil, err
	}
	keys, err := s.openKey(ctx)
	if err != nil {
		return nil, err
	}
	s.engine, err = program.NewEngine(ctx, s.bus, program.EngineOptions{
		Name: "api", Keys: keys, Patience: o.patience, BackendTimeout: o.backendTimeout, ErrorLimit: o.errorLimit, Notices: o.webhook != "", Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	s.configuration = &controller.Configuration{
		Ledger: s.engine.Ledger, Sealer: keys, Accept: o.acceptConfig, Logger: logger, Now: time.Now,
	}
	if err := s.configuration.Start(ctx, o.config.Topology()); err != nil {
		return nil, err
	}
	if err := s.configuration.Limit(ctx, o.config.Topology(), o.config.Limits); err != nil {
		return nil, err
	}
	s.session, err = session.Open(ctx, session.Options{
		ID: s.engine.ID, Ledger: s.engine.Ledger, Leases: s.engine.Leases, Sealer: keys, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	s.atlas = controller.NewAtlas(s.engine.Ledger, s.session)
	s.results = progress.NewResultLog(time.Now)
	s.projection = progress.New(s.engine.Ledger, s.bus.Log(events.StreamEvents), progress.Options{
		Logger: logger, OnChange: s.results.Observe,
	})
	s.clients = health.NewClients(keys, ledger.SealContext, influx.Options{UserAgent: "ringmaster"})
	s.prober = health.New(s.atlas, health.Options{Every: o.config.CheckInterval, Clients: s.clients, Logger: logger})
	s.census = health.NewCensus(s.atlas, s.prober, health.CensusOptions{Clients: s.clients, Logger: logger})
	if s.data, err = s.newDataPlane(keys); err != nil {
		return nil, err
	}
	s.retention = &controller.Retention{
		Ledger: s.engine.Ledger, Leases: s.engine.Leases, ID: s.engine.ID,
		MaxAge: o.historyAge, MaxBytes: o.historyBytes, Logger: logger, Now: time.Now,
	}
	s.sweeper = &controller.Sweeper{
		Ledger: s.engine.Ledger, Queue: s.engine.Queue, Leases: s.engine.Leases, Scopes: s.bus.Scopes(),
		ID: s.engine.ID, Logger: logger, Now: time.Now,
	}
	if o.webhook != "" {
		s.notifier = notify.New(s.engine.Ledger, s.engine.Leases, notify.Options{
			URL: o.webhook, ID: s.engine.ID, UserAgent: "ringmaster/" + program.Version(), Logger: logger,
		})
	}
	token, err := adminToken(o.data)
	if err != nil {
		return nil, err
	}
	intake := &controller.Intake{Ledger: s.engine.Ledger, Topology: s.atlas, Sealer: keys, Now: time.Now, NewID: newID}
	if s.nats != nil {
		s.disk = &disk{space: s.nats.Space, frozen: s.nats.Frozen, now: time.Now}
		intake.Space = s.nats.Space
	} else {
		s.outage = &outage{probe: s.bus.Probe, now: time.Now}
	}
	s.handler, err = s.newHandler(token, intake)
	return s, err
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// openBus starts the embedded NATS, unless another is named, and connects.
func (s *system) openBus(ctx context.Context) error {
	o := s.options
	var err error
	to := bus.Options{Name: "api", URL: o.nats}
	if o.nats == "" {
		s.nats, err = bus.StartServer(ctx, bus.ServerOptions{Dir: o.data, Listen: o.natsListen, Logger: s.logger})
		if err != nil {
			return fmt.Errorf("starting the embedded JetStream: %w", err)
		}
		to.Server = s.nats
	}
	if s.bus, err = program.Connect(ctx, to, s.logger); err != nil {
		return err
	}
	var settings []bus.ApplyOption
	if o.lease > 0 {
		settings = append(settings, bus.WithLeaseTTL(o.lease))
	}
	if err := s.bus.Apply(ctx, 0, settings...); err != nil {
		return fmt.Errorf("preparing JetStream: %w", err)
	}
	return nil
}

// serve runs every service until ctx ends or one of them fails, and then stops
// them from the top down.
func (s *system) serve(ctx context.Context, ready func(address string)) error {
	// The session outlives everything that is served by it.
	keeping, leave := context.WithCancel(context.WithoutCancel(ctx))
	kept := make(chan error, 1)
	go func() { kept <- s.session.Run(keeping) }()
	services, ctx := errgroup.WithContext(ctx)
	services.Go(func() error { s.reload(ctx); return nil })
	services.Go(func() error { return s.data.run(ctx) })
	if s.disk != nil {
		services.Go(func() error { return s.disk.run(ctx) })
	} else {
		services.Go(func() error { return s.outage.run(ctx) })
	}
	services.Go(func() error { return s.projection.Run(ctx) })
	services.Go(func() error { return s.prober.Run(ctx) })
	services.Go(func() error { return s.census.Run(ctx) })
	services.Go(func() error { return s.retention.Run(ctx) })
	services.Go(func() error { return s.sweeper.Run(ctx) })
	control := controller.New(s.engine.Ledger, s.engine.Queue, s.engine.Leases, s.engine.Planner, controller.Options{
		ID: s.engine.ID, Accord: s.session, Settler: s.engine.Mover, Stalled: s.options.stalled, Limits: s.engine.Limits, Logger: s.logger,
		Slots: workers{s.engine.Leases}.slots, Trouble: prober{s.prober}.trouble,
	})
	services.Go(func() error { return control.Run(ctx) })
	if s.notifier != nil {
		services.Go(func() error { return s.notifier.Run(ctx) })
	}
	transitions := &controller.Transitions{
		Accord: s.session, Leases: s.engine.Leases, Open: s.clients.Open, ID: s.engine.ID, Logger: s.logger, Now: time.Now,
	}
	services.Go(func() error { return transitions.Run(ctx) })
	grantor := &controller.Grantor{
		Server: s.bus, Leases: s.engine.Leases, Book: s.engine.Limits, ID: s.engine.ID, Logger: s.logger, Now: time.Now,
	}
	services.Go(func() error { return grantor.Run(ctx) })
	services.Go(func() error { return s.engine.Limits.Run(ctx) })
	if s.options.slots > 0 {
		services.Go(func() error { return s.engine.Worker(s.options.slots).Run(ctx) })
	}
	listening := make(chan string, 1)
	services.Go(func() error { return s.listen(ctx, listening) })
	services.Go(func() error { s.announce(ctx, listening, ready); return nil })
	err := errors.Join(services.Wait(), s.data.close(ctx))
	leave()
	return errors.Join(err, <-kept, s.close(ctx))
}

// close ends what newSystem opened, in the reverse order.
func (s *system) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var err error
	if s.data != nil {
		err = s.data.close(ctx)
	}
	if s.bus != nil {
		s.bus.Close()
	}
	if s.nats != nil {
		if stopped := s.nats.Close(ctx); stopped != nil {
			err = errors.Join(err, fmt.Errorf("stopping the embedded JetStream: %w", stopped))
		}
	}
	return err
}
