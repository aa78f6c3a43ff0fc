package operation

import (
	"errors"
	"fmt"
	"time"
)

// LetterKind is what a dead letter holds.
type LetterKind string

// The kinds of dead letters.
const (
	// LetterMessage is a message that nobody could carry out.
	LetterMessage LetterKind = "message"
	// LetterPoints are points that were acknowledged and that a backend has refused for
	// good since.
	LetterPoints LetterKind = "points"
	// LetterUnreadable is a letter that this release does not understand.
	LetterUnreadable LetterKind = "unreadable"
)

// DeadLetter is what is kept of something that could not be carried out.
type DeadLetter struct {
	// Sequence numbers dead letters in the order in which they were kept.
	Sequence uint64
	StoredAt time.Time
	Kind     LetterKind
	// Reason says what was wrong, of points in the backend's words.
	Reason string
	// Stream and Subject are where it lay. Of points that is the stream of the
	// backend's hints.
	Stream, Subject string
	// Backend, Database, RetentionPolicy and Points are about points; Points is 0 when
	// their number is not known.
	Backend, Database, RetentionPolicy string
	Points                             int
	// Piece and Pieces number the letters of points that one was too small for.
	Piece, Pieces int
	// Truncated says that Body is only the beginning of the message.
	Truncated bool
	// Bytes is how long the body is.
	Bytes int
	// Body is the message, or the points as line protocol; a list leaves it out.
	Body []byte
}

// ErrNoLetter says that there is no dead letter of that number, any more perhaps.
var ErrNoLetter = errors.New("no such dead letter")

// LetterError refuses to try a dead letter again; it stays as it is.
type LetterError struct {
	Sequence uint64
	Reason   string
}

func (e *LetterError) Error() string {
	return fmt.Sprintf("dead letter %d cannot be tried again: %s", e.Sequence, e.Reason)
}

// PointsRefusedError says that points were refused once more, in the words of whoever
// refused them; some of them may have been stored.
type PointsRefusedError struct {
	// Status is that of HTTP.
	Status int
	Words  string
}

func (e *PointsRefusedError) Error() string { return "the points were refused again: " + e.Words }
