package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// Notice is something that the webhook is to be told of an operation, with what has
// come of it so far.
type Notice struct {
	// ID is the same however often it is sent: `<operation>/<revision>/<what>`.
	ID          string    `json:"id"`
	OperationID string    `json:"operation_id"`
	MadeAt      time.Time `json:"made_at"`
	// Body is the event, in its envelope.
	Body json.RawMessage `json:"body"`
	// Tries counts how often it was sent, Next is when it is to be sent again, and
	// LastError what came of it last.
	Tries     int       `json:"tries"`
	Next      time.Time `json:"next_try_at"`
	LastError string    `json:"last_error,omitempty"`
	// Settled: it was taken, or given up.
	Settled bool `json:"settled"`
}

// What a notice tells.
const (
	noticeStalled = "stalled"
	noticeMoving  = "moving"
	noticeEnded   = "ended"
)

// EnsureNotices makes the notices that follow from an operation's record, unless they
// have been made: that it is stalled, or that it has ended in a way that needs a
// person. Repeating it is harmless. It does nothing when there is no webhook.
func (l *Ledger) EnsureNotices(ctx context.Context, op Versioned[operation.Operation]) error {
	if !l.options.Notices {
		return nil
	}
	if c := op.Value.Stall(); c != nil {
		if err := l.notice(ctx, op, noticeStalled, stallKey(c), stallEvent(op.Value, op.Revision, c, true)); err != nil {
			return err
		}
	}
	if state := op.Value.State; state == operation.Failed || state == operation.PartiallyFailed {
		change := events.OperationChange{Operation: op.Value, Revision: op.Revision, Previous: state}
		return l.notice(ctx, op, noticeEnded, fmt.Sprint(op.Value.Attempt), change)
	}
	return nil
}

// noticeChange makes the notices of a change of a record. What fails here is made up
// for by whoever drives the operation, but for the end of a stall.
func (l *Ledger) noticeChange(ctx context.Context, was operation.Operation, now Versioned[operation.Operation]) {
	if !l.options.Notices {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), emitTimeout)
	defer cancel()
	err := l.EnsureNotices(ctx, now)
	if c := was.Stall(); err == nil && c != nil && now.Value.Stall() == nil {
		err = l.notice(ctx, now, noticeMoving, stallKey(c), stallEvent(now.Value, now.Revision, c, false))
	}
	if err != nil {
		l.options.Logger.WarnContext(ctx, "notice for the webhook is not made yet", "operation", now.Value.ID, "error", err)
	}
}

// stallKey tells the stalls of one operation apart.
func stallKey(c *operation.Condition) string { return fmt.Sprint(c.Since.UnixNano()) }

func (l *Ledger) notice(ctx context.Context, op Versioned[operation.Operation], what, which string, p events.Payload) error {
	key := strings.Join([]string{events.EscapeToken(op.Value.ID), what, which}, ".")
	n := Notice{
		ID: fmt.Sprintf("%s/%d/%s", op.Value.ID, op.Revision, what), OperationID: op.Value.ID, MadeAt: l.options.Now().UTC(),
	}
	n.Next = n.MadeAt
	var err error
	if n.Body, err = l.envelope(n.ID, p); err != nil {
		return fmt.Errorf("making notice %s: %w", n.ID, err)
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("making notice %s: %w", n.ID, err)
	}
	if _, err := l.notices.Create(ctx, key, raw); err != nil && !errors.Is(err, bus.ErrExists) {
		return fmt.Errorf("making notice %s: %w", n.ID, err)
	}
	return nil
}

// KeptNotice is a notice under its key.
type KeptNotice struct {
	Versioned[Notice]

	Key string
}

// Notices returns the notices that are not settled, the oldest first. One that cannot
// be read is left out and logged.
func (l *Ledger) Notices(ctx context.Context) ([]KeptNotice, error) {
	var all []KeptNotice
	for e, err := range l.notices.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("listing notices: %w", err)
		}
		v, err := decode[Notice](e)
		if err != nil {
			l.options.Logger.ErrorContext(ctx, "notice left out", "error", err)
			continue
		}
		if !v.Value.Settled {
			all = append(all, KeptNotice{v, e.Key})
		}
	}
	slices.SortStableFunc(all, func(a, b KeptNotice) int { return a.Value.MadeAt.Compare(b.Value.MadeAt) })
	return all, nil
}

// UpdateNotice stores what has come of a notice; ErrConflict when somebody else has.
func (l *Ledger) UpdateNotice(ctx context.Context, was KeptNotice, n Notice) error {
	if n.Settled {
		n.Body = nil
	}
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("storing notice %s: %w", n.ID, err)
	}
	if _, err := l.notices.Update(ctx, was.Key, raw, was.Revision); err != nil {
		return fmt.Errorf("storing notice %s: %w", n.ID, conflict(err))
	}
	return nil
}

// WatchNotices hints that there are notices; see bus.Bucket.Watch.
func (l *Ledger) WatchNotices(ctx context.Context) (<-chan bus.Entry, error) {
	return l.notices.Watch(ctx, "")
}
