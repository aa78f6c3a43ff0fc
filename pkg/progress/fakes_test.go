package progress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ Records = (*ledger.Ledger)(nil)
	_ Log     = (*bus.Log)(nil)
	_ Records = (*memoryRecords)(nil)
	_ Log     = (*memoryLog)(nil)
)

var errDown = errors.New("down for the test")

// memoryRecords keeps records as the ledger does.
type memoryRecords struct {
	mu      sync.Mutex
	records map[string]ledger.Versioned[operation.Operation]
	next    uint64
	down    bool
	reads   int
	torn    string
}

func newRecords() *memoryRecords {
	return &memoryRecords{records: map[string]ledger.Versioned[operation.Operation]{}}
}

// put stores a record and returns the event that tells of it.
func (m *memoryRecords) put(op operation.Operation) events.OperationChange {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	m.records[op.ID] = ledger.Versioned[operation.Operation]{Value: op, Revision: m.next}
	return events.OperationChange{Operation: op, Revision: m.next}
}

func (m *memoryRecords) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, id)
}

func (m *memoryRecords) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

// tear makes one record unreadable.
func (m *memoryRecords) tear(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.torn = id
}

func (m *memoryRecords) isTorn(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id == m.torn
}

func (m *memoryRecords) all() (map[string]ledger.Versioned[operation.Operation], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.down {
		return nil, errDown
	}
	return maps.Clone(m.records), nil
}

func (m *memoryRecords) Operations(_ context.Context, each func(operation.Operation, uint64) error) error {
	records, err := m.all()
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := each(r.Value, r.Revision); err != nil {
			return err
		}
	}
	return nil
}

func (m *memoryRecords) OpenOperations(context.Context) ([]string, error) {
	records, err := m.all()
	if err != nil {
		return nil, err
	}
	var ids []string
	for id, r := range records {
		if !r.Value.State.Terminal() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (m *memoryRecords) Operation(_ context.Context, id string) (ledger.Versioned[operation.Operation], error) {
	records, err := m.all()
	if err != nil {
		return ledger.Versioned[operation.Operation]{}, err
	}
	r, ok := records[id]
	switch {
	case !ok:
		return r, operation.ErrNotFound
	case m.isTorn(id):
		return r, ledger.ErrUnreadable
	}
	return r, nil
}

// memoryLog keeps events as the bus does.
type memoryLog struct {
	mu      sync.Mutex
	records []bus.Record
	first   uint64
	next    uint64
	down    bool
	// broken and hanging are the subjects of which Last fails or does not answer.
	broken, hanging map[string]bool
	// grown is closed and replaced when anything changes.
	grown chan struct{}
}

func newLog() *memoryLog {
	return &memoryLog{
		first: 1, next: 1, grown: make(chan struct{}),
		broken: map[string]bool{}, hanging: map[string]bool{},
	}
}

func (l *memoryLog) change(what func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what()
	close(l.grown)
	l.grown = make(chan struct{})
}

// tell appends a payload's message.
func (l *memoryLog) tell(t require.TestingT, p events.Payload) uint64 {
	return l.append(events.Address(p), message(t, p))
}

func (l *memoryLog) append(subject string, data []byte) (sequence uint64) {
	l.change(func() {
		sequence = l.next
		l.records = append(l.records, bus.Record{Sequence: l.next, Time: epoch, Subject: subject, Data: data})
		l.next++
	})
	return sequence
}

// trim drops everything before a sequence, which may be beyond the end.
func (l *memoryLog) trim(first uint64) {
	l.change(func() {
		l.first, l.next = first, max(l.next, first)
		l.records = slices.DeleteFunc(l.records, func(r bus.Record) bool { return r.Sequence < first })
	})
}

func (l *memoryLog) setDown(down bool) { l.change(func() { l.down = down }) }

func (l *memoryLog) Bounds(context.Context) (first, next uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return 0, 0, errDown
	}
	return l.first, l.next, nil
}

func (l *memoryLog) Page(_ context.Context, from uint64, filter string, limit int) ([]bus.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errDown
	}
	found := l.matching(from, filter)
	found = found[:min(limit, len(found))]
	if from = max(from, 1); from < l.first {
		return found, &bus.GapError{Requested: from, First: l.first}
	}
	return found, nil
}

func (l *memoryLog) Last(ctx context.Context, subject string) (bus.Record, error) {
	l.mu.Lock()
	down, hanging := l.down || l.broken[subject], l.hanging[subject]
	found := l.matching(0, subject)
	l.mu.Unlock()
	switch {
	case hanging:
		<-ctx.Done()
		return bus.Record{}, context.Cause(ctx)
	case down:
		return bus.Record{}, errDown
	case len(found) == 0:
		return bus.Record{}, bus.ErrNotFound
	}
	return found[len(found)-1], nil
}

func (l *memoryLog) matching(from uint64, filter string) []bus.Record {
	prefix := strings.TrimRight(filter, ">*")
	var found []bus.Record
	for _, r := range l.records {
		if r.Sequence >= from && strings.HasPrefix(r.Subject, prefix) {
			found = append(found, r)
		}
	}
	return found
}

func (l *memoryLog) Tail(ctx context.Context, from uint64, filter string) iter.Seq2[bus.Record, error] {
	return func(yield func(bus.Record, error) bool) {
		for {
			l.mu.Lock()
			first, down, grown := l.first, l.down, l.grown
			found := l.matching(from, filter)
			next := l.next
			l.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(bus.Record{}, context.Cause(ctx))
				return
			case down:
				yield(bus.Record{}, errDown)
				return
			case max(from, 1) < first:
				if !yield(bus.Record{}, &bus.GapError{Requested: max(from, 1), First: first}) {
					return
				}
				from = first
			case len(found) > 0:
				if !yield(found[0], nil) {
					return
				}
				from = found[0].Sequence + 1
			default:
				from = max(from, next)
				select {
				case <-ctx.Done():
				case <-grown:
				}
			}
		}
	}
}

// epoch is the day on which everything in these tests happens.
var epoch = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)

func message(t require.TestingT, p events.Payload) []byte {
	e, err := events.New("id", "test/1", epoch, p)
	require.NoError(t, err)
	raw, err := json.Marshal(e)
	require.NoError(t, err)
	return raw
}

// id returns the n-th id in the order of creation.
func id(n int) string { return fmt.Sprintf("0198f3c2-7c1a-7e3e-9b5a-%012x", n) }

// op returns an operation of circle n modulo 3.
func op(n int, state operation.State) operation.Operation {
	return operation.Operation{
		ID: id(n), Kind: operation.KindRebalance, State: state,
		Scope:      []string{operation.CircleScope(n % 3)},
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"add"}`),
		CreatedAt:  epoch,
	}
}

func progressOf(n int, revision, seq uint64, copied int64) events.OperationProgress {
	return events.OperationProgress{
		OperationID: id(n), Revision: revision, Seq: seq,
		Progress: operation.Progress{
			Phase: operation.PhaseCopy, Points: operation.PointCounts{Copied: copied},
			AsOf: epoch.Add(time.Duration(seq) * time.Second),
		},
	}
}
