package events

import "ringmaster/pkg/operation"

// TypeClearRequest is the type string of ClearRequest.
const TypeClearRequest = "ringmaster.clear.request.v1"

// ClearRequest asks for what the backends of a circle hold and do not own to be
// dropped there, once its owners are proven to hold it.
type ClearRequest struct {
	Command
	Parameters ClearParameters `json:"parameters"`
}

// ClearParameters are the public parameters of a clear.
type ClearParameters struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID int `json:"circle_id"`
	// OlderThanSeconds limits it to points that were older than that when it was
	// asked for; 0 means all.
	OlderThanSeconds int64 `json:"older_than_seconds,omitempty"`
	// Databases limits it; empty means all.
	Databases []string `json:"databases,omitempty"`
	// Workers is how many tasks read from one backend at once; 0 leaves it to the
	// free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is ignored, since nothing is copied; callers of the other kinds send
	// it with all of them.
	Batch int `json:"batch,omitempty"`
	// Depth can only be the deepest, which is what a clear does unasked.
	Depth operation.Depth `json:"depth,omitempty"`
}

// EventType returns TypeClearRequest.
func (ClearRequest) EventType() string { return TypeClearRequest }

func (r ClearRequest) check() error { return r.checkKind(operation.KindClear) }
