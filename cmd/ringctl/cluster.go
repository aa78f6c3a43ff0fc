package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"
)

// whereCmd says who owns a measurement.
type whereCmd struct {
	Database    string `arg:"" help:"Name of the database."`
	Measurement string `arg:"" help:"Name of the measurement."`
}

// Help are the command's examples.
func (*whereCmd) Help() string {
	return examples("ringctl where telegraf cpu", "ringctl where telegraf cpu -o json")
}

type ownerView struct {
	CircleID   int    `json:"circle_id"`
	CircleName string `json:"circle_name"`
	Backend    string `json:"backend"`
	URL        string `json:"url"`
	Read       bool   `json:"read"`
	Written    bool   `json:"written"`
}

// Run says it.
func (c *whereCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, "/v1/where", url.Values{"db": {c.Database}, "measurement": {c.Measurement}})
	if err != nil {
		return err
	}
	var v struct {
		Owners       []ownerView `json:"owners"`
		FormerOwners []ownerView `json:"former_owners"`
	}
	if err := decode(raw, &v); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		row(w, "CIRCLE", "NAME", "BACKEND", "URL", "OWNER", "READ", "WRITTEN")
		for _, o := range v.Owners {
			row(w, o.CircleID, o.CircleName, o.Backend, o.URL, "now", yes(o.Read), yes(o.Written))
		}
		for _, o := range v.FormerOwners {
			row(w, o.CircleID, o.CircleName, o.Backend, o.URL, "before", yes(o.Read), yes(o.Written))
		}
		return nil
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// topologyCmd shows the circles.
type topologyCmd struct{}

// Help are the command's examples.
func (*topologyCmd) Help() string { return examples("ringctl topology", "ringctl topology -o yaml") }

type topologyView struct {
	Epoch     uint64    `json:"epoch"`
	HashKey   string    `json:"hash_key"`
	ShardKey  string    `json:"shard_key"`
	CreatedAt time.Time `json:"created_at"`
	Circles   []struct {
		ID              int    `json:"id"`
		Name            string `json:"name"`
		OperationID     string `json:"operation_id"`
		MigratingByHand bool   `json:"migrating_by_hand"`
		Unreadable      string `json:"unreadable"`
		Transition      *struct {
			Step     string        `json:"step"`
			WaitsFor string        `json:"waits_for"`
			Former   []backendView `json:"former_backends"`
		} `json:"transition"`
		Backends []backendView `json:"backends"`
	} `json:"circles"`
	ResyncingByHand bool `json:"resyncing_by_hand"`
}

type backendView struct {
	Name      string `json:"name"`
	URL       string `json:"url"`
	WriteOnly bool   `json:"write_only"`
	State     string `json:"state"`
	Mode      string `json:"mode"`
	Backlog   *struct {
		Reason string    `json:"reason"`
		Since  time.Time `json:"since"`
	} `json:"backlog"`
	Version string `json:"version"`
	Error   string `json:"error"`
}

// trouble is what is wrong with a backend.
func (b *backendView) trouble() string {
	switch {
	case b.Error != "":
		return b.Error
	case b.Backlog != nil:
		return b.Backlog.Reason
	default:
		return ""
	}
}

// Run shows them.
func (c *topologyCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, "/v1/topology", nil)
	if err != nil {
		return err
	}
	var t topologyView
	if err := decode(raw, &t); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		t.table(w)
		return nil
	})
}

func (t *topologyView) table(w io.Writer) {
	fmt.Fprintf(w, "epoch %d of %s, hash key %s, shard key %s\n", t.Epoch, clock(&t.CreatedAt), t.HashKey, t.ShardKey)
	if t.ResyncingByHand {
		fmt.Fprintln(w, "flagged by hand as resyncing")
	}
	for _, c := range t.Circles {
		title(w, "CIRCLE %d %s", c.ID, cell(c.Name))
		if c.OperationID != "" {
			fmt.Fprintf(w, "held by operation %s\n", c.OperationID)
		}
		if c.MigratingByHand {
			fmt.Fprintln(w, "flagged by hand as migrating")
		}
		if c.Unreadable != "" {
			fmt.Fprintf(w, "not read: %s\n", cell(c.Unreadable))
		}
		if c.Transition != nil {
			fmt.Fprintf(w, "changing, step %s; waits for %s\n", c.Transition.Step, cell(c.Transition.WaitsFor))
		}
		row(w, "BACKEND", "URL", "STATE", "MODE", "VERSION", "NOTE", "TROUBLE")
		backend := func(b *backendView, note string) {
			if b.WriteOnly {
				note += " write only"
			}
			row(w, b.Name, b.URL, b.State, b.Mode, b.Version, note, b.trouble())
		}
		for i := range c.Backends {
			backend(&c.Backends[i], "")
		}
		if c.Transition != nil {
			for i := range c.Transition.Former {
				backend(&c.Transition.Former[i], "before")
			}
		}
	}
}

// workersCmd lists workers.
type workersCmd struct{}

// Help are the command's examples.
func (*workersCmd) Help() string { return examples("ringctl workers", "ringctl workers -o json") }

// Run lists them.
func (c *workersCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, "/v1/workers", nil)
	if err != nil {
		return err
	}
	var v struct {
		Items []workerView `json:"items"`
	}
	if err := decode(raw, &v); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		row(w, "ID", "HOST", "VERSION", "SLOTS", "BUSY", "STATE", "STARTED", "SEEN")
		for _, k := range v.Items {
			state := "live"
			if k.Draining {
				state = "draining"
			}
			row(w, k.ID, k.Host, k.Version, k.Slots, k.Busy, state, a.ago(&k.StartedAt), a.ago(&k.SeenAt))
		}
		return nil
	})
}

// healthCmd says whether all is well.
type healthCmd struct{}

// Help are the command's examples.
func (*healthCmd) Help() string {
	return examples("ringctl health", "ringctl health -o json") + `
Exit code 0 when the api is ready and every backend answers, 1 otherwise. "ringctl doctor" looks closer.`
}

type readyView struct {
	Status string `json:"status"`
	Checks []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
		Error  string `json:"error"`
	} `json:"checks"`
}

// Run says it.
func (c *healthCmd) Run(a *app) error {
	// An api that is not ready says so with a 503 that has its checks in it: it is
	// neither repeated nor a refusal.
	got, _, err := a.client.once(a.ctx, call{method: "GET", path: "/readyz"})
	var ready readyView
	if problem, ok := errors.AsType[*problemError](err); ok && json.Unmarshal(got.body, &ready) == nil && len(ready.Checks) > 0 {
		err = nil
		_ = problem
	}
	if err != nil {
		return err
	}
	if err := decode(got.body, &ready); err != nil {
		return err
	}
	raw, err := a.client.get(a.ctx, "/v1/topology", nil)
	var t topologyView
	if err == nil {
		err = decode(raw, &t)
	}
	if err != nil {
		return err
	}
	well := ready.Status == "ok"
	for _, circle := range t.Circles {
		for i := range circle.Backends {
			b := &circle.Backends[i]
			well = well && b.State == "active" && b.Error == ""
		}
	}
	err = a.showValue(map[string]any{"healthy": well, "api": json.RawMessage(got.body), "topology": json.RawMessage(raw)}, func(w io.Writer) error {
		row(w, "PART", "STATE", "TROUBLE")
		for _, check := range ready.Checks {
			row(w, "api: "+check.Name, check.Status, check.Error)
		}
		for _, circle := range t.Circles {
			for i := range circle.Backends {
				b := &circle.Backends[i]
				state := b.State
				if b.Mode != "" && b.Mode != "direct" {
					state += ", " + b.Mode
				}
				row(w, fmt.Sprintf("circle %d: %s", circle.ID, b.Name), state, b.trouble())
			}
		}
		return nil
	})
	if err == nil && !well {
		err = &exitError{exitFailed, "not all is well; ringctl doctor looks closer"}
	}
	return err
}
