package controller

import (
	"context"
	"errors"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// codeNeverAccepted is the end of an operation whose submission died.
const codeNeverAccepted = "never_accepted"

// sweepOrphans ends operations that have a record and no command: nobody would
// ever take them up, and they must not look as if they were queued for ever. For
// the most part their submission died between the record and its scopes.
//
// How long that has been so is measured by this process's own clock, from when it
// was first seen: the clock of whoever made the record may be another.
func (c *Controller) sweepOrphans(ctx context.Context) error {
	var open []ledger.Versioned[operation.Operation]
	err := c.ledger.Operations(ctx, func(op operation.Operation, revision uint64) error {
		if !op.State.Terminal() {
			open = append(open, ledger.Versioned[operation.Operation]{Value: op, Revision: revision})
		}
		return nil
	})
	if err != nil {
		return err
	}
	// After the records: an operation whose command was placed before this is not
	// taken for an orphan.
	ids, err := c.ledger.OpenOperations(ctx)
	if err != nil {
		return err
	}
	accepted := make(map[string]bool, len(ids))
	for _, id := range ids {
		accepted[id] = true
	}
	now := c.options.Now()
	seen := map[string]time.Time{}
	var failed error
	for _, v := range open {
		if accepted[v.Value.ID] {
			continue
		}
		since, ok := c.orphans[v.Value.ID]
		if !ok {
			since = now
		}
		seen[v.Value.ID] = since
		if now.Sub(since) < c.options.Orphan {
			continue
		}
		if err := c.endOrphan(ctx, v); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	c.orphans = seen
	return failed
}

// endOrphan ends an operation without a command. The compare-and-set refuses when
// anybody has touched its record; then it is looked at again.
func (c *Controller) endOrphan(ctx context.Context, v ledger.Versioned[operation.Operation]) error {
	next, err := v.Value.Move(operation.Cancelled)
	if err != nil {
		return err
	}
	now := c.options.Now().UTC()
	next.FinishedAt = &now
	next.Error = &operation.Error{Code: "command_lost", Detail: "its command is gone, so nobody carries it out any more; what is copied stays copied; start it again"}
	if v.Value.State == operation.Queued {
		next.Error = &operation.Error{Code: codeNeverAccepted, Detail: "the process that took the request died before it was accepted; nothing was started"}
	}
	_, err = c.ledger.UpdateOperation(ctx, v, next)
	if errors.Is(err, ledger.ErrConflict) {
		return nil
	}
	return err
}
