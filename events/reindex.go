package events

import "ringmaster/pkg/operation"

// TypeReindexRequest is the type string of ReindexRequest.
const TypeReindexRequest = "ringmaster.reindex.request.v1"

// ReindexRequest asks for an index of a search cluster to be copied to another.
type ReindexRequest struct {
	Command
	Parameters ReindexParameters `json:"parameters"`
}

// ReindexParameters are the public parameters of a reindex.
type ReindexParameters struct {
	// Connection names the stored connection of the cluster; its address and
	// credentials are looked up under that name.
	Connection string `json:"connection"`
	// Source is the index that is read.
	Source string `json:"source"`
	// Destination is the index that is written.
	Destination string `json:"destination"`
	// Option says what is copied.
	Option ReindexOption `json:"option"`
}

// ReindexOption says what a reindex copies.
type ReindexOption string

const (
	// ReindexDocuments copies mapping, settings and documents.
	ReindexDocuments ReindexOption = "reindex"
	// ReindexMappingOnly copies mapping and settings.
	ReindexMappingOnly ReindexOption = "mapping_only"
)

// EventType returns TypeReindexRequest.
func (ReindexRequest) EventType() string { return TypeReindexRequest }

func (r ReindexRequest) check() error { return r.checkKind(operation.KindReindex) }
