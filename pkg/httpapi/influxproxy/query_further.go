package influxproxy

import (
	"encoding/json"
	"errors"
	"maps"
	"mime"
	"net/http"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/flux"
	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/prom"
	"ringmaster/pkg/result"
)

// queryFlux hands a Flux script to the backend that owns what it reads. Whether
// Flux is served at all, and what is wrong with a request, the backend says.
func (rm *room) queryFlux(c *gin.Context) {
	o := form(c, c.Request.URL.Query().Get("pretty") == "true")
	h, ok := rm.handed(c, o)
	if !ok {
		return
	}
	script := fluxText(c.Request.Header.Get("Content-Type"), h.Body)
	analysed := flux.Analyse(script)
	h.Text = script
	for _, s := range analysed.Sources {
		db, _, err := bucket(s.Bucket)
		if err != nil {
			db = ""
		}
		if s.Measurements == nil {
			h.Sources = append(h.Sources, query.Source{Database: db})
		}
		for _, m := range s.Measurements {
			if db == "" {
				m = "" // of a bucket that is not known
			}
			h.Sources = append(h.Sources, query.Source{Database: db, Measurement: m})
		}
	}
	refusal := ""
	if analysed.Writes {
		refusal = "to() would write to one backend, past the others: write by /api/v2/write"
	}
	rm.serveFlux(c, o, h, refusal)
}

// serveFlux hands a script on, or refuses it where Flux is served.
func (rm *room) serveFlux(c *gin.Context, o result.Options, h *query.Handed, refusal string) {
	ctx := c.Request.Context()
	if refusal == "" {
		err := rm.Querier.Hand(ctx, c.Writer, h)
		spans, is := errors.AsType[*query.SpansError](err)
		if !is {
			rm.served(c, o, err)
			return
		}
		refusal = "a Flux script is run by one backend: " + spans.Reason
	}
	// A backend that does not serve Flux says that of everything.
	empty := *h
	empty.Sources, empty.Body = nil, []byte{}
	answer := &withheld{header: http.Header{}}
	if err := rm.Querier.Hand(ctx, answer, &empty); err == nil && answer.status == http.StatusForbidden {
		maps.Copy(c.Writer.Header(), answer.header)
		c.Writer.WriteHeader(answer.status)
		_, _ = c.Writer.Write(answer.body)
		return
	}
	refuseInflux(c, o, http.StatusBadRequest, refusal)
}

// withheld is an answer that is looked at first.
type withheld struct {
	header http.Header
	status int
	body   []byte
}

func (a *withheld) Header() http.Header    { return a.header }
func (a *withheld) WriteHeader(status int) { a.status = status }

func (a *withheld) Write(p []byte) (int, error) {
	const most = 64 << 10 // it is a sentence
	if len(a.body)+len(p) <= most {
		a.body = append(a.body, p...)
	}
	return len(p), nil
}

// fluxText is the script of a request, "" if there is none.
func fluxText(contentType string, body []byte) string {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return ""
	case media == "application/vnd.flux":
		return string(body)
	}
	var request struct {
		Query string `json:"query"`
	}
	if json.Unmarshal(body, &request) != nil {
		return ""
	}
	return request.Query
}

// maxPromRead bounds a remote read's request once it is not compressed.
const maxPromRead = 32 << 20

// readProm answers a Prometheus remote read.
func (rm *room) readProm(c *gin.Context) {
	o := form(c, c.Request.URL.Query().Get("pretty") == "true")
	h, ok := rm.handed(c, o)
	if !ok {
		return
	}
	read, err := prom.DecodeRead(h.Body, maxPromRead)
	if err != nil {
		refuseInflux(c, o, http.StatusBadRequest, err.Error())
		return
	}
	h.Text = "prometheus remote read"
	rm.served(c, o, rm.Querier.ReadProm(c.Request.Context(), c.Writer, h, read, c.Request.URL.Query().Get("db")))
}

// handed reads a request that is handed on; it answers one that is too large.
func (rm *room) handed(c *gin.Context, o result.Options) (*query.Handed, bool) {
	body, err := readBody(c, rm.maxQueryBody())
	if err != nil {
		refuseInflux(c, o, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return nil, false
	}
	values := c.Request.URL.Query()
	values.Del("u")
	values.Del("p")
	return &query.Handed{
		Method: http.MethodPost, Path: c.Request.URL.Path, Query: values.Encode(), Header: rm.handedHeader(c), Body: body, Client: c.ClientIP(),
	}, true
}
