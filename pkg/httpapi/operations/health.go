package operations

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
)

// checkTimeout bounds readiness: an orchestrator's probe waits a second or two.
const checkTimeout = 2 * time.Second

// The two states of a part, and of the whole.
const (
	statusOK     = "ok"
	statusFailed = "failed"
)

type checkView struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	// Error is shown only to those who may use the native API.
	Error string `json:"error,omitempty"`
}

type readyView struct {
	Status string      `json:"status"`
	Checks []checkView `json:"checks"`
	AsOf   time.Time   `json:"as_of"`
}

func (rm *room) alive(c *gin.Context) {
	httpapi.JSON(c, http.StatusOK, gin.H{"status": statusOK})
}

func (rm *room) ready(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), checkTimeout)
	defer cancel()
	_, insider := rm.Auth.Check(c.Request)

	v := readyView{Status: statusOK, Checks: make([]checkView, len(rm.Checks)), AsOf: rm.Now().UTC()}
	var wg sync.WaitGroup
	for i, check := range rm.Checks {
		wg.Go(func() {
			v.Checks[i] = checkView{Name: check.Name, Status: statusOK}
			if err := check.Run(ctx); err != nil {
				v.Checks[i].Status = statusFailed
				if insider {
					v.Checks[i].Error = err.Error()
				}
			}
		})
	}
	wg.Wait()

	status := http.StatusOK
	for _, check := range v.Checks {
		if check.Status != statusOK {
			v.Status, status = statusFailed, http.StatusServiceUnavailable
		}
	}
	httpapi.JSON(c, status, v)
}

func (rm *room) metrics(c *gin.Context) { rm.Metrics.ServeHTTP(c.Writer, c.Request) }
