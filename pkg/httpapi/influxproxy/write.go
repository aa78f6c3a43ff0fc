package influxproxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/result"
)

// Writer stores what clients write. Its errors are *ingest.Refusal, except when the
// context has ended. It bounds what it reads of a body.
type Writer interface {
	Write(ctx context.Context, r ingest.Request) error
	// WritePrometheus is Write for a remote write request of Prometheus.
	WritePrometheus(ctx context.Context, r ingest.Request) error
}

// writeRoutes are the routes whose bodies the Writer bounds.
func writeRoutes() []string { return []string{"/write", "/api/v2/write", "/api/v1/prom/write"} }

func (rm *room) registerWrites(r gin.IRouter) {
	if rm.Writer == nil {
		return
	}
	g := r.Group("", rm.data)
	g.OPTIONS("/write", dataOptions)
	g = g.Group("", rm.requireInflux)
	g.POST("/write", rm.write)
	g.POST("/api/v2/write", rm.writeV2)
	g.POST("/api/v1/prom/write", rm.writePrometheus)
}

// write is InfluxDB's own call. A precision that it does not know is refused, and
// the points are stored as if they were in nanoseconds: so does InfluxDB.
func (rm *room) write(c *gin.Context) {
	q := c.Request.URL.Query()
	o := form(c, q.Get("pretty") == "true")
	precision, err := lineproto.ParsePrecision(q.Get("precision"))
	if err != nil {
		refuseInflux(c, o, http.StatusBadRequest, err.Error())
	}
	rm.store(c, o, q, ingest.Request{Database: q.Get("db"), RetentionPolicy: q.Get("rp"), Precision: precision}, rm.Writer.Write)
}

// writeV2 is the call that clients of InfluxDB 2 make.
func (rm *room) writeV2(c *gin.Context) {
	q := c.Request.URL.Query()
	o := form(c, q.Get("pretty") == "true")
	precision, err := lineproto.ParsePrecisionV2(q.Get("precision"))
	if err != nil {
		refuseInflux(c, o, http.StatusBadRequest, err.Error())
	}
	db, rp, err := bucket(q.Get("bucket"))
	if err != nil {
		refuseInflux(c, o, http.StatusNotFound, err.Error())
		return
	}
	rm.store(c, o, q, ingest.Request{Database: db, RetentionPolicy: rp, Precision: precision}, rm.Writer.Write)
}

// writePrometheus is what Prometheus calls as its remote write.
func (rm *room) writePrometheus(c *gin.Context) {
	q := c.Request.URL.Query()
	r := ingest.Request{Database: q.Get("db"), RetentionPolicy: q.Get("rp")}
	rm.store(c, form(c, q.Get("pretty") == "true"), q, r, rm.Writer.WritePrometheus)
}

// bucket is the database and the retention policy that a bucket stands for.
func bucket(name string) (db, rp string, err error) {
	db, rp, slash := strings.Cut(name, "/")
	switch {
	case db != "":
		return db, rp, nil
	case slash:
		return "", "", fmt.Errorf("bucket name %q is in db/rp form but has an empty database", name)
	default:
		return "", "", fmt.Errorf(`bucket name %q is missing a slash; not in "database/retention-policy" format`, name)
	}
}

// store has a request written and answers it.
func (rm *room) store(c *gin.Context, o result.Options, q url.Values, r ingest.Request, write func(context.Context, ingest.Request) error) {
	r.Consistency = q.Get("consistency")
	// A connection is a client: behind it may be many, but they wait for one another.
	r.Client = c.Request.RemoteAddr
	r.Body, r.Length = c.Request.Body, c.Request.ContentLength
	r.Gzip = c.GetHeader("Content-Encoding") == "gzip"
	err := write(c.Request.Context(), r)
	if err == nil {
		if !c.Writer.Written() {
			c.Status(http.StatusNoContent)
		}
		return
	}
	refusal, ok := errors.AsType[*ingest.Refusal](err)
	if !ok {
		// The client has gone, or this process ends: whoever still listens is told.
		if c.Request.Context().Err() == nil {
			httpapi.LogError(c.Request.Context(), rm.Logger, c.Request, "writing", err)
		}
		refuseInflux(c, o, http.StatusServiceUnavailable, "unavailable: the request has ended before every circle has answered; the points may already be stored")
		return
	}
	if refusal.RetryAfter > 0 {
		c.Header("Retry-After", strconv.Itoa(int((refusal.RetryAfter+999_999_999)/1_000_000_000)))
	}
	refuseInflux(c, o, refusal.Status, refusal.Message)
}
