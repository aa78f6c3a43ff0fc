package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/health"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/topology"
)

// dataPlane takes what clients write and answers what they ask.
type dataPlane struct {
	ingest *ingest.Ingest
	runner *query.Runner
	pool   *query.Pool
	store  *replay.Store
	keeper *replay.Keeper
	flags  *flagged
}

// newDataPlane builds the data plane on the session.
func (s *system) newDataPlane(keys topology.Sealer) (_ *dataPlane, err error) {
	o, c := s.options, s.options.config
	d := &dataPlane{flags: &flagged{atlas: s.atlas, ledger: s.engine.Ledger, logger: s.logger}}
	stores := replay.StoreOptions{Streams: replay.OnBus(s.bus), Session: s.session, MaxBytes: o.hintBytes, MaxAge: o.hintAge, Logger: s.logger}
	if s.nats != nil {
		stores.Space = s.nats.Space
	}
	d.store = replay.NewStore(stores)
	copier := replay.NewCopier(s.session.View, s.clients.Open)
	d.keeper = replay.NewKeeper(replay.Options{
		Session: s.session, Store: d.store, Leases: replay.LeasesOnBus(s.engine.Leases), Letters: s.engine.Ledger,
		Dial:     replay.DialInflux(influx.Options{UserAgent: userAgent}),
		Restorer: copier, ID: s.engine.ID, Logger: s.logger,
	})
	d.ingest, err = ingest.New(ingest.Options{
		Session: ingest.Join(s.session), Hints: d.store, Keeper: d.keeper, Preparer: copier,
		MaxConns: c.ConnPoolSize, WriteTimeout: c.WriteTimeout, MaxInFlight: o.writeMemory, Logger: s.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("building the write path: %w", err)
	}
	d.pool = query.NewPool(health.NewClients(keys, ledger.SealContext, influx.Options{UserAgent: userAgent, Timeout: silentQuery, MaxConns: queryConns}))
	d.runner = query.New(query.Options{
		Session: query.Reads(s.session), Clients: d.pool, Health: s.prober, Flags: d.flags,
		Bounds: query.Bounds{Time: o.queryTime, Rows: o.queryRows, Bytes: o.queryBytes},
		Writer: d.ingest, Quiescer: quiescer{s.session, d.ingest}, Logger: s.logger,
	})
	return d, nil
}

// userAgent names this program to backends.
const userAgent = "ringmaster"

const (
	// silentQuery is how long a backend may think before it begins to answer, or
	// between two parts of an answer.
	silentQuery = 10 * time.Minute
	// queryConns bounds the connections for queries to one backend.
	queryConns = 256
)

// run serves until ctx ends.
func (d *dataPlane) run(ctx context.Context) error {
	services, ctx := errgroup.WithContext(ctx)
	services.Go(func() error { return d.store.Run(ctx) })
	services.Go(func() error { return d.keeper.Run(ctx) })
	services.Go(func() error { d.flags.follow(ctx); return nil })
	return services.Wait()
}

// close ends what is under way; nothing new must come any more.
func (d *dataPlane) close(ctx context.Context) error {
	err := d.ingest.Close(ctx)
	d.pool.Close()
	return err
}

// quiescer keeps a database from being written to, by every process.
type quiescer struct {
	session *session.Session
	ingest  *ingest.Ingest
}

// Quiesce implements query.Quiescer.
func (q quiescer) Quiesce(ctx context.Context, database string) (resume func(), err error) {
	end, err := q.session.Exclude(ctx, database)
	if err != nil {
		return nil, err
	}
	// What a request has left behind when its client went away may still be sent.
	pass, err := q.ingest.Quiesce(ctx, database)
	if err != nil {
		end()
		return nil, err
	}
	return func() { pass(); end() }, nil
}

// flagged knows which circles a person has flagged, as of a moment ago: a query does
// not wait for the record.
type flagged struct {
	atlas  *controller.Atlas
	ledger *ledger.Ledger
	logger *slog.Logger
	now    atomic.Pointer[[]int]
}

// flagsEvery is how often the flags are read, whatever was watched.
const flagsEvery = 5 * time.Second

// follow reads the flags until ctx ends.
func (f *flagged) follow(ctx context.Context) {
	ticker := time.NewTicker(flagsEvery)
	defer ticker.Stop()
	changes, err := f.ledger.WatchTopology(ctx)
	if err != nil {
		f.logger.WarnContext(ctx, "watching the flags; polling goes on", "error", err)
	}
	for {
		circles, _, err := f.atlas.Flags(ctx)
		switch {
		case err == nil:
			f.now.Store(&circles)
		case !errors.Is(err, context.Canceled):
			f.logger.WarnContext(ctx, "reading the flags", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
		case <-ticker.C:
		}
	}
}

// Migrating implements query.Flags.
func (f *flagged) Migrating(circle int) bool {
	circles := f.now.Load()
	return circles != nil && slices.Contains(*circles, circle)
}
