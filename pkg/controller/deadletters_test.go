package controller_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/operation"
)

// writes is a write path that keeps what is written, or refuses it.
type writes struct {
	err  error
	kept []string
}

func (w *writes) WritePoints(_ context.Context, db, rp string, lines []byte) error {
	if w.err == nil {
		w.kept = append(w.kept, db+"/"+rp+": "+string(lines))
	}
	return w.err
}

func (r *rig) deadLetters(w controller.PointWriter) *controller.DeadLetters {
	return &controller.DeadLetters{Ledger: r.ledger, Queue: r.queue, Writer: w}
}

// asked is what ada has asked for.
func asked(reason string) operation.Intent {
	return operation.Intent{At: time.Now().UTC(), Who: "ada", Origin: "192.0.2.1", Reason: reason}
}

// refuse keeps points that were refused, and returns the letters.
func (r *rig) refuse(id string, lines []byte) {
	r.t.Helper()
	require.NoError(r.t, r.ledger.Refuse(r.t.Context(), id, events.PointsRefuse{
		Backend: "http://b:1", Database: "db", RetentionPolicy: "rp", Reason: "field type conflict", Status: 400,
		Epoch: 1, WrittenAt: time.Now(), Points: 2, Lines: lines,
	}))
}

func TestDeadLettersAreListedInPages(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	d := r.deadLetters(nil)
	for i := range 5 {
		require.NoError(t, r.ledger.Reject(t.Context(), events.StreamTasks, "ringmaster.task.a.b.c", []byte{byte('0' + i)}, "why"))
	}
	r.refuse("refused", []byte("m f=1 1\nm f=2 2"))
	_, err := r.bus.Log(events.StreamDeadLetters).Append(t.Context(), events.DeadLetterSubject("x"), "", []byte("{torn"))
	require.NoError(t, err)

	var all []operation.DeadLetter
	for after, pages := uint64(0), 0; ; pages++ {
		page, next, err := d.List(t.Context(), after, 3)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), 3)
		all = append(all, page...)
		if next == 0 {
			break
		}
		require.Less(t, pages, 4)
		after = next
	}
	require.Len(t, all, 7)
	for i := range 5 {
		require.Equal(t, operation.LetterMessage, all[i].Kind)
		require.Nil(t, all[i].Body)
		require.Equal(t, 1, all[i].Bytes)
	}
	require.Equal(t, operation.LetterPoints, all[5].Kind)
	require.Equal(t, "http://b:1", all[5].Backend)
	require.Equal(t, operation.LetterUnreadable, all[6].Kind)
	one, err := d.Letter(t.Context(), all[5].Sequence)
	require.NoError(t, err)
	require.Equal(t, "m f=1 1\nm f=2 2", string(one.Body))
	_, err = d.Letter(t.Context(), 99)
	require.ErrorIs(t, err, operation.ErrNoLetter)

	require.NoError(t, d.Drop(t.Context(), all[6].Sequence, asked("noise")))
	require.ErrorIs(t, d.Drop(t.Context(), all[6].Sequence, asked("noise")), operation.ErrNoLetter)
	trail, err := r.ledger.AuditTrail(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "dead_letter_drop", trail[0].Action)
	require.Equal(t, "ada", trail[0].Who)
	require.Contains(t, trail[0].Reason, "noise")
}

// A message is published again only if its task is there and has something to do.
func TestAMessageIsRetried(t *testing.T) {
	t.Parallel()
	s := newSweeping(t)
	ctx := t.Context()
	d := s.deadLetters(nil)
	op := s.submit(add)
	s.move(s.version(op.ID), operation.Planning, operation.Running)
	waiting := s.task(op.ID, "t", operation.TaskWaiting)
	done := s.task(op.ID, "done", operation.TaskDone)
	lost, over := waiting, waiting
	lost.ID, over.OperationID = "lost", newID()
	later := func(data string) string { return strings.Replace(data, "task.run.v1", "task.run.v2", 1) }
	for i, example := range []struct {
		task    operation.Task
		change  func(string) string
		subject string
		stream  string
		refusal string
	}{
		{task: waiting},
		{task: waiting, change: later},
		{task: lost, refusal: "has no task lost"},
		{task: done, refusal: "is done"},
		{task: over, refusal: "there is no operation"},
		{task: waiting, change: func(s string) string { return s[:20] }, refusal: "still cannot be read"},
		{task: waiting, subject: events.TaskSubject("rebalance", op.ID, "u"), refusal: "another task"},
		{task: waiting, stream: events.StreamEvents, refusal: "not published again"},
		{task: waiting, change: func(s string) string { return s + strings.Repeat(" ", events.MaxRejectedPayload) }, refusal: "only its beginning"},
	} {
		m, err := s.ledger.Nudge(&example.task)
		require.NoError(t, err)
		data, subject, stream := string(m.Data), m.Subject, events.StreamTasks
		if example.change != nil {
			data = example.change(data)
		}
		if example.subject != "" {
			subject = example.subject
		}
		if example.stream != "" {
			stream = example.stream
		}
		require.NoError(t, s.ledger.Reject(ctx, stream, subject, []byte(data), "why"))
		sequence := uint64(i + 1)
		_, err = d.Retry(ctx, sequence, asked("mended"))
		_, gone := d.Letter(ctx, sequence)
		if example.refusal != "" {
			var refused *operation.LetterError
			require.ErrorAs(t, err, &refused)
			require.Contains(t, refused.Reason, example.refusal)
			require.NoError(t, gone, "it stays")
			require.Empty(t, s.nudges())
			continue
		}
		require.NoError(t, err)
		require.ErrorIs(t, gone, operation.ErrNoLetter)
		require.Equal(t, []string{subject}, s.nudges())
		nudge, err := s.queue.Fetch(ctx)
		require.NoError(t, err)
		require.Equal(t, data, string(nudge.Data))
		require.NoError(t, nudge.Ack(ctx))
	}
	trail, err := s.ledger.AuditTrail(ctx, op.ID)
	require.NoError(t, err)
	last := trail[len(trail)-1]
	require.Equal(t, "dead_letter_retry", last.Action)
	require.Contains(t, last.Reason, "mended")
}

// Points are dropped from the letters only when they have been stored.
func TestPointsAreRetried(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	w := &writes{err: &operation.PointsRefusedError{Status: 400, Words: "field type conflict"}}
	d := r.deadLetters(w)
	r.refuse("one", []byte("m f=1 1\n"))
	var refused *operation.PointsRefusedError
	_, err := d.Retry(ctx, 1, asked(""))
	require.ErrorAs(t, err, &refused)
	w.err = errors.New("cut off")
	_, err = d.Retry(ctx, 1, asked(""))
	require.ErrorContains(t, err, "cut off")
	_, err = d.Letter(ctx, 1)
	require.NoError(t, err)
	w.err = nil
	letter, err := d.Retry(ctx, 1, asked("the field was mended"))
	require.NoError(t, err)
	require.Equal(t, operation.LetterPoints, letter.Kind)
	require.Equal(t, []string{"db/rp: m f=1 1\n"}, w.kept)
	_, err = d.Letter(ctx, 1)
	require.ErrorIs(t, err, operation.ErrNoLetter)

	// A hint that could not be read belongs nowhere.
	require.NoError(t, r.ledger.Refuse(ctx, "hint", events.PointsRefuse{Backend: "http://b:1", Reason: "it cannot be read", WrittenAt: time.Now(), Lines: []byte{0xff}}))
	var not *operation.LetterError
	_, err = d.Retry(ctx, 2, asked(""))
	require.ErrorAs(t, err, &not)
}

// Pieces are cut anywhere, so they are written together, whichever is retried, also
// when others came between them; never with one missing.
func TestPiecesAreRetriedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	ctx := t.Context()
	w := &writes{}
	d := r.deadLetters(w)
	var lines bytes.Buffer
	for i := range 12_000 {
		fmt.Fprintf(&lines, "measurement,tag=%d field=%d %d\n", i, i, i)
	}
	require.Greater(t, lines.Len(), events.MaxRefusedLines)
	r.refuse("other", []byte("m f=1 1\n"))
	r.refuse("long", lines.Bytes())
	r.refuse("long-too", lines.Bytes())
	all, _, err := d.List(ctx, 0, 100)
	require.NoError(t, err)
	require.Len(t, all, 5)
	require.Equal(t, [2]int{2, 2}, [2]int{all[2].Piece, all[2].Pieces})
	_, err = d.Retry(ctx, all[2].Sequence, asked(""))
	require.NoError(t, err)
	require.Equal(t, []string{"db/rp: " + lines.String()}, w.kept)
	left, _, err := d.List(ctx, 0, 100)
	require.NoError(t, err)
	require.Len(t, left, 3)

	require.NoError(t, d.Drop(ctx, left[1].Sequence, asked("")))
	var not *operation.LetterError
	_, err = d.Retry(ctx, left[2].Sequence, asked(""))
	require.ErrorAs(t, err, &not)
	require.Contains(t, not.Reason, "number 1 is gone")
	require.Len(t, w.kept, 1)
}
