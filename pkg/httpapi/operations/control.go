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
	// SetLimits is refused with an *operation.InvalidError, too.
	SetLimits(ctx context.Context, id string, change operation.LimitsPatch, by operation.Intent) (operation.Operation, error)
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
		rm.steered(c, name+" of an operation", op, err)
	}
}

// steered answers with the operation as it has become.
func (rm *room) steered(c *gin.Context, doing string, op operation.Operation, err error) {
	if err != nil {
		rm.fail(c, doing, err)
		return
	}
	c.Header("Location", httpapi.Link(c.Request, location(op.ID)))
	httpapi.JSON(c, http.StatusAccepted, view(c.Request, op, rm.Now()))
}

// setLimits changes the limits of an operation.
func (rm *room) setLimits(c *gin.Context) {
	id := c.Param("id")
	if !validID(id) {
		rm.noID(c)
		return
	}
	// The same keys side by side, so that a mistake is named by its key alone.
	var in struct {
		PointsPerSecond operation.LimitChange `json:"points_per_second"`
		BytesPerSecond  operation.LimitChange `json:"bytes_per_second"`
		SlotsPerBackend operation.LimitChange `json:"slots_per_backend"`
		Reason          string                `json:"reason"`
	}
	body, err := readBody(c.Request)
	if err == nil {
		err = decode(body, &in, "the keys are points_per_second, bytes_per_second, slots_per_backend and reason")
	}
	if err == nil {
		err = checkReason(in.Reason)
	}
	patch := operation.LimitsPatch{PointsPerSecond: in.PointsPerSecond, BytesPerSecond: in.BytesPerSecond, SlotsPerBackend: in.SlotsPerBackend}
	if err == nil {
		err = patch.Check()
	}
	if err != nil {
		rm.fail(c, "", err)
		return
	}
	op, err := rm.Controls.SetLimits(c.Request.Context(), id, patch, rm.intent(c, in.Reason))
	rm.steered(c, "changing the limits of an operation", op, err)
}

// intent is who asks, from where and why.
func (rm *room) intent(c *gin.Context, reason string) operation.Intent {
	return operation.Intent{At: rm.Now().UTC(), Who: httpapi.Principal(c), Origin: c.ClientIP(), Reason: reason}
}

// readReason reads the body of a verb: none, or an object with a reason.
func readReason(r *http.Request) (string, error) {
	body, err := readBody(r)
	if err != nil || len(body) == 0 {
		return "", err
	}
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decode(body, &in, "the only key is reason"); err != nil {
		return "", err
	}
	return in.Reason, checkReason(in.Reason)
}

// readBody reads a body whose size the engine bounds.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		return body, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, err
	}
	return nil, &operation.InvalidError{Field: "body", Problem: "broke off", Hint: "send it again"}
}

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return &operation.InvalidError{Field: "reason", Problem: "is too long", Hint: fmt.Sprintf("use at most %d bytes", maxReason)}
	}
	return nil
}
