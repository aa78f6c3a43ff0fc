package influx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Identity tells one running server process from every other. A restart gives
// a server another one.
type Identity struct {
	// Hostname is that of its machine, PID its process there.
	Hostname string
	PID      int64
	// Started is when it started, by its own clock, to the nanosecond.
	Started time.Time
}

// Same reports whether two identities are of one process. The name of a machine
// may change while a server runs, so it does not tell two of them apart.
func (i Identity) Same(o Identity) bool { return i.PID == o.PID && i.Started.Equal(o.Started) }

// String names the process for a person.
func (i Identity) String() string {
	return fmt.Sprintf("process %d on %q, started %s", i.PID, i.Hostname, i.Started.UTC().Format(time.RFC3339Nano))
}

// maxDiagnostics bounds the answer to SHOW DIAGNOSTICS: a server's own is 2 KiB.
const maxDiagnostics = 1 << 20

// Identity asks a server who it is, by SHOW DIAGNOSTICS, which only an
// administrator's account may. A server that does not say when it started gives
// an [Error] of class Permanent.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	op := "asking for the identity of " + c.URL()
	form := url.Values{"q": {"SHOW DIAGNOSTICS"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/query", strings.NewReader(form))
	if err != nil {
		return Identity{}, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// JSON: it gives times as texts, to the nanosecond.
	req.Header.Set("Accept", "application/json")
	res, err := c.do(c.reads, req)
	if err != nil {
		return Identity{}, c.broke(ctx, op, err)
	}
	defer discard(res.Body)
	if res.StatusCode != http.StatusOK {
		return Identity{}, refused(op, res, classifyQuery)
	}
	var said diagnostics
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDiagnostics))
	if err != nil {
		return Identity{}, c.broke(ctx, op, err)
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return Identity{}, &Error{Class: Permanent, Op: op, Status: res.StatusCode, Message: "the answer is not that of InfluxDB 1.x: " + clip(err.Error()), cause: err}
	}
	for i := range said.Results {
		if text := said.Results[i].Error; text != "" {
			return Identity{}, &Error{Class: classifyResult(text), Op: op, Status: res.StatusCode, Message: clip(text)}
		}
	}
	id, err := said.identity()
	if err != nil {
		return Identity{}, &Error{Class: Permanent, Op: op, Status: res.StatusCode, Message: err.Error()}
	}
	return id, nil
}

// diagnostics is the answer to SHOW DIAGNOSTICS: tables of one row each.
type diagnostics struct {
	Results []struct {
		Error  string `json:"error"`
		Series []struct {
			Name    string              `json:"name"`
			Columns []string            `json:"columns"`
			Values  [][]json.RawMessage `json:"values"`
		} `json:"series"`
	} `json:"results"`
}

func (d *diagnostics) identity() (id Identity, err error) {
	if err := errors.Join(
		d.cell("system", "started", &id.Started),
		d.cell("system", "PID", &id.PID),
		d.cell("network", "hostname", &id.Hostname),
	); err != nil {
		return Identity{}, err
	}
	if id.Started.IsZero() {
		return Identity{}, errors.New("the server does not say when it started")
	}
	return id, nil
}

// cell reads one value of a table.
func (d *diagnostics) cell(table, column string, into any) error {
	for i := range d.Results {
		for _, s := range d.Results[i].Series {
			if s.Name != table || len(s.Values) != 1 {
				continue
			}
			for n, name := range s.Columns {
				if name == column && n < len(s.Values[0]) {
					if err := json.Unmarshal(s.Values[0][n], into); err != nil {
						return fmt.Errorf("the server's %s %s cannot be read: %w", table, column, err)
					}
					return nil
				}
			}
		}
	}
	return fmt.Errorf("the server does not tell its %s %s", table, column)
}
