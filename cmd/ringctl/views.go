package main

import (
	"encoding/json"
	"time"

	"ringmaster/pkg/operation"
)

// The documents of the native API, as much of them as tables show. What a release
// adds is no mistake: -o json and -o yaml print what the server has sent.

type opView struct {
	ID              string                `json:"id"`
	Kind            string                `json:"kind"`
	Scope           []string              `json:"scope"`
	State           operation.State       `json:"state"`
	PausedIn        operation.State       `json:"paused_in"`
	Conditions      []operation.Condition `json:"conditions"`
	DryRun          bool                  `json:"dry_run"`
	Hold            bool                  `json:"hold"`
	Parameters      json.RawMessage       `json:"parameters"`
	Limits          operation.Limits      `json:"limits"`
	Reason          string                `json:"reason"`
	RequestedBy     string                `json:"requested_by"`
	CreatedAt       time.Time             `json:"created_at"`
	StartedAt       *time.Time            `json:"started_at"`
	FinishedAt      *time.Time            `json:"finished_at"`
	Epoch           uint64                `json:"epoch"`
	Attempt         int                   `json:"attempt"`
	Attempts        []attemptView         `json:"attempts"`
	Progress        operation.Progress    `json:"progress"`
	Waits           []operation.Wait      `json:"waits"`
	Error           *operation.Error      `json:"error"`
	Result          *operation.Result     `json:"result"`
	CancelRequested *operation.Intent     `json:"cancel_requested"`
}

type attemptView struct {
	Attempt    int              `json:"attempt"`
	State      operation.State  `json:"state"`
	StartedAt  *time.Time       `json:"started_at"`
	FinishedAt *time.Time       `json:"finished_at"`
	Error      *operation.Error `json:"error"`
}

// finished is how much of the points is done: of the phase that they are in. What has
// ended, but not well, has done no more than it has.
func finished(state operation.State, phase operation.Phase, p *operation.PointCounts) (done, whole int64) {
	moved := p.Copied + p.Unchanged + p.Dropped
	switch phase {
	case operation.PhaseDone:
		done = max(moved, p.Verified)
		switch state {
		case operation.PartiallyFailed, operation.Failed, operation.Cancelled:
			return done, max(done, p.Estimated)
		default:
			return done, done
		}
	case operation.PhaseCompare:
		return p.Verified, max(p.Estimated, p.Verified)
	case operation.PhaseVerify:
		return p.Verified, max(p.Verified, p.Copied, moved)
	default:
		return moved, max(p.Estimated, moved)
	}
}

type planView struct {
	OperationID  string                      `json:"operation_id"`
	Backends     []operation.PlanBackend     `json:"backends"`
	Moves        []operation.PlanMove        `json:"moves"`
	Measurements []operation.PlanMeasurement `json:"measurements"`
	// MeasurementsLeftOut counts those that are not listed.
	MeasurementsLeftOut int                  `json:"measurements_left_out"`
	Totals              operation.PlanTotals `json:"totals"`
	Notes               []string             `json:"notes"`

	operation.Preview
}

type taskView struct {
	ID          string               `json:"id"`
	Phase       string               `json:"phase"`
	State       operation.TaskState  `json:"state"`
	Attempt     int                  `json:"attempt"`
	Holder      string               `json:"holder"`
	Source      string               `json:"source"`
	Destination string               `json:"destination"`
	Estimated   int64                `json:"estimated"`
	Points      operation.TaskPoints `json:"points"`
	Waits       []operation.Wait     `json:"waits"`
	Error       *operation.Error     `json:"error"`
	Slices      struct {
		Total    int `json:"total"`
		Finished int `json:"finished"`
		Failed   int `json:"failed"`
	} `json:"slices"`
	History []struct {
		Detail string `json:"detail"`
	} `json:"history"`
}

// trouble is what is wrong with a task, or was at its last attempt.
func (t *taskView) trouble() string {
	switch {
	case t.Error != nil:
		return t.Error.Detail
	case len(t.Waits) > 0:
		return "waits: " + waitText(&t.Waits[0])
	case len(t.History) > 0 && !t.State.Ended():
		return "last error: " + t.History[len(t.History)-1].Detail
	default:
		return ""
	}
}

type workerView struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	Slots     int       `json:"slots"`
	Busy      int       `json:"busy"`
	Draining  bool      `json:"draining"`
	Tasks     []string  `json:"tasks"`
	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at"`
}

type letterView struct {
	ID              string          `json:"id"`
	StoredAt        time.Time       `json:"stored_at"`
	Kind            string          `json:"kind"`
	Reason          string          `json:"reason"`
	Stream          string          `json:"stream"`
	Subject         string          `json:"subject"`
	Backend         string          `json:"backend"`
	Database        string          `json:"database"`
	RetentionPolicy string          `json:"retention_policy"`
	Points          int64           `json:"points"`
	Bytes           int64           `json:"bytes"`
	Body            json.RawMessage `json:"body"`
}
