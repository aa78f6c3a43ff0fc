package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// attendance is the work for one backend under one lease. It is for one goroutine.
type attendance struct {
	keeper *Keeper
	url    string
	lease  Lease
	// servers are the clients of this attendance, whose writes its lease guards.
	servers map[string]dialled
	// settled is whether the backend has been seen to carry out no write since
	// something was last given up that it may still be carrying out.
	settled bool
	// failures counts how often on end the backend could not be replayed to.
	failures int
}

// dialled is a client, and what it was made for.
type dialled struct {
	backend topology.Backend
	server  Server
}

// The fewest hints that are replayed in handover, while writes wait.
const (
	handoverMessages = 16
	handoverBytes    = 512 << 10
	// handoverLimit bounds how long writes are kept waiting for others to leave
	// draining.
	handoverLimit = 5 * time.Second
	// handoverPause is how long writes go on before that is tried again.
	handoverPause = 2 * time.Second
	// stepPause is how long it is waited for a view that another process has made.
	stepPause = 100 * time.Millisecond
)

// run takes the backend through its modes until it is in direct mode. An error ends
// the attendance; it is tried again after a pause.
func (a *attendance) run(ctx context.Context) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var err error
		view := a.keeper.options.Session.View()
		backend := backendOf(view, a.url)
		switch mode := view.Mode(a.url); mode {
		case serving.Direct:
			if backend == nil {
				return a.retire(ctx)
			}
			return nil
		case serving.Suspect:
			err = a.takeOver(ctx, view.Revision)
		case serving.Hinting:
			err = a.probe(ctx, backend)
		case serving.Draining:
			err = a.drain(ctx, backend)
		case serving.Handover:
			err = a.handOver(ctx, view.Revision, backend)
		default:
			err = fmt.Errorf("%s is in mode %q, which this release does not know", a.url, mode)
		}
		if unreachable, ok := errors.AsType[*unreachableError](err); ok {
			err = a.fallBack(ctx, unreachable)
		}
		switch {
		case err == nil:
		case errors.Is(err, serving.ErrStep): // somebody else has changed it: look again
			wait(ctx, stepPause, a.keeper.options.Session.Changed())
		default:
			return err
		}
	}
}

// move changes the backend's mode while the lease is held. The check stands inside
// the compare-and-set: should this process be stopped after it and another one act,
// the record has changed and it is asked again.
func (a *attendance) move(ctx context.Context, from, to serving.Mode, reason string) error {
	k := a.keeper
	_, err := k.options.Session.Change(ctx, func(v *serving.View) (serving.State, error) {
		if !a.lease.Held() {
			return serving.State{}, errLeaseLost
		}
		return v.State.WithMode(a.url, from, to, reason, k.options.Now())
	})
	if err != nil {
		return err
	}
	k.options.Logger.InfoContext(ctx, "a backend's mode has changed", "backend", a.url, "from", from, "to", to)
	return nil
}

// takeOver lets the hints take over once nobody sends any more. A backend is in
// direct mode only with empty hints, and nobody adds to them now: what there is was
// replayed before, and came back in a crash, or was never acknowledged. It must not
// be replayed over what was written since.
func (a *attendance) takeOver(ctx context.Context, revision uint64) error {
	k := a.keeper
	k.doing(a.url, "waiting until nobody sends to it any more")
	if err := k.options.Session.AwaitSends(ctx, revision); err != nil {
		return err
	}
	hints, err := k.options.Store.open(ctx, a.url)
	if err != nil {
		return err
	}
	state, err := hints.State(ctx)
	if err != nil {
		return err
	}
	if state.Messages > 0 {
		// That the mode is still the same proves that what was counted is old.
		_, err := k.options.Session.Change(ctx, func(v *serving.View) (serving.State, error) {
			if mode := v.State.ModeOf(a.url); mode != serving.Suspect {
				return serving.State{}, fmt.Errorf("%s is in mode %s: %w", a.url, mode, serving.ErrStep)
			}
			return v.State, nil
		})
		if err != nil {
			return err
		}
		k.options.Logger.WarnContext(ctx, "hints that were replayed before, or never acknowledged, are dropped", "backend", a.url, "messages", state.Messages)
		if err := a.deleteThrough(ctx, hints, state.Next-1); err != nil {
			return err
		}
	}
	a.settled = false
	return a.move(ctx, serving.Suspect, serving.Hinting, "")
}

// deleteThrough removes hints from the front, if the lease is held.
func (a *attendance) deleteThrough(ctx context.Context, hints Hints, sequence uint64) error {
	if !a.lease.Held() {
		return errLeaseLost
	}
	ctx, cancel := context.WithDeadline(ctx, a.lease.Expires())
	defer cancel()
	return hints.DeleteThrough(ctx, sequence)
}

// probe waits until the backend stores again, and then begins the replay. The hints
// of a backend that has gone need nobody's answer: they go elsewhere.
func (a *attendance) probe(ctx context.Context, backend *topology.Backend) error {
	k := a.keeper
	if backend == nil {
		return a.move(ctx, serving.Hinting, serving.Draining, "")
	}
	k.doing(a.url, "waiting until it stores what is written to it")
	if a.failures > 0 {
		wait(ctx, min(k.options.ProbeEvery<<min(a.failures-1, 4), 16*k.options.ProbeEvery), nil)
	}
	server, err := a.dial(backend)
	if err != nil {
		return err
	}
	probing, cancel := context.WithTimeout(ctx, k.options.WriteTimeout)
	if k.options.Probe != nil {
		err = k.options.Probe(probing, a.url)
	} else {
		err = a.guarded(probing, server.Probe)
	}
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.trouble(a.url, err)
		wait(ctx, k.options.ProbeEvery, k.options.Session.Changed()) // with which it may be gone
		return nil
	}
	if err := a.settle(ctx, server); err != nil {
		return err
	}
	return a.move(ctx, serving.Hinting, serving.Draining, "")
}

// settle waits until the backend has finished with what was sent to it before and
// given up: it could store it at any time, over what is replayed next. InfluxDB
// counts the write requests that it carries out; that is zero twice, a little apart,
// for a request that has been received but not begun. What it does not tell is
// whether a write goes on that it has itself given up after its own timeout (10 s);
// and other clients' writes look the same. So the wait is bounded.
func (a *attendance) settle(ctx context.Context, server Server) error {
	if a.settled {
		return nil
	}
	k := a.keeper
	k.doing(a.url, "waiting until it has finished with earlier writes")
	limit := time.Now().Add(k.options.SettleLimit)
	for quiet := 0; quiet < 2; {
		asking, cancel := context.WithTimeout(ctx, k.options.WriteTimeout)
		busy, err := server.Busy(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && busy == 0:
			quiet++
		default:
			quiet = 0
			if time.Now().After(limit) {
				k.options.Logger.WarnContext(ctx, "a backend may still be carrying out earlier writes; not waited for any longer", "backend", a.url, "busy", busy, "error", err)
				a.settled = true
				return nil
			}
		}
		if quiet < 2 {
			wait(ctx, k.options.Settle, nil)
		}
	}
	a.settled = true
	return nil
}

// drain replays until few hints are left.
func (a *attendance) drain(ctx context.Context, backend *topology.Backend) error {
	k := a.keeper
	if err := a.ready(ctx, backend); err != nil {
		return err
	}
	k.doing(a.url, "replaying its hints")
	hints, err := k.options.Store.open(ctx, a.url)
	if err != nil {
		return err
	}
	for {
		state, err := hints.State(ctx)
		if err != nil {
			return err
		}
		if state.Messages <= handoverMessages && state.Bytes <= handoverBytes {
			return a.move(ctx, serving.Draining, serving.Handover, "")
		}
		if err := a.replay(ctx, hints, state.Next); err != nil {
			return err
		}
	}
}

// ready makes sure, before anything is replayed under this lease, that nothing else
// is under way to the backend.
func (a *attendance) ready(ctx context.Context, backend *topology.Backend) error {
	if backend == nil {
		return nil
	}
	server, err := a.dial(backend)
	if err != nil {
		return err
	}
	return a.settle(ctx, server)
}

// handOver replays the last hints while nobody adds to them or sends, and puts the
// backend back into direct mode.
func (a *attendance) handOver(ctx context.Context, revision uint64, backend *topology.Backend) error {
	k := a.keeper
	if !a.settled && backend != nil {
		// Taken over from another process: what that takes must not keep writes
		// waiting.
		return a.move(ctx, serving.Handover, serving.Draining, "")
	}
	k.doing(a.url, "replaying the last of its hints, while writes wait")
	leaving, cancel := context.WithTimeout(ctx, handoverLimit)
	err := k.options.Session.AwaitSends(leaving, revision)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			// Somebody takes long: writes must not wait for him.
			k.trouble(a.url, err)
			if err := a.move(ctx, serving.Handover, serving.Draining, ""); err != nil {
				return err
			}
			wait(ctx, handoverPause, nil)
			return nil
		}
		return err
	}
	hints, err := k.options.Store.open(ctx, a.url)
	if err != nil {
		return err
	}
	for {
		state, err := hints.State(ctx)
		if err != nil {
			return err
		}
		if state.Messages == 0 {
			break
		}
		if err := a.replay(ctx, hints, state.Next); err != nil {
			return err
		}
	}
	if err := a.move(ctx, serving.Handover, serving.Direct, ""); err != nil {
		return err
	}
	k.options.Logger.InfoContext(ctx, "a backend has got what it had missed", "backend", a.url)
	return nil
}

// fallBack goes back to hinting when the backend fails again.
func (a *attendance) fallBack(ctx context.Context, why *unreachableError) error {
	k := a.keeper
	a.settled = false
	a.failures++
	k.trouble(a.url, why)
	k.options.Logger.WarnContext(ctx, "replaying hints is interrupted", "backend", a.url, "error", why)
	if k.options.Session.View().Mode(a.url) == serving.Handover {
		if err := a.move(ctx, serving.Handover, serving.Draining, ""); err != nil {
			return err
		}
	}
	return a.move(ctx, serving.Draining, serving.Hinting, why.Error())
}

// retire removes the hints of a backend that is in no circle any more. In direct mode
// there is nothing in them that anybody waits for.
func (a *attendance) retire(ctx context.Context) error {
	k := a.keeper
	k.doing(a.url, "removing its hints, since it is in no circle any more")
	hints, err := k.options.Store.open(ctx, a.url)
	if err != nil {
		return err
	}
	state, err := hints.State(ctx)
	if err != nil {
		return err
	}
	gone := func(v *serving.View) (serving.State, error) {
		if v.State.ModeOf(a.url) != serving.Direct || backendOf(v, a.url) != nil {
			return serving.State{}, fmt.Errorf("%s is there again: %w", a.url, serving.ErrStep)
		}
		return v.State, nil
	}
	view, err := k.options.Session.Change(ctx, gone)
	if err != nil {
		return err
	}
	if err := k.options.Session.AwaitSends(ctx, view.Revision); err != nil {
		return err
	}
	if state.Messages > 0 {
		if err := a.deleteThrough(ctx, hints, state.Next-1); err != nil {
			return err
		}
	}
	if err := k.options.Store.options.Streams.Remove(ctx, a.url); err != nil {
		return err
	}
	k.options.Store.forget(a.url)
	k.options.Logger.InfoContext(ctx, "the hints of a backend that has gone were removed", "backend", a.url)
	return nil
}

// unreachableError says that a backend did not store what it was sent, for a reason
// that may pass.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// dial returns the client of a backend whose writes the lease guards.
func (a *attendance) dial(b *topology.Backend) (Server, error) {
	if d, ok := a.servers[b.URL]; ok {
		if d.backend == *b {
			return d.server, nil
		}
		d.server.Close() // other credentials
		delete(a.servers, b.URL)
	}
	server, err := a.keeper.options.Dial(b, a.guard)
	if err != nil {
		return nil, err
	}
	if a.servers == nil {
		a.servers = map[string]dialled{}
	}
	a.servers[b.URL] = dialled{*b, server}
	return server, nil
}

// guard is asked before anything is put on the wire of a write.
func (a *attendance) guard() error {
	if !a.lease.Held() {
		return errLeaseLost
	}
	return nil
}

// guarded makes a call that ends with the lease at the latest, and does not begin
// without it.
func (a *attendance) guarded(ctx context.Context, call func(context.Context) error) error {
	if err := a.guard(); err != nil {
		return err
	}
	return call(ctx)
}

func (a *attendance) close() {
	for _, d := range a.servers {
		d.server.Close()
	}
}
