package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// leasesCmd is about who holds what.
type leasesCmd struct {
	List  leasesListCmd  `cmd:"" help:"List the leases that live."`
	Break leasesBreakCmd `cmd:"" help:"Take the lease of an operation or of a task from its holder."`
}

// sampleLease is the key of a lease as examples have it.
const sampleLease = "operation." + sampleID

// Help are the command's examples.
func (*leasesCmd) Help() string {
	return examples("ringctl leases list", "ringctl leases break "+sampleLease+" --reason 'its host is gone'")
}

const leasesPath = "/v1/leases"

type leaseView struct {
	Key         string    `json:"key"`
	Holder      string    `json:"holder"`
	OperationID string    `json:"operation_id"`
	TaskID      string    `json:"task_id"`
	RenewedAt   time.Time `json:"renewed_at"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// leasesListCmd lists them.
type leasesListCmd struct{}

// Help are the command's examples.
func (*leasesListCmd) Help() string {
	return examples("ringctl leases list", "ringctl leases list -o json") + `
A lease runs out by itself when its holder does not renew it.`
}

// Run lists them.
func (*leasesListCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, leasesPath, nil)
	if err != nil {
		return err
	}
	var all struct {
		Items []leaseView `json:"items"`
	}
	if err := decode(raw, &all); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		row(w, "KEY", "HOLDER", "RENEWED", "RUNS OUT", "OPERATION", "TASK")
		for i := range all.Items {
			l := &all.Items[i]
			row(w, l.Key, l.Holder, a.ago(&l.RenewedAt), "in "+seconds(max(l.ExpiresAt.Sub(a.now()).Seconds(), 0)), l.OperationID, l.TaskID)
		}
		return nil
	})
}

// leasesBreakCmd breaks one.
type leasesBreakCmd struct {
	Key string `arg:"" help:"Key of the lease, as the list has it."`
	why
}

// Help are the command's examples.
func (*leasesBreakCmd) Help() string {
	return examples("ringctl leases break "+sampleLease+" --reason 'its host is gone'", "ringctl leases list") + `
Another process takes the work up at once; whoever had it is refused at its next step, so nothing is done twice. It is
noted in the operation's audit trail.`
}

// Run breaks it.
func (c *leasesBreakCmd) Run(a *app) error {
	body := map[string]any{}
	putText(body, "reason", c.Reason)
	path := leasesPath + "/" + url.PathEscape(c.Key) + "/break"
	if _, err := a.client.do(a.ctx, call{method: http.MethodPost, path: path, body: body}); err != nil {
		return err
	}
	return a.showValue(map[string]any{"key": c.Key, "broken": true}, func(w io.Writer) error {
		fmt.Fprintf(w, "lease %s is free\n", c.Key)
		return nil
	})
}
