package operation

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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
	// Of is the copy task whose evidence a verify task checks.
	Of string `json:"of,omitempty"`
	// Parent is the task this one was split from; Children are the tasks that
	// took slices over from this one.
	Parent   string   `json:"parent,omitempty"`
	Children []string `json:"children,omitempty"`
	// The slices are either a span of the stored plan or written out.
	Span   *Span   `json:"span,omitempty"`
	Slices []Slice `json:"slices,omitempty"`
	// Estimated is the plan's estimate of points.
	Estimated int64     `json:"estimated"`
	State     TaskState `json:"state"`
	Attempt   int       `json:"attempt"`
	Holder    string    `json:"holder,omitempty"`
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
}

// TaskError is one entry of a task's history.
type TaskError struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Detail  string    `json:"detail"`
}

// SliceError says why one slice of a task failed.
type SliceError struct {
	Index  int    `json:"index"`
	Slice  Slice  `json:"slice"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Bounds of what a task record may hold, so that it stays far below the
// largest message whatever goes wrong.
const (
	MaxSlicesPerTask  = 2000
	MaxSliceProblems  = 20
	MaxTaskHistory    = 5
	MaxReportProblems = 100
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
	t.History = append(t.History, TaskError{Attempt: t.Attempt, At: at, Detail: detail})
	if over := len(t.History) - MaxTaskHistory; over > 0 {
		t.History = t.History[over:]
	}
}

// SliceState is what became of one slice of a copy task.
type SliceState uint8

const (
	// SlicePending has not been finished.
	SlicePending SliceState = iota
	// SliceCopied has every batch acknowledged by its destination.
	SliceCopied
	// SliceFailed was refused for good; the task's Problems say why.
	SliceFailed
	// SliceHandedOver was too large and belongs to the task's children now.
	SliceHandedOver
)

// Evidence is what copying a slice has seen, for the verification to compare.
type Evidence struct {
	State SliceState
	// DestinationEmpty: nothing was there before the copy, so that counts
	// alone can prove it.
	DestinationEmpty bool
	// Rows and Values are the points and field values read at the source.
	Rows, Values int64
	// Written counts the points sent to the destination.
	Written int64
	// Kept counts the points of which the destination held another value; a
	// copy never replaces it.
	Kept int64
	// Expired counts the points that retention no longer admits.
	Expired int64
	// Counts is the sum over all values of a hash of (series, field): equal
	// sums mean equal counts per series and field. Digest is the same over
	// (series, field, time, type, value).
	Counts, Digest uint64
}

// Checkpoint is the evidence of a task's slices, by index. Its JSON form is
// base64 of a packed encoding, since a task may have thousands of slices.
type Checkpoint []Evidence

const checkpointVersion = 1

// MarshalJSON packs the checkpoint.
func (c Checkpoint) MarshalJSON() ([]byte, error) {
	packed := []byte{checkpointVersion}
	packed = binary.AppendUvarint(packed, uint64(len(c)))
	for _, e := range c {
		flags := byte(e.State) << 1
		if e.DestinationEmpty {
			flags |= 1
		}
		packed = append(packed, flags)
		if e.State == SlicePending {
			continue
		}
		for _, n := range []int64{e.Rows, e.Values, e.Written, e.Kept, e.Expired} {
			packed = binary.AppendVarint(packed, n)
		}
		packed = binary.LittleEndian.AppendUint64(packed, e.Counts)
		packed = binary.LittleEndian.AppendUint64(packed, e.Digest)
	}
	return json.Marshal(base64.RawStdEncoding.EncodeToString(packed))
}

// UnmarshalJSON unpacks what MarshalJSON made.
func (c *Checkpoint) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("reading checkpoint: %w", err)
	}
	packed, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("reading checkpoint: %w", err)
	}
	*c, err = unpackCheckpoint(packed)
	return err
}

var errCheckpoint = errors.New("reading checkpoint: torn or of another version")

func unpackCheckpoint(b []byte) (Checkpoint, error) {
	if len(b) == 0 || b[0] != checkpointVersion {
		return nil, errCheckpoint
	}
	b = b[1:]
	n, used := binary.Uvarint(b)
	// Every entry takes at least one byte, so n cannot exceed what is left.
	if used <= 0 || n > uint64(len(b)) {
		return nil, errCheckpoint
	}
	b = b[used:]
	c := make(Checkpoint, n)
	for i := range c {
		if len(b) == 0 {
			return nil, errCheckpoint
		}
		e := &c[i]
		e.DestinationEmpty = b[0]&1 == 1
		e.State = SliceState(b[0] >> 1)
		b = b[1:]
		if e.State == SlicePending {
			continue
		}
		for _, into := range []*int64{&e.Rows, &e.Values, &e.Written, &e.Kept, &e.Expired} {
			v, used := binary.Varint(b)
			if used <= 0 {
				return nil, errCheckpoint
			}
			*into, b = v, b[used:]
		}
		if len(b) < 16 {
			return nil, errCheckpoint
		}
		e.Counts = binary.LittleEndian.Uint64(b)
		e.Digest = binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
	}
	if len(b) != 0 {
		return nil, errCheckpoint
	}
	return c, nil
}
