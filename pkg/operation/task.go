package operation

import (
	"strings"
	"time"
)

// TaskState is where a task stands.
type TaskState string

// The states of a task. A waiting task is free to be claimed; a running one
// belongs to its holder for as long as the holder's lease lives.
const (
	TaskWaiting TaskState = "waiting"
	TaskRunning TaskState = "running"
	TaskDone    TaskState = "done"
	TaskFailed  TaskState = "failed"
)

// Ended reports whether no worker has anything left to do for the task.
func (s TaskState) Ended() bool { return s == TaskDone || s == TaskFailed }

// Task is the record of one bundle of slices between one source and one
// destination. Claim, checkpoint and end are compare-and-set on it: whoever
// holds its revision owns the task.
type Task struct {
	ID          string `json:"id"`
	OperationID string `json:"operation_id"`
	Kind        Kind   `json:"kind"`
	Phase       Phase  `json:"phase"`
	Round       int    `json:"round"`
	// Wave orders tasks that read one measurement from several sources: a wave
	// starts when the one before it has ended.
	Wave int `json:"wave,omitempty"`
	// Source and Destination are backend URLs.
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Rule
	// Of is the copy task whose evidence a verify task checks.
	Of string `json:"of,omitempty"`
	// Parent is the task this one was split from; Children are the tasks that
	// took slices over from this one.
	Parent   string   `json:"parent,omitempty"`
	Children []string `json:"children,omitempty"`
	// The slices are either a span of the stored plan or written out.
	Span   *Span   `json:"span,omitempty"`
	Slices []Slice `json:"slices,omitempty"`
	// Barred are the slices, by index, that are not to be copied, since what was to
	// be copied before them has failed.
	Barred []int `json:"barred,omitempty"`
	// Estimated is the plan's estimate of points.
	Estimated int64     `json:"estimated"`
	State     TaskState `json:"state"`
	Attempt   int       `json:"attempt"`
	// Setbacks counts the attempts since the last checkpoint that came to
	// nothing; see the worker for how many there may be.
	Setbacks int `json:"setbacks,omitempty"`
	// SameErrors counts the setbacks in a row that ended with the same error, since
	// ErrorSince. Both are of the time since the task last got further.
	SameErrors int        `json:"same_errors,omitempty"`
	ErrorSince *time.Time `json:"error_since,omitempty"`
	// Timeouts are the slices that have run out of time, at most MaxTaskTimeouts.
	Timeouts []SliceTimeouts `json:"timeouts,omitempty"`
	Holder   string          `json:"holder,omitempty"`
	// Checkpoint has an entry per slice once the first one is finished.
	Checkpoint Checkpoint `json:"checkpoint,omitempty"`
	Points     TaskPoints `json:"points"`
	Bytes      ByteCounts `json:"bytes"`
	Waits      []Wait     `json:"waits,omitempty"`
	Verdict    *Verdict   `json:"verdict,omitempty"`
	// Error is why a failed task failed; History has the last errors of earlier
	// attempts, newest last.
	Error      *Error       `json:"error,omitempty"`
	History    []TaskError  `json:"history,omitempty"`
	Problems   []SliceError `json:"problems,omitempty"`
	CreatedAt  time.Time    `json:"created_at"`
	StartedAt  *time.Time   `json:"started_at,omitempty"`
	UpdatedAt  time.Time    `json:"updated_at"`
	FinishedAt *time.Time   `json:"finished_at,omitempty"`
}

// Span is a run of slices inside one chunk of the plan.
type Span struct {
	Chunk int `json:"chunk"`
	First int `json:"first"`
	Count int `json:"count"`
}

// TaskPoints are the points a task has handled so far.
type TaskPoints struct {
	Copied   int64 `json:"copied"`
	Verified int64 `json:"verified"`
	// Unchanged were found equal at both ends and not copied.
	Unchanged int64 `json:"unchanged,omitempty"`
	// Dropped were removed from the source, their owner holding them.
	Dropped int64 `json:"dropped,omitempty"`
}

// TaskError is one entry of a task's history.
type TaskError struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Detail  string    `json:"detail"`
}

// SliceTimeouts says how often the request for some slices of a task has run out of
// time, so that whoever goes on with the task goes on counting.
type SliceTimeouts struct {
	// First is the index of the first of Slices slices that are asked for together.
	First  int `json:"first"`
	Slices int `json:"slices"`
	Count  int `json:"count"`
	// Halvings is how often the window was halved in which the one slice is compared.
	Halvings int `json:"halvings,omitempty"`
}

// SliceError says why one slice of a task failed.
type SliceError struct {
	Index  int    `json:"index"`
	Slice  Slice  `json:"slice"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	// Missing and Different are the points that its owner lacks, or has with other
	// values, where that is the reason.
	Missing   int64 `json:"missing,omitempty"`
	Different int64 `json:"different,omitempty"`
}

// Bounds of what a task record may hold, so that it stays far below the
// largest message whatever goes wrong.
const (
	MaxSlicesPerTask  = 2000
	MaxSliceProblems  = 20
	MaxTaskHistory    = 5
	MaxReportProblems = 100
	MaxTaskTimeouts   = 32
	// MaxProblemBytes bounds the problems of one task together: names may be
	// as long as 64 KiB.
	MaxProblemBytes = 128 << 10
	// MaxDetailBytes bounds each text about one slice.
	MaxDetailBytes = 2 << 10
)

// SliceCount returns how many slices the task has.
func (t *Task) SliceCount() int {
	if t.Span != nil {
		return t.Span.Count
	}
	return len(t.Slices)
}

// Remember adds an error to the task's bounded history.
func (t *Task) Remember(at time.Time, detail string) {
	t.History = append(t.History, TaskError{Attempt: t.Attempt, At: at, Detail: Clip(detail)})
	if over := len(t.History) - MaxTaskHistory; over > 0 {
		t.History = t.History[over:]
	}
}

// Further is how far the task is, as a number that rises whenever it gets further: a
// slice more is finished or handed over. Proofs and notes alone don't count.
func (t *Task) Further() int64 {
	n := t.Points.Copied + t.Points.Verified + t.Points.Unchanged + t.Points.Dropped
	for i := range t.Checkpoint {
		if t.Checkpoint[i].State.Finished() {
			n++
		}
	}
	return n
}

// Advanced forgets the setbacks before the task got further.
func (t *Task) Advanced() { t.Setbacks, t.SameErrors, t.ErrorSince = 0, 0, nil }

// AddProblem remembers why a slice failed, within the bounds.
func (t *Task) AddProblem(p SliceError) {
	p.Detail = Clip(p.Detail)
	size := 0
	for i := range t.Problems {
		size += t.Problems[i].size()
	}
	if len(t.Problems) == 0 || len(t.Problems) < MaxSliceProblems && size+p.size() <= MaxProblemBytes {
		t.Problems = append(t.Problems, p)
	}
}

func (e *SliceError) size() int { return problemOverhead + e.Slice.nameBytes() + len(e.Detail) }

// Clip cuts a text to MaxDetailBytes, in its middle, so that what was tried and
// what came of it stay.
func Clip(text string) string {
	if len(text) <= MaxDetailBytes {
		return text
	}
	const gap = " … "
	half := (MaxDetailBytes - len(gap)) / 2
	return strings.ToValidUTF8(text[:half], "") + gap + strings.ToValidUTF8(text[len(text)-half:], "")
}
