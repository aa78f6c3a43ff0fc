package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// What is measured of a limit: for how long, and how long it may take to be heeded.
const (
	limitedTo   = 50_000
	limitedFor  = 10 * time.Second
	limitSettle = time.Second
	limitHeeded = 300 * time.Millisecond
)

// limit measures how exactly four workers together keep to a limit of points a second,
// by what their destination stores, and how they follow when it is changed.
func (b *bench) limit(s set) error {
	fmt.Fprintf(b.out, "\na limit of %d points/s across 4 workers: %s\n", limitedTo, s.name)
	servers, stop, err := b.servers(2)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.load(b.ctx, servers[0].URL()); err != nil {
		return err
	}
	sink, err := harness.NewProxy(servers[1].URL())
	if err != nil {
		return err
	}
	defer func() { _ = sink.Close() }() // nothing goes through it any more
	var flow harness.Flow
	flow.Through(sink)
	c, err := b.clusterOf(4, []string{"-slots", "2"}, []string{servers[0].URL()}, []string{sink.URL()})
	if err != nil {
		return err
	}
	return errors.Join(b.limited(c, &flow), c.Close())
}

// limited runs an operation within limits and prints what it kept to.
func (b *bench) limited(c *harness.Cluster, flow *harness.Flow) error {
	request := move(operation.KindRecovery, map[string]any{"from_circle_id": 0, "to_circle_id": 1})
	request["limits"] = map[string]any{"points_per_second": limitedTo}
	op, err := c.Client.SubmitRequest(b.ctx, request)
	if err == nil {
		_, err = c.Client.Wait(b.ctx, op.ID, func(op *operation.Operation) bool { return flow.Total() > 0 || op.State.Terminal() })
	}
	if err == nil {
		err = b.pause(limitSettle)
	}
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name  string
		limit int
		d     time.Duration
		goal  string
	}{
		{"measured over 10 s", limitedTo, limitedFor, "(goal 0.95 to 1.05)"},
		{"changed to a tenth, 0.3 s later, over 5 s", limitedTo / 10, 5 * time.Second, ""},
		{"changed back, 0.3 s later, over 5 s", limitedTo, 5 * time.Second, ""},
	} {
		if step.goal == "" {
			if err := b.setLimit(c, op.ID, step.limit); err != nil {
				return err
			}
			if err := b.pause(limitHeeded); err != nil {
				return err
			}
		}
		rate, err := flow.Measure(b.ctx, step.d)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "  %-42s %9.0f points/s  %6.3f × the limit  %s\n", step.name, rate, rate/float64(step.limit), step.goal)
	}
	if err := b.setLimit(c, op.ID, nil); err != nil {
		return err
	}
	// What the machine has to offer at all, for who reads the figures above.
	free, err := flow.Measure(b.ctx, limitSettle)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  %-42s %9.0f points/s\n", "lifted, over the second that follows", free)
	op, err = c.Client.Wait(b.ctx, op.ID, harness.Ended)
	if err == nil && op.State != operation.Succeeded {
		err = fmt.Errorf("the operation ended %s", op.State)
	}
	return err
}

// setLimit changes the limit of an operation.
func (b *bench) setLimit(c *harness.Cluster, id string, limit any) error {
	body, err := json.Marshal(map[string]any{"points_per_second": limit})
	if err != nil {
		return err
	}
	res, answer, err := c.Client.Do(b.ctx, http.MethodPatch, "/v1/operations/"+id+"/limits", nil, body)
	if err == nil && res.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("changing a limit: %s: %s", res.Status, answer)
	}
	return err
}
