package controller

import (
	"context"
	"errors"

	"ringmaster/pkg/operation"
)

// SetLimits changes what an operation may take from the backends. Whoever works for it
// heeds the change with the next batch. A patch that changes nothing is not noted.
// Its refusals are an *operation.InvalidError, too.
func (c *Controls) SetLimits(ctx context.Context, id string, patch operation.LimitsPatch, by operation.Intent) (operation.Operation, error) {
	if err := patch.Check(); err != nil {
		return operation.Operation{}, err
	}
	var change string
	op, err := c.changed(ctx, id, func(op *operation.Operation) error {
		if op.State.Terminal() {
			return c.refused(op, "limits", "")
		}
		was := op.Limits
		if op.Limits = patch.Apply(was); op.Limits.Equal(was) {
			return errAlready
		}
		change = was.String() + " → " + op.Limits.String()
		return nil
	})
	switch {
	case errors.Is(err, errAlready):
		return op, nil
	case err != nil:
		return op, err
	}
	return op, c.note(ctx, &op, operation.AuditEntry{Action: "limits", Change: change}, by)
}
