// Package bus is Ringmaster's NATS JetStream: the embedded server, the streams
// and buckets declared in package events, and the few shapes in which the rest
// of the program uses them. No other package knows NATS.
//
//   - Bucket: records, changed by compare-and-set only
//   - Scopes: locks of an operation, all taken or none, by one atomic batch
//   - Leases: who is alive
//   - Queue: nudges to workers
//   - Log: append and tail
//   - Objects: what is too large for a record
//   - Ask and Serve: questions that are answered from memory
//
// The record is the truth, a message is a nudge, an event is history. So every
// read on which something is decided is answered by the leader of its stream,
// every write that must not be repeated is a compare-and-set whose outcome is
// read back when the acknowledgement is lost, and watching never replaces
// polling.
//
// # Errors
//
// A caller decides by errors.Is with the sentinels below. Whatever matches
// ErrUnavailable may have happened or not: re-read, then decide.
package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound says that there is no such key, object, message or holder.
	ErrNotFound = errors.New("not found")
	// ErrExists says that the key to be created is there already.
	ErrExists = errors.New("already exists")
	// ErrConflict says that the key has another revision than the caller's.
	ErrConflict = errors.New("revision conflict")
	// ErrUnavailable says that NATS gave no answer in time: not connected, no
	// leader, or the answer was lost. What was asked for may have been done.
	ErrUnavailable = errors.New("nats is not available")
	// ErrInvalidKey says that a key cannot be used in a bucket.
	ErrInvalidKey = errors.New("invalid key")
	// ErrTooLarge says that a value is larger than a message may be (1 MiB).
	ErrTooLarge = errors.New("too large for a message")
	// ErrClosed says that the bus was closed.
	ErrClosed = errors.New("bus is closed")
)

// Error codes of the server that callers' decisions rest on.
const (
	codeWrongLastSequence         = 10071 // compare-and-set refused
	codeWrongLastSequenceConstant = 10164 // the same, on replicated streams
	codeStoreFailed               = 10077 // refused by a limit, here: the subject is taken
	codeMessageNotFound           = 10037
	codeClusterNotAvailable       = 10008
	codeClusterNotLeader          = 10009
	codeNoPeers                   = 10005
	codeReplicasNotSupported      = 10074
	codeBatchIncomplete           = 10176
	codeBatchDuplicate            = 10201
	codeBatchTooManyInflight      = 10210
	codeDuplicateConflict         = 10158
	codeMessageTooLarge           = 10054
)

// apiCode returns the server's error code of err, or 0.
func apiCode(err error) int {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return int(api.ErrorCode)
	}
	return 0
}

// isWrongRevision reports whether the server refused a compare-and-set.
func isWrongRevision(err error) bool {
	code := apiCode(err)
	return code == codeWrongLastSequence || code == codeWrongLastSequenceConstant
}

// isTransient reports whether err says nothing about the request itself: no
// answer, no leader, no connection. The request may have been carried out.
func isTransient(err error) bool {
	switch apiCode(err) {
	case codeClusterNotAvailable, codeClusterNotLeader, codeDuplicateConflict:
		return true
	}
	for _, target := range []error{
		ErrUnavailable,
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrDisconnected,
		nats.ErrConnectionReconnecting, nats.ErrStaleConnection, nats.ErrNoServers,
		jetstream.ErrNoStreamResponse, jetstream.ErrNoHeartbeat, jetstream.ErrServerShutdown,
		context.DeadlineExceeded, net.ErrClosed, io.EOF,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network)
}

// classify gives err the sentinel by which callers decide.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed):
		return err
	case errors.Is(err, nats.ErrConnectionClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, nats.ErrMaxPayload), apiCode(err) == codeMessageTooLarge:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case isTransient(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}
