package events

import "ringmaster/pkg/operation"

// TypeRebalanceRequest is the type string of RebalanceRequest.
const TypeRebalanceRequest = "ringmaster.rebalance.request.v1"

// RebalanceRequest asks for a circle's points to be moved to the backends that
// own them.
type RebalanceRequest struct {
	Command
	Parameters RebalanceParameters `json:"parameters"`
}

// RebalanceParameters are the public parameters of a rebalance.
type RebalanceParameters struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID int `json:"circle_id"`
	// Operation is "add" when the circle has grown and "rm" when backends have
	// left it.
	Operation operation.RebalanceMode `json:"operation"`
	// Databases limits the move; empty means all.
	Databases []string `json:"databases,omitempty"`
	// RemovedBackends are the backends that left the circle; they are read as
	// sources too. Their credentials are only in the record, sealed.
	RemovedBackends []RemovedBackend `json:"removed_backends,omitempty"`
	// Workers is how many measurements move at once from one source; 0 leaves
	// it to the free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is how many points one write holds at most; 0 leaves it to the
	// worker.
	Batch int `json:"batch,omitempty"`
	// Depth is how the copy is proven.
	Depth operation.Depth `json:"depth,omitempty"`
}

// RemovedBackend is a backend that has left its circle.
type RemovedBackend struct {
	// Name is the name it had in the configuration.
	Name string `json:"name"`
	// URL is its address, without credentials.
	URL string `json:"url"`
}

// EventType returns TypeRebalanceRequest.
func (RebalanceRequest) EventType() string { return TypeRebalanceRequest }

func (r RebalanceRequest) check() error { return r.checkKind(operation.KindRebalance) }
