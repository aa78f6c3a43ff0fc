package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ringmaster/pkg/topology"
)

const (
	// apart is from when on two clocks are told to differ, farApart from when on
	// that is a failure: points without a time would land in other windows than
	// what "since" and retention mean.
	apart    = 2 * time.Second
	farApart = time.Minute
	// askedAtOnce bounds how many backends are asked at a time.
	askedAtOnce = 16
	// setClocks is the remedy.
	setClocks = "let NTP set the clocks; leases do not rest on them, but retention, \"since\" and points without a time do"
)

// clocks compares everybody's clock with that of this process.
func (d *Doctor) clocks(ctx context.Context, c *chart) {
	const name = "clock"
	compared := 0
	judge := func(who string, ahead, within time.Duration) {
		compared++
		off := max(ahead.Abs()-within, 0)
		if off < apart {
			return
		}
		status := Warn
		if off >= farApart {
			status = Fail
		}
		direction := "ahead of"
		if ahead < 0 {
			direction = "behind"
		}
		c.note(name, status, setClocks, "the clock of %s is %s %s this process's", who, ahead.Abs().Round(100*time.Millisecond), direction)
	}
	ahead, within, err := d.Bus.Clock(ctx)
	if err != nil {
		c.note(name, Warn, "see the finding about NATS", "NATS does not tell its time: %v", err)
	} else {
		judge("NATS", ahead, within)
		d.workerClocks(ctx, ahead, judge)
	}
	d.backendClocks(ctx, c, judge)
	if len(c.findings) == 0 {
		c.note(name, OK, "", "%d clocks are within %s of this process's", compared, apart)
	}
}

// workerClocks compares what each worker has said of its clock with when NATS has
// stored that.
func (d *Doctor) workerClocks(ctx context.Context, nats time.Duration, judge func(who string, ahead, within time.Duration)) {
	workers, err := d.Workers(ctx)
	if err != nil {
		return // told by the finding about workers
	}
	for _, w := range workers {
		if !w.Clock.IsZero() && !w.SeenAt.IsZero() {
			// What it took to store it is the only error, and makes a clock look behind.
			judge(fmt.Sprintf("worker %s on %s", w.ID, w.Host), w.Clock.Sub(w.SeenAt)+nats, storing)
		}
	}
}

// storing is how long it may take to store a lease.
const storing = time.Second

// backendClocks asks every backend what time it is.
func (d *Doctor) backendClocks(ctx context.Context, c *chart, judge func(who string, ahead, within time.Duration)) {
	view := d.View()
	if view == nil {
		return
	}
	all := current(view)
	type reading struct {
		said            time.Time
		asked, answered time.Time
		err             error
	}
	readings := make([]reading, len(all))
	var asking sync.WaitGroup
	free := make(chan struct{}, askedAtOnce)
	for i := range all {
		free <- struct{}{}
		asking.Go(func() {
			defer func() { <-free }()
			r := &readings[i]
			r.asked = d.Now()
			r.said, r.err = d.BackendClock(ctx, &all[i])
			r.answered = d.Now()
		})
	}
	asking.Wait()
	var silent []string
	for i, r := range readings {
		switch {
		case r.err != nil: // told by the finding about backends
		case r.said.IsZero():
			silent = append(silent, label(&all[i])+" does not tell its time")
		default:
			// A Date header has whole seconds.
			const second = time.Second
			half := r.answered.Sub(r.asked) / 2
			judge(label(&all[i]), r.said.Add(second/2).Sub(r.asked.Add(half)), half+second/2)
		}
	}
	c.several("clock", Warn, "see whether something between removes the Date header", silent)
}

func label(b *topology.Backend) string { return b.Name + " " + b.URL }
