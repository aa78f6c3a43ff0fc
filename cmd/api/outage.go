package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ringmaster/pkg/operation"
)

// outage watches NATS servers that are not embedded. While they store nothing, since
// they are away, have no leader, or had a full disk, operations wait, and nothing that
// they would have to store can say so: this process shows it by itself.
type outage struct {
	probe func(context.Context) error
	now   func() time.Time

	mu    sync.Mutex
	since time.Time // zero: they store
	err   error
}

const (
	// gateNATS is what operations wait for while NATS stores nothing.
	gateNATS = "nats"
	// outageEvery is how often it is tried, outageShown how long it has to last to be
	// shown: a new leader takes some seconds.
	outageEvery = 3 * time.Second
	outageShown = 5 * time.Second
	// mendNATS is what a server does not do by itself.
	mendNATS = "NATS servers that store; one whose disk was full stores nothing until it is restarted with room on it"
)

// run tries until ctx ends.
func (o *outage) run(ctx context.Context) error {
	ticker := time.NewTicker(outageEvery)
	defer ticker.Stop()
	for {
		began := o.now()
		if err := o.probe(ctx); ctx.Err() == nil {
			o.note(began, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (o *outage) note(began time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	switch {
	case err == nil:
		o.since = time.Time{}
	case o.since.IsZero():
		o.since = began
	}
}

// wait is what operations wait for; nil when nothing is wrong.
func (o *outage) wait() *operation.Wait {
	o.mu.Lock()
	defer o.mu.Unlock()
	lasted := o.now().Sub(o.since)
	if o.since.IsZero() || lasted < outageShown {
		return nil
	}
	return &operation.Wait{
		Gate: gateNATS, Measured: operation.Clip(fmt.Sprintf("nothing has been stored for %s: %v", lasted.Round(time.Second), o.err)),
		Limit: mendNATS, Since: o.since.UTC(),
	}
}

// check is the one of /readyz.
func (o *outage) check(ctx context.Context) error {
	if err := o.probe(ctx); err != nil {
		return fmt.Errorf("%w (needed are %s)", err, mendNATS)
	}
	return nil
}
