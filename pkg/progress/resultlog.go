package progress

import (
	"encoding/json"
	"sync"
	"time"

	"ringmaster/pkg/operation"
)

// Bounds of a ResultLog.
const (
	// ResultLogIdle is how long a log lives that nobody reads.
	ResultLogIdle = 5 * time.Second
	// ResultLogEntries is how many messages it holds; the oldest go first.
	ResultLogEntries = 1000
)

// Message is one entry of a ResultLog, as Genvid's clients expect it.
type Message struct {
	// Error says why an operation failed, and is empty otherwise.
	Error string `json:"error"`
	// Value is a Summary as JSON.
	Value string `json:"value"`
}

// Summary is what a Message tells about an operation.
type Summary struct {
	ID              string                `json:"id"`
	Kind            operation.Kind        `json:"kind"`
	Scope           []string              `json:"scope"`
	State           operation.State       `json:"state"`
	Phase           operation.Phase       `json:"phase"`
	Tasks           operation.TaskCounts  `json:"tasks"`
	Points          operation.PointCounts `json:"points"`
	Bytes           operation.ByteCounts  `json:"bytes"`
	PointsPerSecond float64               `json:"points_per_second"`
	ETASeconds      *float64              `json:"eta_seconds"`
	AsOf            time.Time             `json:"as_of"`
}

// ResultLog is Genvid's log of results: one log for all readers, which collects
// only while somebody reads it and starts again at 0 when nobody has for
// ResultLogIdle. It needs no goroutine: the log looks at the clock when it is
// read and when it is written.
type ResultLog struct {
	now func() time.Time

	mu sync.Mutex
	// start is the position of messages[0].
	start    uint64
	messages []Message
	read     time.Time
	watched  bool
}

// NewResultLog returns an empty log; now is its clock, nil for time.Now.
func NewResultLog(now func() time.Time) *ResultLog {
	if now == nil {
		now = time.Now
	}
	return &ResultLog{now: now}
}

// Observe adds an operation's progress, if the log is being read. It fits
// Options.OnChange.
func (l *ResultLog) Observe(op operation.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	if !l.watched {
		return
	}
	message, err := messageOf(op)
	if err != nil {
		message = Message{Error: err.Error()}
	}
	l.messages = append(l.messages, message)
	if over := len(l.messages) - ResultLogEntries; over > 0 {
		l.messages = l.messages[over:]
		l.start += uint64(over)
	}
}

// Read returns the messages from position counter to the end, and the end,
// which is the counter for the next call. A counter beyond the end is of a log
// that was reset: it counts as 0. Messages that were cut off are skipped.
func (l *ResultLog) Read(counter uint64) (end uint64, messages []Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	l.watched, l.read = true, l.now()
	end = l.start + uint64(len(l.messages))
	if counter > end {
		counter = 0
	}
	from := max(counter, l.start) - l.start
	return end, append([]Message{}, l.messages[from:]...)
}

func (l *ResultLog) expire() {
	if l.watched && l.now().Sub(l.read) >= ResultLogIdle {
		l.start, l.messages, l.watched = 0, nil, false
	}
}

func messageOf(op operation.Operation) (Message, error) {
	p := op.Progress
	value, err := json.Marshal(Summary{
		ID: op.ID, Kind: op.Kind, Scope: op.Scope, State: op.State, Phase: p.Phase,
		Tasks: p.Tasks, Points: p.Points, Bytes: p.Bytes,
		PointsPerSecond: p.PointsPerSecond, ETASeconds: p.ETASeconds, AsOf: p.AsOf,
	})
	if err != nil {
		return Message{}, err
	}
	m := Message{Value: string(value)}
	if op.Error != nil {
		m.Error = op.Error.Code + ": " + op.Error.Detail
	}
	return m, nil
}
