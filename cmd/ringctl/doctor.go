package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"ringmaster/pkg/topology"
)

// doctorCmd examines an installation.
type doctorCmd struct {
	Config string `help:"Check this configuration file here, and ask no server." placeholder:"FILE" type:"path"`
}

// Help are the command's examples.
func (*doctorCmd) Help() string {
	return examples("ringctl doctor", "ringctl doctor --config /etc/influx-proxy/proxy.json", "ringctl doctor -o json") + `
It looks at the configuration, at how durable NATS keeps records, at clocks, disks, backends, workers and keys, and says
what to mend. Exit code 1 when something has failed; a warning is no failure.`
}

// checkView is one thing that was examined.
type checkView struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Findings of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// Run examines it.
func (c *doctorCmd) Run(a *app) error {
	var checks []checkView
	if c.Config != "" {
		checks = checkFile(c.Config)
		if err := a.showValue(map[string]any{"checks": checks}, checkTable(checks)); err != nil {
			return err
		}
		return verdict(checks)
	}
	raw, err := a.client.get(a.ctx, "/v1/doctor", nil)
	if err != nil {
		return err
	}
	var v struct {
		Checks []checkView `json:"checks"`
	}
	if err := decode(raw, &v); err != nil {
		return err
	}
	if len(v.Checks) == 0 {
		return errors.New("the api has examined nothing")
	}
	if err := a.show(raw, checkTable(v.Checks)); err != nil {
		return err
	}
	return verdict(v.Checks)
}

// checkTable shows checks, each remedy below what it mends.
func checkTable(checks []checkView) func(io.Writer) error {
	return func(w io.Writer) error {
		row(w, "STATUS", "CHECK", "FOUND")
		for _, c := range checks {
			row(w, c.Status, c.Name, c.Detail)
			if c.Remedy != "" {
				fmt.Fprintf(w, "\t\tmend: %s\n", cell(c.Remedy))
			}
		}
		return nil
	}
}

func verdict(checks []checkView) error {
	failed := 0
	for _, c := range checks {
		if c.Status != checkOK && c.Status != checkWarn {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return &exitError{exitFailed, fmt.Sprintf("%d of %d checks have failed", failed, len(checks))}
}

// checkFile checks a configuration file as an api would at its start.
func checkFile(path string) []checkView {
	const name = "configuration"
	raw, err := os.ReadFile(path)
	if err != nil {
		return []checkView{{name, checkFail, err.Error(), "name a file that can be read"}}
	}
	config, err := topology.Parse(filepath.Base(path), raw)
	var checks []checkView
	if wrong, ok := errors.AsType[*topology.ConfigError](err); ok {
		for _, m := range wrong.Mistakes {
			checks = append(checks, checkView{name, checkFail, m.Path + " " + m.Problem, m.Remedy})
		}
		return checks
	}
	if err != nil {
		return []checkView{{name, checkFail, err.Error(), "mend the file"}}
	}
	backends := 0
	for _, c := range config.Circles {
		backends += len(c.Backends)
	}
	checks = append(checks, checkView{name, checkOK, fmt.Sprintf("%s is valid: %d circles, %d backends", path, len(config.Circles), backends), ""})
	for _, w := range config.Warnings {
		checks = append(checks, checkView{name, checkWarn, w.Path + " " + w.Problem, w.Remedy})
	}
	return slices.Clip(checks)
}
