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
	Progress        progressView          `json:"progress"`
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

type progressView struct {
	operation.Progress

	OldestTasks []oldTaskView `json:"oldest_tasks"`
}

type oldTaskView struct {
	ID          string           `json:"id"`
	Phase       string           `json:"phase"`
	State       string           `json:"state"`
	Attempt     int              `json:"attempt"`
	Since       time.Time        `json:"since"`
	Source      string           `json:"source"`
	Destination string           `json:"destination"`
	LastError   string           `json:"last_error"`
	Waits       []operation.Wait `json:"waits"`
}

// finished is how much of an operation is done, in points: of the phase it is in.
func (p *progressView) finished() (done, whole int64) { return finished(p.Phase, &p.Points) }

func finished(phase operation.Phase, p *operation.PointCounts) (done, whole int64) {
	moved := p.Copied + p.Unchanged + p.Dropped
	switch phase {
	case operation.PhaseDone:
		return max(moved, p.Verified), max(moved, p.Verified)
	case operation.PhaseCompare:
		return p.Verified, max(p.Estimated, p.Verified)
	case operation.PhaseVerify:
		return p.Verified, max(p.Verified, p.Copied, moved)
	default:
		return moved, max(p.Estimated, moved)
	}
}

type planView struct {
	OperationID         string                      `json:"operation_id"`
	Backends            []operation.PlanBackend     `json:"backends"`
	Moves               []operation.PlanMove        `json:"moves"`
	Measurements        []operation.PlanMeasurement `json:"measurements"`
	MeasurementsLeftOut int                         `json:"measurements_left_out"`
	Totals              operation.PlanTotals        `json:"totals"`
	Notes               []string                    `json:"notes"`
	Balance             []balanceView               `json:"balance"`
	Skew                *skewView                   `json:"skew"`
	TopMovers           []moverView                 `json:"top_movers"`
	Duration            *durationView               `json:"duration"`
	Refusals            []refusalView               `json:"refusals"`
	EstimateSource      string                      `json:"estimate_source"`
}

type balanceView struct {
	Backend string   `json:"backend"`
	URL     string   `json:"url"`
	Before  loadView `json:"before"`
	After   loadView `json:"after"`
}

type loadView struct {
	Databases    int   `json:"databases"`
	Measurements int   `json:"measurements"`
	Points       int64 `json:"points"`
	Bytes        int64 `json:"bytes"`
}

type skewView struct {
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

type moverView struct {
	Database    string `json:"database"`
	Measurement string `json:"measurement"`
	From        string `json:"from"`
	To          string `json:"to"`
	Points      int64  `json:"points"`
	Bytes       int64  `json:"bytes"`
}

type durationView struct {
	LowSeconds  float64 `json:"low_seconds"`
	HighSeconds float64 `json:"high_seconds"`
	Basis       string  `json:"basis"`
}

type refusalView struct {
	Code    string          `json:"code"`
	Detail  string          `json:"detail"`
	Hint    string          `json:"hint"`
	Scope   string          `json:"scope"`
	Backend string          `json:"backend"`
	Slice   json.RawMessage `json:"slice"`
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
