package bus

import (
	"context"

	"ringmaster/events"
)

// CloseHints does the first half of a removal.
func CloseHints(ctx context.Context, h *Hints) error {
	found, err := h.bus.lookUp(ctx, h.stream)
	if err == nil {
		_, err = h.route(ctx, *found, events.ClosedHintSubject(h.backend))
	}
	return err
}
