package events

import (
	"time"

	"ringmaster/pkg/operation"
)

// TypeVerifyRequest is the type string of VerifyRequest.
const TypeVerifyRequest = "ringmaster.verify.request.v1"

// VerifyRequest asks for what two circles hold to be compared, and for what one of
// them lacks to be copied if it says so.
type VerifyRequest struct {
	Command
	Parameters VerifyParameters `json:"parameters"`
}

// VerifyParameters are the public parameters of a verification.
type VerifyParameters struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID int `json:"circle_id"`
	// AgainstCircleID is the circle it is compared with; the circle itself means
	// what lies in wrong places there. Left out, it is the lowest other circle, or
	// the circle itself where there is no other.
	AgainstCircleID *int `json:"against_circle_id,omitempty"`
	// Repair copies what one side lacks from the other; nothing is replaced and
	// nothing deleted.
	Repair bool `json:"repair,omitempty"`
	// RepairFrom is the side that is copied from, required with repair: circle or
	// against.
	RepairFrom operation.Side `json:"repair_from,omitempty"`
	// Databases limits it; empty means all.
	Databases []string `json:"databases,omitempty"`
	// SinceSeconds limits it to the last seconds before the request; 0 means all.
	SinceSeconds int64 `json:"since_seconds,omitempty"`
	// Since limits it to points that are not older.
	Since *time.Time `json:"since,omitempty"`
	// Workers is how many tasks read from one backend at once; 0 leaves it to the
	// free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is how many points one write of a repair holds at most; 0 leaves it to
	// the worker.
	Batch int `json:"batch,omitempty"`
	// Depth is count, which looks at the points only where the counts of series and
	// fields differ, or digest, which compares every point by value.
	Depth operation.Depth `json:"depth,omitempty"`
}

// EventType returns TypeVerifyRequest.
func (VerifyRequest) EventType() string { return TypeVerifyRequest }

func (r VerifyRequest) check() error { return r.checkKind(operation.KindVerify) }
