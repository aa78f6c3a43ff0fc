package controller

import (
	"context"
	"errors"
	"fmt"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// PointWriter stores line protocol with times in nanoseconds as a client's write is
// stored: in every circle, for good, when it returns nil. A refusal is an
// *operation.PointsRefusedError.
type PointWriter interface {
	WritePoints(ctx context.Context, database, retentionPolicy string, lines []byte) error
}

// DeadLetters shows what could not be carried out, tries it again or drops it. What is
// done is in the audit trail.
type DeadLetters struct {
	Ledger *ledger.Ledger
	Queue  *bus.Queue
	Writer PointWriter
}

// List returns at most limit dead letters after a sequence, oldest first and without
// their bodies, and the sequence to read on after, 0 at the end. There may be fewer than
// limit before the end.
func (d *DeadLetters) List(ctx context.Context, after uint64, limit int) ([]operation.DeadLetter, uint64, error) {
	return d.Ledger.DeadLetters(ctx, after, limit)
}

// Letter returns one, or operation.ErrNoLetter.
func (d *DeadLetters) Letter(ctx context.Context, sequence uint64) (operation.DeadLetter, error) {
	return d.Ledger.DeadLetter(ctx, sequence)
}

// Drop removes one for good, or returns operation.ErrNoLetter.
func (d *DeadLetters) Drop(ctx context.Context, sequence uint64, by operation.Intent) error {
	letter, err := d.Ledger.DeadLetter(ctx, sequence)
	if err != nil {
		return err
	}
	if err := d.Ledger.DropDeadLetters(ctx, sequence); err != nil {
		return err
	}
	return d.audit(ctx, &letter, "dead_letter_drop", "dropped", by)
}

// Retry tries one again: a task's nudge is published once more if there is a task that
// it could help; points are written once more, to the owners of today and in every
// circle, over what clients may have written there since. The letter is dropped when
// that has been done. Refusals, after which it stays, are operation.ErrNoLetter, an
// *operation.LetterError and an *operation.PointsRefusedError. After any other error it
// may have been done.
func (d *DeadLetters) Retry(ctx context.Context, sequence uint64, by operation.Intent) (operation.DeadLetter, error) {
	letter, err := d.Ledger.DeadLetter(ctx, sequence)
	if err != nil {
		return letter, err
	}
	done, sequences := "published again", []uint64{sequence}
	switch letter.Kind {
	case operation.LetterMessage:
		err = d.publish(ctx, &letter)
	case operation.LetterPoints:
		done = "written again"
		sequences, err = d.write(ctx, &letter)
	default:
		err = &operation.LetterError{Sequence: sequence, Reason: letter.Reason}
	}
	if err != nil {
		return letter, err
	}
	if err := d.Ledger.DropDeadLetters(ctx, sequences...); err != nil {
		return letter, fmt.Errorf("it was %s, but: %w", done, err)
	}
	return letter, d.audit(ctx, &letter, "dead_letter_retry", done, by)
}

// audit writes what was done with a letter to the trail of its operation, if it has one.
func (d *DeadLetters) audit(ctx context.Context, letter *operation.DeadLetter, action, done string, by operation.Intent) error {
	id := ""
	if _, of, _, ok := events.ParseTaskSubject(letter.Subject); ok {
		id = of
	}
	reason := fmt.Sprintf("dead letter %d (%s) was %s", letter.Sequence, letter.Kind, done)
	if letter.Kind == operation.LetterPoints {
		reason += fmt.Sprintf(": %d points of %s for %s", letter.Points, letter.Database, letter.Backend)
	}
	if by.Reason != "" {
		reason += ": " + by.Reason
	}
	err := d.Ledger.Audit(ctx, operation.AuditEntry{
		At: by.At, OperationID: id, Action: action, Who: by.Who, Origin: by.Origin, Reason: operation.Clip(reason),
	})
	if err != nil {
		return fmt.Errorf("the letter was %s, but: %w", done, err)
	}
	return nil
}

// publish places a nudge again.
func (d *DeadLetters) publish(ctx context.Context, letter *operation.DeadLetter) error {
	refuse := func(format string, a ...any) error {
		return &operation.LetterError{Sequence: letter.Sequence, Reason: fmt.Sprintf(format, a...)}
	}
	if letter.Stream != events.StreamTasks {
		return refuse("messages of %s are not published again: their records say what there is to do", letter.Stream)
	}
	if letter.Truncated {
		return refuse("only its beginning was kept")
	}
	_, payload, err := events.Decode(letter.Body)
	run, ok := payload.(events.TaskRun)
	switch {
	case errors.Is(err, events.ErrUnknownType), errors.Is(err, events.ErrUnknownField):
		// For workers of a later release; the subject says what it is about.
		if _, run.OperationID, run.TaskID, ok = events.ParseTaskSubject(letter.Subject); !ok {
			return refuse("its subject is not that of a task")
		}
	case err != nil:
		return refuse("it still cannot be read: %v", err)
	case !ok:
		return refuse("it is not about a task")
	case events.Address(run) != letter.Subject:
		return refuse("it is about another task than its subject")
	}
	op, err := d.Ledger.Operation(ctx, run.OperationID)
	switch {
	case errors.Is(err, operation.ErrNotFound):
		return refuse("there is no operation %s", run.OperationID)
	case err != nil:
		return err
	case op.Value.State.Terminal():
		return refuse("operation %s is %s", run.OperationID, op.Value.State)
	}
	task, err := d.Ledger.Task(ctx, run.OperationID, run.TaskID)
	switch {
	case errors.Is(err, ledger.ErrNoTask):
		return refuse("operation %s has no task %s", run.OperationID, run.TaskID)
	case err != nil:
		return err
	case task.Value.State.Ended():
		return refuse("task %s of operation %s is %s", run.TaskID, run.OperationID, task.Value.State)
	}
	return d.Queue.Publish(ctx, bus.Message{Subject: letter.Subject, Data: letter.Body})
}

// write writes points again, with all pieces of them, and returns the letters that are
// done with.
func (d *DeadLetters) write(ctx context.Context, letter *operation.DeadLetter) ([]uint64, error) {
	if letter.Database == "" {
		return nil, &operation.LetterError{Sequence: letter.Sequence, Reason: "what was kept could not be read, so nobody knows where it belongs"}
	}
	lines, sequences, err := d.Ledger.RefusedPoints(ctx, letter.Sequence)
	if err != nil {
		return nil, err
	}
	return sequences, d.Writer.WritePoints(ctx, letter.Database, letter.RetentionPolicy, lines)
}
