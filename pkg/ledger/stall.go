package ledger

import (
	"context"
	"strconv"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// tellStall publishes the event of a stall that a change of an operation's record has
// begun or ended, whoever made the change.
func (l *Ledger) tellStall(ctx context.Context, was operation.Operation, now Versioned[operation.Operation]) {
	before, after := was.Stall(), now.Value.Stall()
	if (before == nil) == (after == nil) {
		return
	}
	c := after
	if c == nil {
		c = before
	}
	stall := stallEvent(now.Value, now.Revision, c, after != nil)
	l.Emit(ctx, now.Value.ID+"/stall/"+strconv.FormatUint(now.Revision, 10), stall)
}

// stallEvent tells of the condition of an operation, that has just been shown or has
// just ended.
func stallEvent(op operation.Operation, revision uint64, c *operation.Condition, stalled bool) events.OperationStall {
	s := events.OperationStall{
		OperationID: op.ID, Revision: revision, Kind: op.Kind, State: op.State, Stalled: stalled,
		Since: c.Since, LimitSeconds: c.LimitSeconds, Reason: c.Reason, Waits: []operation.Wait{},
	}
	if c.Wait != nil {
		s.Waits = append(s.Waits, *c.Wait)
	}
	if s.Since.IsZero() {
		s.Since = time.Unix(0, 0).UTC() // a record of before
	}
	return s
}
