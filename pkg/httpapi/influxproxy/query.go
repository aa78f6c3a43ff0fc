package influxproxy

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/gateway/query"
	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/prom"
	"ringmaster/pkg/result"
)

// Querier runs what clients ask. An error that wraps query.ErrAborted is an answer
// that was cut off; after any other one nothing has been answered. A *query.RefusalError
// and a *query.SpansError say what to answer.
type Querier interface {
	Serve(ctx context.Context, w query.Reply, q *query.Request) error
	Hand(ctx context.Context, w query.Reply, h *query.Handed) error
	ReadProm(ctx context.Context, w query.Reply, h *query.Handed, read *prom.Read, database string) error
}

// DefaultMaxQueryBody bounds the body of a query: InfluxDB takes no larger form.
const DefaultMaxQueryBody = 10 << 20

// queryRoutes are the routes whose bodies are bounded here.
func queryRoutes() []string { return []string{"/query", "/api/v2/query", "/api/v1/prom/read"} }

func (rm *room) registerQueries(r gin.IRouter) {
	if rm.Querier == nil {
		return
	}
	g := r.Group("", rm.data)
	g.OPTIONS("/query", dataOptions)
	g = g.Group("", rm.requireInflux)
	g.GET("/query", rm.query)
	g.POST("/query", rm.query)
	g.POST("/api/v2/query", rm.queryFlux)
	g.POST("/api/v1/prom/read", rm.readProm)
}

// query is InfluxDB's own call. InfluxDB does not answer HEAD.
func (rm *room) query(c *gin.Context) {
	if httpapi.OriginalMethod(c.Request) == http.MethodHead {
		c.Header("Allow", "OPTIONS, GET, POST")
		c.Writer.Header().Del("Request-Id")
		refuseData(c.Writer, httpapi.Problem{Status: http.StatusMethodNotAllowed})
		return
	}
	pretty := c.Request.URL.Query().Get("pretty") == "true"
	o := form(c, pretty)
	values, file := rm.queryForm(c)
	text := strings.TrimSpace(values.Get("q"))
	if text == "" {
		text = file
	}
	if text == "" {
		refuseInflux(c, o, http.StatusBadRequest, `missing required parameter "q"`)
		return
	}
	q := &query.Request{
		Text: text, Database: values.Get("db"), RetentionPolicy: values.Get("rp"), Params: values.Get("params"),
		Epoch: strings.TrimSpace(values.Get("epoch")), Pretty: pretty, Chunked: values.Get("chunked") == "true",
		Async: values.Get("async") == "true", ReadOnly: c.Request.Method == http.MethodGet,
		Values: values, Header: rm.handedHeader(c), Client: c.ClientIP(),
	}
	if n, err := strconv.ParseInt(values.Get("chunk_size"), 10, 64); err == nil && n > 0 {
		q.ChunkSize = int(n)
	}
	rm.served(c, o, rm.Querier.Serve(c.Request.Context(), c.Writer, q))
}

// handedHeader is the client's header with the ids that its answer has, which those
// that backends give are to have too.
func (rm *room) handedHeader(c *gin.Context) http.Header {
	h := c.Request.Header.Clone()
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		h.Set(name, c.Writer.Header().Get(name))
	}
	return h
}

// served ends a request by what has become of it.
func (rm *room) served(c *gin.Context, o result.Options, err error) {
	if err == nil {
		return
	}
	ctx := c.Request.Context()
	if errors.Is(err, query.ErrAborted) || c.Writer.Written() || ctx.Err() != nil {
		if ctx.Err() == nil {
			httpapi.LogError(ctx, rm.Logger, c.Request, "answering a query", err)
		}
		panic(http.ErrAbortHandler)
	}
	status := http.StatusServiceUnavailable
	if refusal, is := errors.AsType[*query.RefusalError](err); is {
		status = refusal.Status
	} else if _, spans := errors.AsType[*query.SpansError](err); spans {
		status = http.StatusBadRequest
	}
	if status == http.StatusServiceUnavailable {
		c.Header("Retry-After", "1")
	}
	refuseInflux(c, o, status, err.Error())
}

// maxQueryBody bounds a body.
func (rm *room) maxQueryBody() int64 {
	if rm.MaxQueryBody > 0 {
		return rm.MaxQueryBody
	}
	return DefaultMaxQueryBody
}

// queryForm reads the parameters as InfluxDB does, one value each: what can't be
// read is left out, and so is a form that is too large. file is the part q of a
// multipart form that is a file.
func (rm *room) queryForm(c *gin.Context) (values url.Values, file string) {
	r := c.Request
	media, attributes, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var body []byte
	if err == nil {
		body, err = readBody(c, rm.maxQueryBody())
	}
	inQuery, _ := url.ParseQuery(r.URL.RawQuery)
	sources := []url.Values{inQuery} // the later ones count; what can't be read does not
	switch {
	case err != nil:
	case media == "application/x-www-form-urlencoded" && r.Method == http.MethodPost:
		inBody, _ := url.ParseQuery(string(body))
		sources = append(sources, inBody)
	case media == "multipart/form-data":
		var inBody url.Values
		inBody, file = parts(attributes["boundary"], body)
		sources = []url.Values{inBody, inQuery}
	}
	values = url.Values{}
	for _, from := range sources {
		for name, given := range from {
			// Credentials are the gateway's own matter.
			if len(given) > 0 && name != "u" && name != "p" {
				values[name] = given[:1]
			}
		}
	}
	return values, file
}

// parts reads a multipart form, and its file q.
func parts(boundary string, body []byte) (values url.Values, file string) {
	values = url.Values{}
	reader := multipart.NewReader(strings.NewReader(string(body)), boundary)
	for range maxParts {
		part, err := reader.NextPart()
		if err != nil {
			return values, file
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return values, file
		}
		switch {
		case part.FileName() == "":
			values.Add(part.FormName(), string(content))
		case part.FormName() == "q" && file == "":
			file = string(content)
		}
	}
	return values, file
}

// readBody reads a body of at most so many bytes.
func readBody(c *gin.Context, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, most))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, err
	}
	return body, nil // or what has come of it, from a client that has gone
}
