package operations

import (
	"context"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
)

// DeadLetters are what could not be carried out. The errors that are refusals are
// operation.ErrNoLetter, *operation.LetterError and *operation.PointsRefusedError; after
// them the letter is as it was.
type DeadLetters interface {
	// List returns at most limit letters after a sequence, oldest first, without their
	// bodies, and the sequence to read on after, 0 at the end.
	List(ctx context.Context, after uint64, limit int) ([]operation.DeadLetter, uint64, error)
	Letter(ctx context.Context, sequence uint64) (operation.DeadLetter, error)
	Retry(ctx context.Context, sequence uint64, by operation.Intent) (operation.DeadLetter, error)
	Drop(ctx context.Context, sequence uint64, by operation.Intent) error
}

// letterView is a dead letter as it is shown.
type letterView struct {
	ID              string               `json:"id"`
	StoredAt        time.Time            `json:"stored_at"`
	Kind            operation.LetterKind `json:"kind"`
	Reason          string               `json:"reason"`
	Stream          string               `json:"stream"`
	Subject         string               `json:"subject"`
	Backend         string               `json:"backend,omitempty"`
	Database        string               `json:"database,omitempty"`
	RetentionPolicy string               `json:"retention_policy,omitempty"`
	// Points is absent where their number is not known.
	Points int `json:"points,omitempty"`
	// Piece and Pieces are there when one letter was too small.
	Piece  int `json:"piece,omitempty"`
	Pieces int `json:"pieces,omitempty"`
	// Bytes is the size of the body, which a list does not show.
	Bytes     int    `json:"bytes"`
	Truncated bool   `json:"truncated,omitempty"`
	Body      string `json:"body,omitempty"`
	// Binary is the body where it is no text; base64 in JSON.
	Binary []byte `json:"body_base64,omitempty"`
}

func newLetterView(l *operation.DeadLetter, whole bool) letterView {
	v := letterView{
		ID: strconv.FormatUint(l.Sequence, 10), StoredAt: l.StoredAt.UTC(), Kind: l.Kind, Reason: l.Reason,
		Stream: l.Stream, Subject: l.Subject, Backend: l.Backend, Database: l.Database,
		RetentionPolicy: l.RetentionPolicy, Points: l.Points, Truncated: l.Truncated, Bytes: l.Bytes,
	}
	if l.Pieces > 1 {
		v.Piece, v.Pieces = l.Piece, l.Pieces
	}
	switch {
	case !whole:
	case utf8.Valid(l.Body):
		v.Body = string(l.Body)
	default:
		v.Binary = l.Body
	}
	return v
}

func (rm *room) listLetters(c *gin.Context) {
	q, err := httpapi.Query(c.Request, "limit", "cursor")
	var limit int
	var after uint64
	if err == nil {
		var cursor string
		if limit, cursor, err = httpapi.Page(q); err == nil && cursor != "" {
			if after, err = strconv.ParseUint(cursor, 10, 64); err != nil {
				err = httpapi.BadCursor()
			}
		}
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	asOf := rm.Now()
	letters, next, err := rm.DeadLetters.List(c.Request.Context(), after, limit)
	if err != nil {
		rm.fail(c, "listing dead letters", err)
		return
	}
	items := make([]letterView, len(letters))
	for i := range letters {
		items[i] = newLetterView(&letters[i], false)
	}
	cursor := ""
	if next > 0 {
		cursor = strconv.FormatUint(next, 10)
	}
	httpapi.JSON(c, http.StatusOK, newList(items, cursor, asOf))
}

// sequence reads the id in the path; when it is none it has answered.
func (rm *room) sequence(c *gin.Context) (uint64, bool) {
	n, err := strconv.ParseUint(c.Param("id"), 10, 64)
	if err != nil || n == 0 {
		httpapi.WriteProblem(c.Writer, httpapi.Problem{
			Status: http.StatusBadRequest, Code: "invalid", Field: "id",
			Detail: "id: is not the id of a dead letter", Hint: "an id is a number, as GET /v1/dead-letters answers it",
		})
		return 0, false
	}
	return n, true
}

func (rm *room) letter(c *gin.Context) {
	sequence, ok := rm.sequence(c)
	if !ok {
		return
	}
	letter, err := rm.DeadLetters.Letter(c.Request.Context(), sequence)
	if err != nil {
		rm.fail(c, "reading a dead letter", err)
		return
	}
	httpapi.JSON(c, http.StatusOK, newLetterView(&letter, true))
}

func (rm *room) retryLetter(c *gin.Context) {
	sequence, ok := rm.sequence(c)
	if !ok {
		return
	}
	reason, err := readReason(c.Request)
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	letter, err := rm.DeadLetters.Retry(c.Request.Context(), sequence, rm.intent(c, reason))
	if err != nil {
		rm.fail(c, "retrying a dead letter", err)
		return
	}
	httpapi.JSON(c, http.StatusAccepted, newLetterView(&letter, false))
}

func (rm *room) dropLetter(c *gin.Context) {
	sequence, ok := rm.sequence(c)
	if !ok {
		return
	}
	q, err := httpapi.Query(c.Request, "reason")
	if err == nil {
		err = checkReason(q.Get("reason"))
	}
	if err == nil {
		err = rm.DeadLetters.Drop(c.Request.Context(), sequence, rm.intent(c, q.Get("reason")))
	}
	if err != nil {
		rm.fail(c, "dropping a dead letter", err)
		return
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
}
