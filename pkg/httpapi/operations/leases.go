package operations

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
)

// Lease is a lease that lives, as it is shown.
type Lease struct {
	Key         string    `json:"key"`
	Holder      string    `json:"holder"`
	OperationID string    `json:"operation_id,omitempty"`
	TaskID      string    `json:"task_id,omitempty"`
	RenewedAt   time.Time `json:"renewed_at"`
	// ExpiresAt is when it runs out unless it is renewed.
	ExpiresAt time.Time `json:"expires_at"`
}

// Leases are the leases that live. Break takes that of an operation or a task from its
// holder; it returns false when nobody holds it, and an *operation.InvalidError for one
// that is not to be broken.
type Leases interface {
	Leases(ctx context.Context) ([]Lease, error)
	Break(ctx context.Context, key string, by operation.Intent) (held bool, err error)
}

func (rm *room) leases(c *gin.Context) {
	now := rm.Now()
	all, err := rm.Leases.Leases(c.Request.Context())
	if err != nil {
		rm.fail(c, "listing leases", err)
		return
	}
	httpapi.JSON(c, http.StatusOK, newList(all, "", now))
}

func (rm *room) breakLease(c *gin.Context) {
	reason, err := readReason(c.Request)
	held := false
	if err == nil {
		held, err = rm.Leases.Break(c.Request.Context(), c.Param("key"), rm.intent(c, reason))
	}
	switch {
	case err != nil:
		rm.fail(c, "breaking a lease", err)
	case !held:
		httpapi.WriteProblem(c.Writer, httpapi.Problem{
			Status: http.StatusNotFound, Code: "no_such_lease",
			Detail: "nobody holds a lease of that key", Hint: "GET /v1/leases lists them",
		})
	default:
		c.Status(http.StatusNoContent)
	}
}
