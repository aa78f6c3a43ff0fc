// Package progress keeps the view of all operations that every API process
// serves lists, statistics and event feeds from, so that no request ever asks
// a backend, and few ask the records.
//
//   - Projection: the latest public record of every operation, with its progress
//   - Feed: the event stream for one reader, resumable by sequence
//   - ResultLog: progress as a short log that exists only while it is watched
//
// Events may be lost, doubled and late. The projection therefore starts from
// the records and the last progress that was told of each open operation,
// follows the events from there, lets the higher revision win, and
// reads the records of open operations again every few seconds: the record is
// the truth, an event only makes its change visible sooner.
package progress

import (
	"context"
	"errors"
	"iter"
	"time"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/operation"
)

// Defaults of Options and bounds of what is kept.
const (
	// DefaultPoll is how often the records of open operations are read.
	DefaultPoll = 5 * time.Second
	// DefaultRescan is how often all records are read. It finds an operation
	// of which every event was lost and that ended between two polls.
	DefaultRescan = 5 * time.Minute
	// DefaultMaxTerminal is how many terminal operations are kept; beyond it
	// the oldest are dropped. Their records stay, and can be read by id.
	DefaultMaxTerminal = 10_000
	// DefaultPage and MaxPage are the usual and the largest size of a page.
	DefaultPage = 100
	MaxPage     = 1000
	// staleAfter is after how many polls without an answer Ready complains.
	staleAfter = 3
)

// ErrCursor says that a list's cursor is not one that List has returned.
var ErrCursor = errors.New("not a cursor of this list")

// ErrNotReady says that the projection has not seen the records yet.
var ErrNotReady = errors.New("the operation records have not been read yet")

// ErrStale says that the projection has heard from neither the stream nor the
// records for several polls.
var ErrStale = errors.New("nothing was heard from the event stream or the records")

// ErrRunning says that the projection is running already.
var ErrRunning = errors.New("the projection is running already")

// Records reads the operation records; *ledger.Ledger is one.
type Records interface {
	// Operations calls each for every operation's record and its revision, in
	// any order, until one call returns an error.
	Operations(ctx context.Context, each func(op operation.Operation, revision uint64) error) error
	// OpenOperations returns the ids of the operations that are not terminal.
	// It may name some that are, and may miss one that has just begun.
	OpenOperations(ctx context.Context) ([]string, error)
	// Operation returns one record, or operation.ErrNotFound.
	Operation(ctx context.Context, id string) (ledger.Versioned[operation.Operation], error)
}

// Log reads the event stream; *bus.Log is one.
type Log interface {
	// Bounds returns the sequence of the oldest event and the one that the next
	// event will have; they are equal when there is none.
	Bounds(ctx context.Context) (first, next uint64, err error)
	// Tail yields the events that match a subject filter from a sequence on, in
	// order, and waits for more. Where events are gone it yields a
	// *bus.GapError and goes on with the oldest that there is; any other error,
	// that of ctx included, is the last it yields.
	Tail(ctx context.Context, from uint64, filter string) iter.Seq2[bus.Record, error]
	// Last returns the newest event on a subject, or bus.ErrNotFound.
	Last(ctx context.Context, subject string) (bus.Record, error)
	// Page returns at most limit events like Tail, without waiting. A
	// *bus.GapError comes beside the events.
	Page(ctx context.Context, from uint64, filter string, limit int) ([]bus.Record, error)
}
