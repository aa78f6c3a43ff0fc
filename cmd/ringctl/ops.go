package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"ringmaster/pkg/operation"
)

// opsCmd is everything about operations that exist.
type opsCmd struct {
	List    opsListCmd    `cmd:"" help:"List operations, the newest first."`
	Get     opsGetCmd     `cmd:"" help:"Show one operation."`
	Watch   opsWatchCmd   `cmd:"" help:"Show how an operation goes until it has ended."`
	Approve opsApproveCmd `cmd:"" help:"Let a held operation carry its plan out."`
	Pause   opsPauseCmd   `cmd:"" help:"Stop an operation for a while; what it has done is kept."`
	Resume  opsResumeCmd  `cmd:"" help:"Let a paused operation go on."`
	Cancel  opsCancelCmd  `cmd:"" help:"End an operation; what was copied stays, nothing is deleted."`
	Retry   opsRetryCmd   `cmd:"" help:"Do again what an ended operation has not done."`
	Limits  opsLimitsCmd  `cmd:"" help:"Show or change how much an operation may take."`
	Plan    opsPlanCmd    `cmd:"" help:"Show what an operation is going to do."`
	Report  opsReportCmd  `cmd:"" help:"Show what was compared and proven."`
	Tasks   opsTasksCmd   `cmd:"" help:"List the tasks of an operation."`
	Audit   opsAuditCmd   `cmd:"" help:"Show who did what to an operation."`
}

// Help are the command's examples.
func (*opsCmd) Help() string {
	return examples("ringctl ops list --state running", "ringctl ops watch "+sampleID, "ringctl ops pause "+sampleID+" --reason 'peak hour'")
}

// sampleID is an id as examples have it.
const sampleID = "0198c0de-7a11-7cc3-9f00-0123456789ab"

// one names an operation.
type one struct {
	ID string `arg:"" help:"Id of the operation."`
}

// path is where the operation is, or a part of it.
func (o *one) path(parts ...string) string {
	return "/v1/operations/" + url.PathEscape(o.ID) + strings.Join(append([]string{""}, parts...), "/")
}

// opsListCmd lists operations.
type opsListCmd struct {
	State string `default:"" enum:",queued,planning,planned,awaiting_approval,running,verifying,paused,succeeded,partially_failed,failed,cancelled" help:"Only those in this state." placeholder:"STATE"`
	Kind  string `default:"" enum:",rebalance,recovery,resync,clear,verify,archive,restore,reindex,index_action,delete_missing_segments" help:"Only those of this kind." placeholder:"KIND"`
	Scope string `help:"Only those that hold this, such as circle/0." placeholder:"SCOPE"`
	Since string `help:"Only those created since: a moment as in RFC 3339, or how long ago, such as 24h or 7d." placeholder:"TIME"`
	Until string `help:"Only those created before: likewise." placeholder:"TIME"`
	Limit int    `default:"100" help:"At most so many; 0 means all." placeholder:"N"`
}

// Help are the command's examples.
func (*opsListCmd) Help() string {
	return examples(
		"ringctl ops list",
		"ringctl ops list --state failed --kind rebalance --since 7d",
		"ringctl ops list --scope circle/0 --limit 0 -o json",
	)
}

// Run lists them.
func (c *opsListCmd) Run(a *app) error {
	q := url.Values{}
	for name, value := range map[string]string{"state": c.State, "kind": c.Kind, "scope": c.Scope} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, text := range map[string]string{"since": c.Since, "until": c.Until} {
		if text == "" {
			continue
		}
		at, err := moment("--"+name, text, a.now())
		if err != nil {
			return err
		}
		q.Set(name, at.Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	if c.Limit < 0 {
		return usageError("--limit %d: use a number of operations, or 0 for all", c.Limit)
	}
	all, err := a.pages("/v1/operations", q, c.Limit)
	if err != nil {
		return err
	}
	ops, err := decodeAll[opView](all)
	if err != nil {
		return err
	}
	return a.showValue(map[string]any{"items": all}, func(w io.Writer) error {
		row(w, "ID", "KIND", "SCOPE", "STATE", "DONE", "RATE", "ETA", "CREATED", "BY")
		for i := range ops {
			op := &ops[i]
			done, rate, eta := op.pace()
			row(w, op.ID, op.Kind, list(op.Scope), op.stateText(), done, rate, eta, a.ago(&op.CreatedAt), op.RequestedBy)
		}
		return nil
	})
}

const (
	// pageSize is how much of a list is asked for at once.
	pageSize = 1000
	// maxPages bounds a list that never ends.
	maxPages = 10_000
)

// pages reads a list from page to page; at most limit of it, or with 0 all.
func (a *app) pages(path string, q url.Values, limit int) ([]json.RawMessage, error) {
	all := []json.RawMessage{}
	for range maxPages {
		ask := pageSize
		if limit > 0 {
			ask = min(ask, limit-len(all))
		}
		q.Set("limit", strconv.Itoa(ask))
		raw, err := a.client.get(a.ctx, path, q)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items      []json.RawMessage `json:"items"`
			NextCursor string            `json:"next_cursor"`
		}
		if err := decode(raw, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.NextCursor == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		q.Set("cursor", page.NextCursor)
	}
	return nil, fmt.Errorf("the list %s does not end", path)
}

func decodeAll[T any](all []json.RawMessage) ([]T, error) {
	out := make([]T, len(all))
	for i, raw := range all {
		if err := decode(raw, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// stateText is the state with what is to be known beside it.
func (op *opView) stateText() string {
	text := string(op.State)
	if op.DryRun && op.State != operation.Planned {
		text += " (dry run)"
	}
	if op.State == operation.Paused && op.PausedIn != "" {
		text += " (was " + string(op.PausedIn) + ")"
	}
	if op.CancelRequested != nil && !op.State.Terminal() {
		text += ", being cancelled"
	}
	texts := []string{text}
	for _, c := range op.Conditions {
		if c.Type != string(op.State) {
			texts = append(texts, c.Type)
		}
	}
	return strings.Join(texts, ", ")
}

// pace is how far an operation is, how fast it goes and how long it takes.
func (op *opView) pace() (done, rate, eta string) {
	part, whole := finished(op.State, op.Progress.Phase, &op.Progress.Points)
	done = share(part, whole)
	if op.State.Terminal() {
		return done, "", ""
	}
	if op.Progress.PointsPerSecond > 0 {
		rate = amount(int64(op.Progress.PointsPerSecond)) + "/s"
	}
	if op.Progress.ETASeconds != nil {
		eta = seconds(*op.Progress.ETASeconds)
	}
	return done, rate, eta
}

// opsGetCmd shows an operation.
type opsGetCmd struct{ one }

// Help are the command's examples.
func (*opsGetCmd) Help() string {
	return examples("ringctl ops get "+sampleID, "ringctl ops get "+sampleID+" -o yaml")
}

// Run shows it.
func (c *opsGetCmd) Run(a *app) error {
	raw, op, err := a.operation(c.one)
	if err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		a.describe(w, op)
		return nil
	})
}

// operation reads an operation.
func (a *app) operation(o one) ([]byte, *opView, error) {
	raw, err := a.client.get(a.ctx, o.path(), nil)
	if err != nil {
		return nil, nil, err
	}
	op := &opView{}
	return raw, op, decode(raw, op)
}

// opsPlanCmd shows the plan of an operation.
type opsPlanCmd struct {
	one
	planShown
}

// Help are the command's examples.
func (*opsPlanCmd) Help() string {
	return examples("ringctl ops plan "+sampleID, "ringctl ops plan "+sampleID+" --all", "ringctl ops plan "+sampleID+" -o json")
}

// Run shows it.
func (c *opsPlanCmd) Run(a *app) error {
	_, op, err := a.operation(c.one)
	if err != nil {
		return err
	}
	return a.showPlan(op, c.planShown)
}

// opsWatchCmd follows an operation.
type opsWatchCmd struct {
	one
	Every lapse `default:"10s" help:"How often a line is printed where there is no terminal, beside those that say that something has changed." placeholder:"DURATION"`
}

// Help are the command's examples.
func (*opsWatchCmd) Help() string {
	return examples("ringctl ops watch "+sampleID, "ringctl ops watch "+sampleID+" -o json", "ringctl ops watch "+sampleID+" --every 1m") + `
It shows a bar for each backend at a terminal, lines elsewhere, and with -o json one JSON object a line, with
-o yaml one document after the other. The exit code tells
how the operation has ended: 0 succeeded, 3 partially failed, 4 failed, 5 cancelled. Ctrl-C stops watching (130); the
operation goes on.`
}

// Run follows it.
func (c *opsWatchCmd) Run(a *app) error {
	op, err := a.watch(c.ID, watching{every: c.Every.Duration})
	if err != nil {
		return err
	}
	return endOf(op.State)
}
