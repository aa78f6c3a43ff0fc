package operations

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/doctor"
	"ringmaster/pkg/httpapi"
)

// Doctor examines the installation.
type Doctor interface {
	Examine(ctx context.Context) []doctor.Finding
}

// doctorView is what was found, and the gravest of it.
type doctorView struct {
	Status doctor.Status    `json:"status"`
	Checks []doctor.Finding `json:"checks"`
	AsOf   time.Time        `json:"as_of"`
}

func (rm *room) doctor(c *gin.Context) {
	v := doctorView{Status: doctor.OK, Checks: append([]doctor.Finding{}, rm.Doctor.Examine(c.Request.Context())...), AsOf: rm.Now().UTC()}
	for _, f := range v.Checks {
		if f.Status == doctor.Fail || f.Status == doctor.Warn && v.Status == doctor.OK {
			v.Status = f.Status
		}
	}
	// What was found is the answer, good or bad.
	httpapi.JSON(c, http.StatusOK, v)
}
