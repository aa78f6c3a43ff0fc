package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// move is what a kind of operation is asked with.
type move interface {
	// kind is its name in the API.
	kind() string
	// parameters is its parameter object.
	parameters(stdin io.Reader) (map[string]any, error)
	// samples are flags as somebody would give them.
	samples() []string
}

// tuning are the flags that all kinds have.
type tuning struct {
	Databases []string `help:"Only these databases, separated by commas." placeholder:"DB" sep:","`
	Database  []string `help:"Only this database; may be repeated, and may have a comma in its name." placeholder:"DB" sep:"none"`
	Workers   *int     `help:"How many tasks read from one backend at once." placeholder:"N"`
}

func (t *tuning) put(p map[string]any) {
	if all := append(append([]string{}, t.Databases...), t.Database...); len(all) > 0 {
		p["databases"] = all
	}
	put(p, "workers", t.Workers)
}

// writing are the flags of the kinds that copy.
type writing struct {
	Batch *int   `help:"How many points one write holds at most." placeholder:"N"`
	Depth string `default:"" enum:",count,digest" help:"count leaves alone what has equal counts at both ends, digest reads everything back." placeholder:"count|digest"`
}

func (w *writing) put(p map[string]any) {
	put(p, "batch", w.Batch)
	putText(p, "depth", w.Depth)
}

// put adds what was given.
func put[T any](p map[string]any, name string, value *T) {
	if value != nil {
		p[name] = *value
	}
}

func putText(p map[string]any, name, text string) {
	if text != "" {
		p[name] = text
	}
}

// rebalance are the flags of that kind.
type rebalance struct {
	CircleID        int      `aliases:"circle" help:"Index of the circle in the configuration, from 0." name:"circle-id" placeholder:"N" required:""`
	Operation       string   `enum:"add,rm" help:"add: the circle has grown; rm: backends have left it." placeholder:"add|rm" required:""`
	Remove          []string `help:"A backend that has left, for rm; may be repeated." placeholder:"NAME=URL" sep:"none"`
	RemovedBackends string   `help:"The backends that have left as a JSON list of name, url, username and password, - for standard input." placeholder:"FILE"`

	tuning
	writing
}

func (rebalance) kind() string { return "rebalance" }

func (rebalance) samples() []string {
	return []string{
		"--circle-id 0 --operation add",
		"--circle-id 0 --operation rm --remove influxdb-1-2=http://10.0.0.12:8086",
		"--circle-id 0 --operation rm --removed-backends removed.json --databases telegraf,collectd",
	}
}

func (r rebalance) parameters(stdin io.Reader) (map[string]any, error) {
	p := map[string]any{"circle_id": r.CircleID, "operation": r.Operation}
	r.tuning.put(p)
	r.writing.put(p)
	removed := []any{}
	for _, text := range r.Remove {
		name, url, ok := strings.Cut(text, "=")
		if !ok || name == "" || url == "" {
			return nil, usageError("--remove %q: use NAME=URL, as in the configuration", text)
		}
		removed = append(removed, map[string]string{"name": name, "url": url})
	}
	if r.RemovedBackends != "" {
		more, err := readBackends(r.RemovedBackends, stdin)
		if err != nil {
			return nil, err
		}
		removed = append(removed, more...)
	}
	if len(removed) > 0 {
		p["removed_backends"] = removed
	}
	return p, nil
}

// readBackends reads a list of backends, which may hold credentials, from a file.
func readBackends(path string, stdin io.Reader) ([]any, error) {
	var raw []byte
	var err error
	if path == "-" {
		raw, err = io.ReadAll(stdin)
	} else {
		raw, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the removed backends: %w", err)
	}
	var list []any
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, usageError(`--removed-backends: %s is not a JSON list such as [{"name": "a", "url": "http://10.0.0.1:8086"}]: %v`, path, err)
	}
	return list, nil
}

// since limits a move to recent points.
type since struct {
	SinceSeconds *int64 `help:"Only the last seconds before the request." placeholder:"N"`
	Since        string `help:"Only points that are not older: a moment as in RFC 3339, or how long ago, such as 6h." placeholder:"TIME"`
}

func (s *since) put(p map[string]any) error {
	put(p, "since_seconds", s.SinceSeconds)
	switch {
	case s.Since == "":
		return nil
	case s.SinceSeconds != nil:
		return usageError("--since and --since-seconds: give one of them")
	}
	if ago, ok := span(s.Since); ok {
		p["since_seconds"] = int64(ago / time.Second)
		return nil
	}
	at, err := moment("--since", s.Since, time.Time{})
	if err != nil {
		return err
	}
	p["since"] = at.Format(time.RFC3339Nano)
	return nil
}

// span reads a duration; days may be written as 3d.
func span(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= time.Second
}

// moment reads a time, or how long before now it was.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if ago, ok := span(text); ok && !now.IsZero() {
		return now.Add(-ago).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, usageError("%s %q: use a moment such as 2026-11-21T18:00:00Z, or how long ago, such as 90m or 3d", flag, text)
	}
	return at.UTC(), nil
}

// recovery are the flags of that kind.
type recovery struct {
	FromCircleID int      `aliases:"from" help:"Index of the circle to copy from." name:"from-circle-id" placeholder:"N" required:""`
	ToCircleID   int      `aliases:"to" help:"Index of the circle to fill." name:"to-circle-id" placeholder:"N" required:""`
	BackendURLs  []string `help:"Write to these backends of it only, separated by commas." name:"backend-urls" placeholder:"URL" sep:","`

	since
	tuning
	writing
}

func (recovery) kind() string { return "recovery" }

func (recovery) samples() []string {
	return []string{
		"--from-circle-id 0 --to-circle-id 1",
		"--from-circle-id 0 --to-circle-id 1 --backend-urls http://10.0.0.21:8086",
		"--from-circle-id 1 --to-circle-id 0 --since 6h --database telegraf",
	}
}

func (r recovery) parameters(io.Reader) (map[string]any, error) {
	p := map[string]any{"from_circle_id": r.FromCircleID, "to_circle_id": r.ToCircleID}
	if len(r.BackendURLs) > 0 {
		p["backend_urls"] = r.BackendURLs
	}
	r.tuning.put(p)
	r.writing.put(p)
	return p, r.since.put(p)
}

// resync are the flags of that kind.
type resync struct {
	since
	tuning
	writing
}

func (resync) kind() string { return "resync" }

func (resync) samples() []string {
	return []string{"--since 6h", "--since-seconds 3600 --databases telegraf", "--since 2026-11-21T18:00:00Z --depth digest"}
}

func (r resync) parameters(io.Reader) (map[string]any, error) {
	p := map[string]any{}
	r.tuning.put(p)
	r.writing.put(p)
	return p, r.since.put(p)
}

// clearMove are the flags of clear.
type clearMove struct {
	CircleID         int    `aliases:"circle" help:"Index of the circle in the configuration, from 0." name:"circle-id" placeholder:"N" required:""`
	OlderThanSeconds *int64 `help:"Only points that are older." placeholder:"N"`
	OlderThan        string `help:"Only points that are older: such as 90m or 30d." placeholder:"DURATION"`

	tuning
}

func (clearMove) kind() string { return "clear" }

func (clearMove) samples() []string {
	return []string{"--circle-id 0", "--circle-id 0 --databases telegraf --older-than 30d"}
}

func (c clearMove) parameters(io.Reader) (map[string]any, error) {
	p := map[string]any{"circle_id": c.CircleID}
	c.tuning.put(p)
	put(p, "older_than_seconds", c.OlderThanSeconds)
	if c.OlderThan != "" {
		age, ok := span(c.OlderThan)
		if !ok || c.OlderThanSeconds != nil {
			return nil, usageError("--older-than %q: use a duration such as 90m or 30d, and not beside --older-than-seconds", c.OlderThan)
		}
		p["older_than_seconds"] = int64(age / time.Second)
	}
	return p, nil
}

// verifyMove are the flags of verify.
type verifyMove struct {
	CircleID        int    `aliases:"circle" help:"Index of the circle in the configuration, from 0." name:"circle-id" placeholder:"N" required:""`
	AgainstCircleID *int   `aliases:"against" help:"Compare it with this circle (the lowest other one); the same circle again means what lies in wrong places, with its owners." name:"against-circle-id" placeholder:"N"`
	Depth           string `default:"" enum:",count,digest" help:"count compares counts, digest every point by value; left out, digest." placeholder:"count|digest"`
	Batch           *int   `help:"How many points one write of a repair holds at most." placeholder:"N"`
	Repair          bool   `help:"Copy what is missing, from the side that --repair-from names."`
	RepairFrom      string `default:"" enum:",circle,against" help:"The side to copy from: --circle-id or --against-circle-id." placeholder:"circle|against"`

	since
	tuning
}

func (verifyMove) kind() string { return "verify" }

func (verifyMove) samples() []string {
	return []string{
		"--circle-id 0 --depth count",
		"--circle-id 0 --against-circle-id 1 --depth digest --databases telegraf",
		"--circle-id 0 --against-circle-id 1 --depth digest --repair --repair-from circle",
	}
}

func (v verifyMove) parameters(io.Reader) (map[string]any, error) {
	if v.Repair != (v.RepairFrom != "") {
		return nil, usageError("--repair says that what is missing is to be copied, --repair-from from which side: give both")
	}
	p := map[string]any{"circle_id": v.CircleID}
	v.tuning.put(p)
	put(p, "against_circle_id", v.AgainstCircleID)
	putText(p, "depth", v.Depth)
	putText(p, "repair_from", v.RepairFrom)
	put(p, "batch", v.Batch)
	if v.Repair {
		p["repair"] = true
	}
	return p, v.since.put(p)
}
