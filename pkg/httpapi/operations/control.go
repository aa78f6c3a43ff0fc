package operations

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
)

// Controls steer operations that exist. Each verb returns the operation as it is
// afterwards. The errors that are refusals are operation.ErrNotFound,
// *operation.StateError, *operation.OutdatedError, *operation.ScopeHeldError and
// *operation.FlaggedError.
type Controls interface {
	Approve(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)
	Pause(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)
	Resume(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)
	Cancel(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)
	Retry(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)
}

// verb is one of the Controls.
type verb func(ctx context.Context, id string, by operation.Intent) (operation.Operation, error)

// control answers a verb with the operation as it has become.
func (rm *room) control(name string, do verb) gin.HandlerFunc {
	return func(c *gin.Context) {
		id := c.Param("id")
		if !validID(id) {
			rm.noID(c)
			return
		}
		reason, err := readReason(c.Request)
		if err != nil {
			rm.fail(c, "", err)
			return
		}
		op, err := do(c.Request.Context(), id, rm.intent(c, reason))
		if err != nil {
			rm.fail(c, name+" of an operation", err)
			return
		}
		c.Header("Location", httpapi.Link(c.Request, location(id)))
		httpapi.JSON(c, http.StatusAccepted, view(c.Request, op, rm.Now()))
	}
}

// intent is who asks, from where and why.
func (rm *room) intent(c *gin.Context, reason string) operation.Intent {
	return operation.Intent{At: rm.Now().UTC(), Who: httpapi.Principal(c), Origin: c.ClientIP(), Reason: reason}
}

// readReason reads the body of a verb: none, or an object with a reason.
func readReason(r *http.Request) (string, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return "", err
		}
		return "", &operation.InvalidError{Field: "body", Problem: "broke off", Hint: "send it again"}
	}
	if len(body) == 0 {
		return "", nil
	}
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decode(body, &in, "the only key is reason"); err != nil {
		return "", err
	}
	return in.Reason, checkReason(in.Reason)
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return &operation.InvalidError{Field: "reason", Problem: "is too long", Hint: fmt.Sprintf("use at most %d bytes", maxReason)}
	}
	return nil
}
