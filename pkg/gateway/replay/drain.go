package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
)

// readLimit is how many messages are read at a time.
const readLimit = 256

// round replays hints from the front.
type round struct {
	*attendance
	hints   Hints
	decoder hint.Decoder
	// held are the messages since the last frame.
	held []bus.Record
	// batch are frames that travel together, in their order: of one database and
	// policy, for this backend alone.
	batch   []*hint.Frame
	size    int
	through uint64 // the last message of batch
}

// replay sends hints to where they belong, oldest first, until it has come past the
// message before until, or there is none. What was sent is removed.
func (a *attendance) replay(ctx context.Context, hints Hints, until uint64) error {
	r := &round{attendance: a, hints: hints}
	for after := uint64(0); after+1 < until || len(r.held) > 0; {
		records, err := hints.Read(ctx, after, readLimit)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return r.end(ctx)
		}
		for i := range records {
			after = records[i].Sequence
			if err := r.take(ctx, &records[i]); err != nil {
				return err
			}
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take takes the next message.
func (r *round) take(ctx context.Context, record *bus.Record) error {
	r.held = append(r.held, *record)
	frame, err := r.decoder.Add(record.Data)
	if err != nil {
		lost := len(r.held)
		var unfinished *hint.UnfinishedError
		if errors.As(err, &unfinished) && (frame != nil || r.decoder.Pending() > 0) {
			lost-- // the message begins another frame
		}
		if err := r.damaged(ctx, lost, err); err != nil {
			return err
		}
	}
	if frame == nil {
		return nil
	}
	r.held = nil
	return r.add(ctx, frame, record.Sequence)
}

// end takes what is there without its end.
func (r *round) end(ctx context.Context) error {
	if n := len(r.held); n > 0 {
		if err := r.damaged(ctx, n, &hint.UnfinishedError{Parts: r.decoder.Pending(), Count: r.decoder.Pending() + 1}); err != nil {
			return err
		}
		r.decoder.Reset()
	}
	return r.flush(ctx)
}

// damaged puts the first n held messages, which nobody can read, among the dead
// letters, after what stands before them.
func (r *round) damaged(ctx context.Context, n int, why error) error {
	if err := r.flush(ctx); err != nil {
		return err
	}
	var raw []byte
	for i := range r.held[:n] {
		raw = append(raw, r.held[i].Data...)
	}
	first, last := &r.held[0], &r.held[n-1]
	r.keeper.options.Logger.ErrorContext(ctx, "hints that can't be read are kept among the dead letters", "backend", r.url, "sequence", first.Sequence, "error", why)
	err := r.letter(ctx, events.PointsRefuse{Backend: r.url, Database: "?", Reason: why.Error(), WrittenAt: first.Time, Lines: raw})
	if err != nil {
		return err
	}
	r.held = r.held[n:]
	return r.deleteThrough(ctx, r.hints, last.Sequence)
}

// add adds a frame to the batch, after sending what can't travel with it.
func (r *round) add(ctx context.Context, f *hint.Frame, sequence uint64) error {
	view := r.keeper.options.Session.View()
	if !r.own(view, f) {
		if err := r.flush(ctx); err != nil {
			return err
		}
		if err := r.route(ctx, view, f); err != nil {
			return err
		}
		return r.deleteThrough(ctx, r.hints, sequence)
	}
	if n := len(r.batch); n > 0 {
		last := r.batch[n-1]
		if last.Database != f.Database || last.RetentionPolicy != f.RetentionPolicy || r.size+len(f.Lines) > r.keeper.options.Batch {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
	}
	r.batch = append(r.batch, f)
	r.size += len(f.Lines)
	r.through = sequence
	return nil
}

// own reports whether all of a frame still belongs to this backend.
func (a *attendance) own(v *serving.View, f *hint.Frame) bool {
	if backendOf(v, a.url) == nil || len(f.Circles) == 0 {
		return false
	}
	moving := func(circle int) bool { return v.State.In(circle) != nil }
	if f.Epoch == v.Topology.Epoch && !slices.ContainsFunc(f.Circles, moving) {
		return true // as it did when it was written
	}
	lines, _, refused := scan(f.Lines)
	if refused > 0 {
		return false
	}
	known := map[string]bool{}
	for i := range lines {
		name := lines[i].measurement
		if !known[name] && !slices.Equal(a.owners(v, f, name), []string{a.url}) {
			return false
		}
		known[name] = true
	}
	return true
}

// flush sends the batch and removes it from the hints.
func (r *round) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	backend := backendOf(r.keeper.options.Session.View(), r.url)
	if backend == nil {
		return fmt.Errorf("%s has just left its circle: %w", r.url, serving.ErrStep)
	}
	server, err := r.dial(backend)
	if err != nil {
		return err
	}
	if err := r.store(ctx, r.url, server, pieces(r.batch)); err != nil {
		return err
	}
	through := r.through
	r.batch, r.size = nil, 0
	return r.deleteThrough(ctx, r.hints, through)
}

// pieces are the frames as what is sent.
func pieces(frames []*hint.Frame) []piece {
	all := make([]piece, len(frames))
	for i, f := range frames {
		all[i] = piece{of: f, lines: f.Lines, points: f.Points}
	}
	return all
}

// piece is some lines of a frame, in their order.
type piece struct {
	of     *hint.Frame
	lines  []byte
	points int
}

// join puts pieces together, each ended by a newline.
func join(pieces []piece) []byte {
	if len(pieces) == 1 {
		return pieces[0].lines
	}
	size := 0
	for i := range pieces {
		size += len(pieces[i].lines) + 1
	}
	all := make([]byte, 0, size)
	for i := range pieces {
		all = append(all, pieces[i].lines...)
		if !bytes.HasSuffix(all, []byte{'\n'}) && len(all) > 0 {
			all = append(all, '\n')
		}
	}
	return all
}

// points counts the points of pieces.
func points(pieces []piece) (n int64) {
	for i := range pieces {
		n += int64(pieces[i].points)
	}
	return n
}
