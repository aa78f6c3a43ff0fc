package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/prom"
)

// WritePrometheus stores the samples of a remote write request of Prometheus; see
// Write. Precision and Gzip mean nothing to it.
func (g *Ingest) WritePrometheus(ctx context.Context, r Request) error {
	if err := g.admits(r.Database); err != nil {
		return err
	}
	w, err := g.open(ctx, r.Database, r.RetentionPolicy, r.Client)
	if err != nil {
		return err
	}
	defer w.leave()
	r.Gzip, r.Precision = false, lineproto.Nanoseconds
	if err := w.read(&r); err != nil {
		return g.unread(ctx, w, err)
	}
	refused, reason, err := w.samples()
	if err != nil {
		return g.unread(ctx, w, err)
	}
	if err := g.run(ctx, w, &r); err != nil || refused == 0 {
		return err
	}
	return &Refusal{Status: http.StatusBadRequest, Message: lineproto.PartialWrite(reason, refused)}
}

// snappyRatio is how many bytes one byte of a body can stand for.
const snappyRatio = 22

// samples makes line protocol of the body. It returns how many points have none, and
// why the first of them has none.
func (w *write) samples() (refused int, reason string, err error) {
	b, limit := &w.ingest.budget, inflated*w.ingest.options.MaxBody
	// What the body says of its size, as far as that can be, and twice as much for
	// the lines: they are longer than the samples.
	size, _ := binary.Uvarint(w.body.data)
	room := min(int64(min(size, uint64(limit))), snappyRatio*int64(len(w.body.data)))
	if !b.take(3 * room) {
		return 0, "", errFull
	}
	defer b.give(3 * room)
	decoded, err := prom.DecodeWrite(b.pools.get(int(2*room)), w.body.data, int(limit))
	switch {
	case errors.Is(err, prom.ErrTooLarge):
		return 0, "", errTooLarge
	case err != nil:
		return 0, "", err
	}
	b.free(&w.body)
	if !b.take(int64(cap(decoded.Lines))) {
		return 0, "", errFull
	}
	w.body.data = decoded.Lines
	return decoded.Refused, decoded.Reason, nil
}
