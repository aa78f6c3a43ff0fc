package progress

import (
	"iter"
	"slices"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// table is the projection's memory: pure, not safe for concurrent use. What it
// holds is never changed in place, so that it can be handed out.
type table struct {
	rows map[string]*row
	// ids has the keys of rows in ascending order. Ids are UUIDv7, so that is
	// the order of creation.
	ids         []string
	terminal    int
	maxTerminal int
}

// row is what is known of one operation.
type row struct {
	record   operation.Operation
	revision uint64
	// progress is the latest progress event, nil while there was none.
	progress *events.OperationProgress
	// shown is record with the progress that is the later.
	shown operation.Operation
}

func newTable(maxTerminal int) *table {
	return &table{rows: map[string]*row{}, maxTerminal: maxTerminal}
}

// putRecord takes a record in, unless a later one is known, and reports
// whether that changed anything.
func (t *table) putRecord(op operation.Operation, revision uint64) bool {
	r, known := t.rows[op.ID]
	if known {
		if revision <= r.revision {
			return false
		}
		if r.record.State.Terminal() {
			t.terminal--
		}
	} else {
		r = &row{}
		t.rows[op.ID] = r
		at, _ := slices.BinarySearch(t.ids, op.ID)
		t.ids = slices.Insert(t.ids, at, op.ID)
	}
	r.record, r.revision = op.Public(), revision
	r.show()
	if op.State.Terminal() {
		t.terminal++
		t.evict()
	}
	return true
}

// putProgress takes a progress event in, unless a later one is known. known is
// false when there is no such operation; the event is then of no use.
func (t *table) putProgress(p events.OperationProgress) (changed, known bool) {
	r, known := t.rows[p.OperationID]
	if !known {
		return false, false
	}
	if r.progress != nil && !later(&p, r.progress) {
		return false, true
	}
	r.progress = &p
	return r.show(), true
}

// later reports whether p was told after q. The revision comes first: a sequence
// compares what one controller has told, and its successor's may start lower.
func later(p, q *events.OperationProgress) bool {
	if p.Revision != q.Revision {
		return p.Revision > q.Revision
	}
	return p.Seq > q.Seq
}

// show decides what progress is shown, and reports whether it is the event's.
// The record's own is the last word on a terminal operation, and otherwise
// stands until an event comes that was made later: one that has seen this
// record, or whose totals are of a later moment.
func (r *row) show() bool {
	r.shown = r.record
	p := r.progress
	if p == nil || r.record.State.Terminal() {
		return false
	}
	recorded := r.record.Progress.AsOf
	told := p.Revision >= r.revision || !recorded.IsZero() && p.Progress.AsOf.After(recorded)
	if told {
		r.shown.Progress, r.shown.Waits = p.Progress, p.Waits
	}
	return told
}

// evict drops the oldest terminal operations beyond the bound.
func (t *table) evict() {
	for i := 0; t.terminal > t.maxTerminal && i < len(t.ids); {
		id := t.ids[i]
		if !t.rows[id].record.State.Terminal() {
			i++
			continue
		}
		t.forget(id)
	}
}

// forget drops an operation whose record is not there.
func (t *table) forget(id string) {
	r, known := t.rows[id]
	if !known {
		return
	}
	if r.record.State.Terminal() {
		t.terminal--
	}
	delete(t.rows, id)
	if at, found := slices.BinarySearch(t.ids, id); found {
		t.ids = slices.Delete(t.ids, at, at+1)
	}
}

func (t *table) get(id string) (operation.Operation, bool) {
	r, ok := t.rows[id]
	if !ok {
		return operation.Operation{}, false
	}
	return r.shown, true
}

// newest yields what is shown of the operations older than before ("" for all),
// newest first.
func (t *table) newest(before string) iter.Seq[*operation.Operation] {
	return func(yield func(*operation.Operation) bool) {
		at := len(t.ids)
		if before != "" {
			at, _ = slices.BinarySearch(t.ids, before)
		}
		for _, id := range slices.Backward(t.ids[:at]) {
			if !yield(&t.rows[id].shown) {
				return
			}
		}
	}
}
