package operation

import (
	"cmp"
	"time"
)

// Slice is the unit of copying and proving: one measurement of one retention
// policy in one window. A window never crosses a shard-group boundary of its
// source, because InfluxDB casts or drops values when it reads over one.
type Slice struct {
	Database        string `json:"database"`
	RetentionPolicy string `json:"retention_policy"`
	Measurement     string `json:"measurement"`
	// From and To are nanoseconds, RFC 3339 in JSON; To is excluded, unless Last
	// is set, which closes the last window of InfluxDB's legal time.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	Last bool  `json:"last,omitempty"`
	// Points is the estimate that tasks are balanced by.
	Points int64 `json:"points,omitempty"`
	// Overlap is set where several shard groups cover the window, so that its
	// types have to be checked before it is read.
	Overlap bool `json:"overlap,omitempty"`
	// Expired is set for the part that retention no longer admits: its points
	// are counted and reported, not copied.
	Expired bool `json:"expired,omitempty"`
	// Halved is how often the window was halved because it ran out of time.
	Halved int `json:"halved,omitempty"`
}

// nameBytes is what the names of a slice take in a record.
func (s *Slice) nameBytes() int {
	return len(s.Database) + len(s.RetentionPolicy) + len(s.Measurement)
}

// sliceOverhead is about what a slice takes in a record beside its names.
const sliceOverhead = 200

// Plan is the header of an operation's plan. Its slices are stored in chunks.
type Plan struct {
	OperationID string    `json:"operation_id"`
	Kind        Kind      `json:"kind"`
	Epoch       uint64    `json:"epoch"`
	CreatedAt   time.Time `json:"created_at"`
	// Backends are the circle's backends in configuration order and then the
	// removed ones; tasks and moves refer to them by index.
	Backends []PlanBackend `json:"backends"`
	Policies []PlanPolicy  `json:"policies"`
	Moves    []PlanMove    `json:"moves"`
	// Measurements says what the moves consist of, at most MaxPlanMeasurements;
	// MeasurementsLeftOut counts the others.
	Measurements        []PlanMeasurement `json:"measurements"`
	MeasurementsLeftOut int               `json:"measurements_left_out,omitempty"`
	Tasks               []PlanTask        `json:"tasks"`
	Chunks              []Document        `json:"chunks"`
	Totals              PlanTotals        `json:"totals"`
	// FormerOwners are the circles of a verification whose owners of the epoch
	// before are compared, since they are the ones that are read.
	FormerOwners []int `json:"former_owners,omitempty"`
	// Notes are what a person should know about how the plan was made.
	Notes []string `json:"notes,omitempty"`
	Preview
	// Schema is what an approval is held against; see Planner.Changed.
	Schema *PlanSchema `json:"schema,omitempty"`
}

// PlanRef is what an operation record keeps of its plan.
type PlanRef struct {
	Document
	Totals PlanTotals `json:"totals"`
}

// PlanTotals sums a plan up.
type PlanTotals struct {
	Databases int `json:"databases"`
	// Measurements counts those of each source once, wherever they go.
	Measurements int `json:"measurements"`
	Slices       int `json:"slices"`
	Tasks        int `json:"tasks"`
	// Points is the sampled estimate, Bytes about what they take as line protocol.
	Points int64 `json:"points"`
	Bytes  int64 `json:"bytes"`
}

// PlanBackend is what the survey found at one backend.
type PlanBackend struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Removed bool   `json:"removed,omitempty"`
	// Databases and Measurements count what is there, InPlace what belongs there.
	Databases    int `json:"databases"`
	Measurements int `json:"measurements"`
	InPlace      int `json:"in_place"`
}

// PlanPolicy is a retention policy that has to exist at a destination, with
// exactly these attributes, before the first point is copied there.
type PlanPolicy struct {
	Backend       int           `json:"backend"`
	Database      string        `json:"database"`
	Name          string        `json:"name"`
	Duration      time.Duration `json:"duration"`
	ShardDuration time.Duration `json:"shard_duration"`
	Replication   int           `json:"replication"`
	Default       bool          `json:"default"`
}

// PlanMove sums up what goes from one backend to another.
type PlanMove struct {
	From         int   `json:"from"`
	To           int   `json:"to"`
	Measurements int   `json:"measurements"`
	Slices       int   `json:"slices"`
	Points       int64 `json:"points"`
	Bytes        int64 `json:"bytes"`
}

// MaxPlanMeasurements bounds the measurements that a plan lists.
const MaxPlanMeasurements = 10_000

// PlanMeasurement is what goes of one measurement from one backend to another; in
// a clear, what is dropped from the one once the other is proven to hold it.
type PlanMeasurement struct {
	From        int    `json:"from"`
	To          int    `json:"to"`
	Database    string `json:"database"`
	Measurement string `json:"measurement"`
	Slices      int    `json:"slices"`
	Points      int64  `json:"points"`
	Bytes       int64  `json:"bytes"`
}

// PlanTask is one task to be.
type PlanTask struct {
	From   int   `json:"from"`
	To     int   `json:"to"`
	Wave   int   `json:"wave,omitempty"`
	Span   Span  `json:"span"`
	Points int64 `json:"points"`
	Rule
}

// Rule says what a task does where its ends hold different things.
type Rule struct {
	// Overrule: where both ends hold a point, the source's values replace the
	// destination's. Without it the destination keeps its own.
	Overrule bool `json:"overrule,omitempty"`
	// Mutual: what only the destination holds is copied to the source, too.
	Mutual bool `json:"mutual,omitempty"`
	// Superseded: what the source holds is a leftover from before the destination was
	// proven, so where both hold a point, another value there is a newer one. It is
	// for clears only.
	Superseded bool `json:"superseded,omitempty"`
	// HoldsMore: what only the destination holds is no fault, since the source is
	// a leftover. It is for verifications only.
	HoldsMore bool `json:"holds_more,omitempty"`
}

// Compare orders rules; tasks of one rule lie together in a plan.
func (r Rule) Compare(o Rule) int {
	return cmp.Or(
		cmp.Compare(btoi(r.Overrule), btoi(o.Overrule)), cmp.Compare(btoi(r.Mutual), btoi(o.Mutual)),
		cmp.Compare(btoi(r.Superseded), btoi(o.Superseded)), cmp.Compare(btoi(r.HoldsMore), btoi(o.HoldsMore)))
}
