package events

import "time"

// TypePointsRefuse is the type string of PointsRefuse.
const TypePointsRefuse = "ringmaster.points.refuse.v1"

// MaxRefusedLines is how many bytes of line protocol one PointsRefuse keeps, so that
// it stays below the largest message; longer ones are several.
const MaxRefusedLines = 256 << 10

// PointsRefuse is a dead letter: points that were acknowledged while their backend
// could not be written to, and that it has refused for good since.
type PointsRefuse struct {
	// Backend is the URL of the backend that refused them.
	Backend string `json:"backend"`
	// Database is the database that they were written to.
	Database string `json:"database"`
	// RetentionPolicy is the retention policy; empty for the default one.
	RetentionPolicy string `json:"retention_policy,omitempty"`
	// Reason is what the backend said, in its words, or what is wrong with them.
	Reason string `json:"reason"`
	// Status is the HTTP status of the refusal; 0 if no backend has refused them.
	Status int `json:"status,omitempty"`
	// Epoch is that of the topology by which they were routed.
	Epoch uint64 `json:"epoch"`
	// Circles are those for which the backend had to get them.
	Circles []int `json:"circles,omitempty"`
	// WrittenAt is when the client's write was acknowledged.
	WrittenAt time.Time `json:"written_at"`
	// Points is how many points there are in all pieces; 0 if that is not known.
	Points int `json:"points"`
	// Lines is the points as line protocol with times in nanoseconds, at most 256
	// KiB; or a piece of the hint that could not be read.
	Lines []byte `json:"lines"`
	// Piece numbers the pieces of lines that are longer, from 1 to Pieces.
	Piece int `json:"piece"`
	// Pieces is how many there are.
	Pieces int `json:"pieces"`
}

// EventType returns TypePointsRefuse.
func (PointsRefuse) EventType() string { return TypePointsRefuse }

// About returns the URL of the backend.
func (p PointsRefuse) About() string { return p.Backend }

func (p PointsRefuse) check() error {
	return missing("backend", p.Backend, "reason", p.Reason)
}

// Cut cuts lines into as many dead letters as they need.
func (p PointsRefuse) Cut() []PointsRefuse {
	lines := p.Lines
	p.Pieces = max(1, (len(lines)+MaxRefusedLines-1)/MaxRefusedLines)
	all := make([]PointsRefuse, p.Pieces)
	for i := range all {
		all[i] = p
		all[i].Piece = i + 1
		all[i].Lines = append([]byte{}, lines[min(i*MaxRefusedLines, len(lines)):min((i+1)*MaxRefusedLines, len(lines))]...)
	}
	return all
}
