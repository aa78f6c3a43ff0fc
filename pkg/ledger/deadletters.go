package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// maxLetterBytes bounds what one page of dead letters reads: a page may have fewer than
// were asked for.
const maxLetterBytes = 16 << 20

// DeadLetters returns at most limit dead letters after a sequence, oldest first and
// without their bodies, and the sequence to read on after, 0 at the end.
func (l *Ledger) DeadLetters(ctx context.Context, after uint64, limit int) (letters []operation.DeadLetter, next uint64, err error) {
	read := 0
	for {
		// One more than wanted tells whether there is more.
		records, err := l.letters.Page(ctx, after+1, events.AllDeadLetters, limit+1-len(letters))
		if gap := (*bus.GapError)(nil); err != nil && !errors.As(err, &gap) {
			return nil, 0, fmt.Errorf("reading the dead letters: %w", err)
		}
		if len(records) == 0 {
			return letters, 0, nil
		}
		for i := range records {
			if len(letters) == limit || read > maxLetterBytes && len(letters) > 0 {
				return letters, after, nil
			}
			read += len(records[i].Data)
			letter, _ := deadLetter(&records[i])
			letter.Body = nil
			letters = append(letters, letter)
			after = records[i].Sequence
		}
	}
}

// DeadLetter reads one dead letter, or operation.ErrNoLetter.
func (l *Ledger) DeadLetter(ctx context.Context, sequence uint64) (operation.DeadLetter, error) {
	r, err := l.letter(ctx, sequence)
	if err != nil {
		return operation.DeadLetter{}, err
	}
	letter, _ := deadLetter(&r)
	return letter, nil
}

func (l *Ledger) letter(ctx context.Context, sequence uint64) (bus.Record, error) {
	r, err := l.letters.Get(ctx, sequence)
	if errors.Is(err, bus.ErrNotFound) {
		return r, operation.ErrNoLetter
	}
	if err != nil {
		return r, fmt.Errorf("reading dead letter %d: %w", sequence, err)
	}
	return r, nil
}

// DropDeadLetters removes dead letters. Those that are gone already are no error.
func (l *Ledger) DropDeadLetters(ctx context.Context, sequences ...uint64) error {
	for _, sequence := range sequences {
		if err := l.letters.Delete(ctx, sequence); err != nil {
			return fmt.Errorf("dropping dead letter %d: %w", sequence, err)
		}
	}
	return nil
}

// deadLetter reads a stored letter; group tells letters apart that are pieces of one.
func deadLetter(r *bus.Record) (letter operation.DeadLetter, group string) {
	letter = operation.DeadLetter{Sequence: r.Sequence, StoredAt: r.Time, Stream: events.StreamDeadLetters, Subject: r.Subject}
	envelope, payload, err := events.Decode(r.Data)
	switch p := payload.(type) {
	case events.MessageReject:
		letter.Kind, letter.Reason, letter.Stream, letter.Subject = operation.LetterMessage, p.Reason, p.Stream, p.Subject
		letter.Body, letter.Truncated = p.Payload, p.Truncated
	case events.PointsRefuse:
		letter.Kind, letter.Reason = operation.LetterPoints, p.Reason
		letter.Stream, letter.Subject = events.HintStreamName(p.Backend), events.HintSubject(p.Backend)
		letter.Backend, letter.Database, letter.RetentionPolicy, letter.Points = p.Backend, p.Database, p.RetentionPolicy, p.Points
		letter.Piece, letter.Pieces = max(p.Piece, 1), max(p.Pieces, 1)
		letter.Body = p.Lines
		// See Refuse: the pieces of one call differ in what comes after the last slash.
		group = envelope.ID
		if i := strings.LastIndexByte(group, '/'); i >= 0 {
			group = group[:i]
		}
	default:
		letter.Kind, letter.Reason, letter.Body = operation.LetterUnreadable, "it is none that this release understands", r.Data
		if err != nil {
			letter.Reason += ": " + err.Error()
		}
	}
	letter.Bytes = len(letter.Body)
	return letter, group
}

// nearby is how far apart, in sequences, the pieces of one refusal are looked for: they
// are kept one after another, and other letters may come between.
const nearby = 1024

// RefusedPoints returns refused points with all pieces of them, in their order, and the
// sequences of these. A piece that is gone is an *operation.LetterError.
func (l *Ledger) RefusedPoints(ctx context.Context, sequence uint64) (lines []byte, sequences []uint64, err error) {
	r, err := l.letter(ctx, sequence)
	if err != nil {
		return nil, nil, err
	}
	own, group := deadLetter(&r)
	if own.Kind != operation.LetterPoints {
		return nil, nil, &operation.LetterError{Sequence: sequence, Reason: "it holds no points"}
	}
	if own.Pieces == 1 {
		return own.Body, []uint64{sequence}, nil
	}
	pieces := make([]*operation.DeadLetter, own.Pieces)
	reach := uint64(own.Pieces + nearby)
	for from, last := sequence-min(sequence-1, reach), sequence+reach; from <= last; {
		records, err := l.letters.Page(ctx, from, r.Subject, bus.MaxPage)
		if gap := (*bus.GapError)(nil); err != nil && !errors.As(err, &gap) {
			return nil, nil, fmt.Errorf("reading the dead letters: %w", err)
		}
		if len(records) == 0 {
			break
		}
		for i := range records {
			other, of := deadLetter(&records[i])
			if of != group || other.Pieces != own.Pieces || other.Piece > own.Pieces || records[i].Sequence > last {
				continue
			}
			sequences = append(sequences, other.Sequence)
			pieces[other.Piece-1] = &other
		}
		from = records[len(records)-1].Sequence + 1
	}
	for i, p := range pieces {
		if p == nil {
			return nil, nil, &operation.LetterError{Sequence: sequence, Reason: fmt.Sprintf("of its %d pieces number %d is gone, and points are cut anywhere", own.Pieces, i+1)}
		}
		lines = append(lines, p.Body...)
	}
	return lines, sequences, nil
}
