package operation

import "time"

// Phase is what an operation's tasks are doing now.
type Phase string

// The phases of a move.
const (
	PhasePlan Phase = "plan"
	PhaseCopy Phase = "copy"
	PhaseDrop Phase = "drop"
	// PhaseCompare is a verification's own work; with repair it also copies what
	// one side lacks. PhaseVerify then proves what was copied.
	PhaseCompare Phase = "compare"
	PhaseVerify  Phase = "verify"
	PhaseDone    Phase = "done"
)

// Progress is the aggregate of all task records at one moment. Totals are
// absolute, so a lost or repeated progress event does no harm.
type Progress struct {
	Phase        Phase       `json:"phase"`
	Tasks        TaskCounts  `json:"tasks"`
	Databases    Done        `json:"databases"`
	Measurements Done        `json:"measurements"`
	Points       PointCounts `json:"points"`
	Bytes        ByteCounts  `json:"bytes"`
	// PointsPerSecond is the rate of the current phase over the last seconds.
	PointsPerSecond float64 `json:"points_per_second"`
	// ETASeconds is the time left, the verification included; nil while no rate
	// is known.
	ETASeconds *float64  `json:"eta_seconds"`
	AsOf       time.Time `json:"as_of"`
	// Backends has a row per backend of the circle and per removed backend,
	// keyed by URL.
	Backends map[string]BackendProgress `json:"backends,omitempty"`
	// OldestTasks are the unfinished tasks that have been under way for the longest,
	// at most MaxOldestTasks: what an operation near its end still waits for.
	OldestTasks []OldestTask `json:"oldest_tasks,omitempty"`
}

// MaxOldestTasks bounds the list of the oldest unfinished tasks.
const MaxOldestTasks = 5

// OldestTask is one of the oldest unfinished tasks of an operation.
type OldestTask struct {
	ID    string    `json:"id"`
	Phase Phase     `json:"phase"`
	State TaskState `json:"state"`
	// Attempt counts the attempts so far.
	Attempt int `json:"attempt"`
	// Since is when its first attempt began, or, before that, when the task came to
	// be.
	Since       time.Time `json:"since"`
	Source      string    `json:"source"`
	Destination string    `json:"destination"`
	// LastError is how its last attempt ended that came to nothing; empty when none
	// has.
	LastError string `json:"last_error"`
	Waits     []Wait `json:"waits"`
}

// TaskCounts counts tasks by state; Total includes the verification tasks.
type TaskCounts struct {
	Total   int `json:"total"`
	Done    int `json:"done"`
	Running int `json:"running"`
	Waiting int `json:"waiting"`
	Failed  int `json:"failed"`
}

// Done counts things that are finished out of those that are to move.
type Done struct {
	Total int `json:"total"`
	Done  int `json:"done"`
}

// PointCounts counts points (rows of one series at one time).
type PointCounts struct {
	// Estimated is the plan's sampled estimate, corrected by what the tasks that
	// are done have had.
	Estimated int64 `json:"estimated"`
	// Copied is the points of slices that were copied: read at a source and
	// acknowledged by, or already held by, their owner.
	Copied int64 `json:"copied"`
	// Verified is proven to be at its owner; in a verification, what has been
	// compared, equal or not.
	Verified int64 `json:"verified"`
	// Unchanged is what was not copied because it was equal at both ends.
	Unchanged int64 `json:"unchanged"`
	// Dropped is what a clear has removed.
	Dropped int64 `json:"dropped"`
}

// ByteCounts counts bytes on the wire: msgpack read, line protocol written
// (before compression).
type ByteCounts struct {
	Read    int64 `json:"read"`
	Written int64 `json:"written"`
}

// BackendProgress is what one source backend has to give and has given. Total
// counts include what is in place already.
type BackendProgress struct {
	Name         string `json:"name"`
	Databases    Done   `json:"databases"`
	Measurements Done   `json:"measurements"`
	// Moved counts the measurements that have moved, InPlace those that had
	// not to.
	Moved   int `json:"moved"`
	InPlace int `json:"in_place"`
	// Points are those that it has to give, and how far they are.
	Points PointCounts `json:"points"`
}
