package events

import (
	"time"

	"ringmaster/pkg/operation"
)

// TypeResyncRequest is the type string of ResyncRequest.
const TypeResyncRequest = "ringmaster.resync.request.v1"

// ResyncRequest asks for all circles to be made equal.
type ResyncRequest struct {
	Command
	Parameters ResyncParameters `json:"parameters"`
}

// ResyncParameters are the public parameters of a resync.
type ResyncParameters struct {
	// SinceSeconds limits the copy to the last seconds before the request; 0
	// means all.
	SinceSeconds int64 `json:"since_seconds,omitempty"`
	// Since limits the copy to points that are not older.
	Since *time.Time `json:"since,omitempty"`
	// Databases limits the copy; empty means all.
	Databases []string `json:"databases,omitempty"`
	// Workers is how many measurements are copied at once from one source; 0
	// leaves it to the free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is how many points one write holds at most; 0 leaves it to the
	// worker.
	Batch int `json:"batch,omitempty"`
	// Depth is how the copy is proven.
	Depth operation.Depth `json:"depth,omitempty"`
}

// EventType returns TypeResyncRequest.
func (ResyncRequest) EventType() string { return TypeResyncRequest }

func (r ResyncRequest) check() error { return r.checkKind(operation.KindResync) }
