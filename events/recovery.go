package events

import (
	"time"

	"ringmaster/pkg/operation"
)

// TypeRecoveryRequest is the type string of RecoveryRequest.
const TypeRecoveryRequest = "ringmaster.recovery.request.v1"

// RecoveryRequest asks for one circle to be filled from another.
type RecoveryRequest struct {
	Command
	Parameters RecoveryParameters `json:"parameters"`
}

// RecoveryParameters are the public parameters of a recovery.
type RecoveryParameters struct {
	// FromCircleID is the index of the circle that is read.
	FromCircleID int `json:"from_circle_id"`
	// ToCircleID is the index of the circle that is written.
	ToCircleID int `json:"to_circle_id"`
	// BackendURLs limits what is written to these backends of the circle;
	// empty means all. They carry no credentials.
	BackendURLs []string `json:"backend_urls,omitempty"`
	// Databases limits the copy; empty means all.
	Databases []string `json:"databases,omitempty"`
	// SinceSeconds limits the copy to the last seconds before the request; 0
	// means all.
	SinceSeconds int64 `json:"since_seconds,omitempty"`
	// Since limits the copy to points that are not older.
	Since *time.Time `json:"since,omitempty"`
	// Workers is how many measurements are copied at once from one source; 0
	// leaves it to the free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is how many points one write holds at most; 0 leaves it to the
	// worker.
	Batch int `json:"batch,omitempty"`
	// Depth is how the copy is proven.
	Depth operation.Depth `json:"depth,omitempty"`
}

// EventType returns TypeRecoveryRequest.
func (RecoveryRequest) EventType() string { return TypeRecoveryRequest }

func (r RecoveryRequest) check() error { return r.checkKind(operation.KindRecovery) }
