package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"ringmaster/pkg/operation"
)

// Client speaks the native API as a script would.
type Client struct {
	// URL is the api's base URL.
	URL string
	// Token is the admin's; on loopback it may be empty.
	Token string
}

// Do sends a request and returns the answer with its whole body.
func (c Client) Do(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	maps.Copy(req.Header, header)
	if len(body) > 0 && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return res, raw, nil
}

// Get reads a JSON answer; a status that is not 200 is an error with its body.
func (c Client) Get(ctx context.Context, path string, into any) error {
	res, raw, err := c.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, res.Status, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// Submit asks for an operation.
func (c Client) Submit(ctx context.Context, kind operation.Kind, parameters any) (operation.Operation, error) {
	return c.SubmitRequest(ctx, map[string]any{"kind": kind, "parameters": parameters})
}

// SubmitRequest posts a whole request.
func (c Client) SubmitRequest(ctx context.Context, request map[string]any) (operation.Operation, error) {
	var op operation.Operation
	body, err := json.Marshal(request)
	if err != nil {
		return op, fmt.Errorf("submitting an operation: %w", err)
	}
	res, raw, err := c.Do(ctx, http.MethodPost, "/v1/operations", nil, body)
	if err != nil {
		return op, err
	}
	if res.StatusCode != http.StatusAccepted {
		return op, fmt.Errorf("submitting an operation: %s: %s", res.Status, raw)
	}
	return op, json.Unmarshal(raw, &op)
}

// shownTask is a task as the API shows it: its slices are counted and its
// evidence stays in the record.
type shownTask struct {
	operation.Task

	Slices     json.RawMessage `json:"slices"`
	Checkpoint json.RawMessage `json:"checkpoint"`
}

// Tasks reads all tasks of an operation, without their slices and evidence.
func (c Client) Tasks(ctx context.Context, id string) ([]operation.Task, error) {
	var all []operation.Task
	cursor := ""
	for {
		var page struct {
			Items      []shownTask `json:"items"`
			NextCursor string      `json:"next_cursor"`
		}
		if err := c.Get(ctx, "/v1/operations/"+id+"/tasks?limit=1000"+cursor, &page); err != nil {
			return nil, err
		}
		for _, shown := range page.Items {
			all = append(all, shown.Task)
		}
		if page.NextCursor == "" {
			return all, nil
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

// Operation reads one operation.
func (c Client) Operation(ctx context.Context, id string) (operation.Operation, error) {
	var op operation.Operation
	return op, c.Get(ctx, "/v1/operations/"+id, &op)
}

// Report reads an operation's verification report.
func (c Client) Report(ctx context.Context, id string) (operation.Report, error) {
	var r operation.Report
	return r, c.Get(ctx, "/v1/operations/"+id+"/report", &r)
}

// pollEvery is how often Wait looks.
const pollEvery = 50 * time.Millisecond

// Wait reads an operation until the condition holds. Errors on the way count as
// an api that is being restarted; the last one is told when ctx ends.
func (c Client) Wait(ctx context.Context, id string, until func(*operation.Operation) bool) (operation.Operation, error) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	var op operation.Operation
	for {
		now, err := c.Operation(ctx, id)
		if err == nil {
			op = now
			if until(&op) {
				return op, nil
			}
		}
		last = err
		select {
		case <-ctx.Done():
			return op, fmt.Errorf("waiting for operation %s, %s with progress %+v: %w", id, op.State, op.Progress, errors.Join(ctx.Err(), last))
		case <-ticker.C:
		}
	}
}

// Ended is a condition for Wait.
func Ended(op *operation.Operation) bool { return op.State.Terminal() }
