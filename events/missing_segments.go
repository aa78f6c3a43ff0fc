package events

import "ringmaster/pkg/operation"

// TypeMissingSegmentsDelete is the type string of MissingSegmentsDelete.
const TypeMissingSegmentsDelete = "ringmaster.missing-segments.delete.v1"

// MissingSegmentsDelete asks for segments that no store holds any more to be
// deleted from the catalog.
type MissingSegmentsDelete struct {
	Command
	Parameters MissingSegmentsParameters `json:"parameters"`
}

// MissingSegmentsParameters are the public parameters of the deletion.
type MissingSegmentsParameters struct {
	// Segments are the segments to delete; not needed with DeleteAll.
	Segments []Segment `json:"segments,omitempty"`
	// DeleteAll deletes every segment that is missing when its turn comes.
	DeleteAll bool `json:"delete_all"`
	// IgnoreErrors skips a segment that cannot be deleted, where otherwise the
	// operation ends at the first one.
	IgnoreErrors bool `json:"ignore_errors"`
}

// Segment names one segment of the catalog.
type Segment struct {
	SegmentID    string `json:"segment_id"`
	DatasourceID string `json:"datasource_id"`
	DataspaceID  string `json:"dataspace_id"`
}

// EventType returns TypeMissingSegmentsDelete.
func (MissingSegmentsDelete) EventType() string { return TypeMissingSegmentsDelete }

func (r MissingSegmentsDelete) check() error {
	return r.checkKind(operation.KindDeleteMissingSegments)
}
