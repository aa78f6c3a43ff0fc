package influxproxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/result"
)

// The data plane answers as InfluxDB does, not as influx-proxy: its headers, its
// refusals and their forms are those of 1.8.

// influxVersion is the server whose answers these are.
const (
	influxVersion = "1.8.3"
	influxBuild   = "OSS"
	buildHeader   = "X-Influxdb-Build"
	influxRealm   = `Basic realm="InfluxDB"`
)

// dataPaths are the paths of the data plane.
func dataPaths() []string {
	return []string{"/write", "/query", "/api/v2/write", "/api/v2/query", "/api/v1/prom/write", "/api/v1/prom/read"}
}

// isData reports whether a path belongs to the data plane.
func isData(path string) bool { return slices.Contains(dataPaths(), path) }

// refuseData writes what the engine refuses on a path of the data plane.
func refuseData(w http.ResponseWriter, p httpapi.Problem) {
	influxHeaders(w.Header())
	w.Header().Del("X-Request-Id")
	switch p.Status {
	case http.StatusNotFound:
		writeText(w, p.Status, "404 page not found")
	case http.StatusMethodNotAllowed:
		allowed := strings.Split(w.Header().Get("Allow"), ", ")
		allowed = slices.DeleteFunc(allowed, func(method string) bool { return method == http.MethodHead })
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeText(w, p.Status, "Method Not Allowed")
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		_, _ = w.Write(result.AppendError(nil, result.Options{}, p.Detail))
	}
}

func influxHeaders(h http.Header) {
	h.Set(versionHeader, influxVersion)
	h.Set(buildHeader, influxBuild)
}

// data opens every call of the data plane, as InfluxDB does: its headers, the
// request's id, and what browsers ask for.
func (rm *room) data(c *gin.Context) {
	h := c.Writer.Header()
	influxHeaders(h)
	h.Del("X-Content-Type-Options")
	id := c.GetHeader("X-Request-Id")
	if id == "" {
		id = c.GetHeader("Request-Id")
	}
	if id == "" {
		if made, err := uuid.NewUUID(); err == nil {
			id = made.String()
		} else {
			id = httpapi.RequestID(c.Request)
		}
	}
	h.Set("X-Request-Id", id)
	h.Set("Request-Id", id)
	if origin := c.GetHeader("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Methods", "DELETE, GET, OPTIONS, POST, PUT")
		h.Set("Access-Control-Allow-Headers", "Accept, Accept-Encoding, Authorization, Content-Length, Content-Type, X-CSRF-Token, X-HTTP-Method-Override")
		h.Set("Access-Control-Expose-Headers", "Date, X-InfluxDB-Version, X-InfluxDB-Build")
	}
}

// dataOptions answers OPTIONS.
func dataOptions(c *gin.Context) { c.Status(http.StatusOK) }

// form is in which form a request of the data plane wants its answer. The header
// that says so is set, whatever the answer will be.
func form(c *gin.Context, pretty bool) result.Options {
	format, contentType := result.Negotiate(c.Request.Header["Accept"])
	c.Writer.Header().Set("Content-Type", contentType)
	return result.Options{Format: format, Pretty: pretty}
}

// longestErrorHeader is what a header shows of a refusal.
const longestErrorHeader = 1024

// refuseInflux answers with a refusal of InfluxDB. After another one, which
// InfluxDB sometimes goes on from, it only adds its words.
func refuseInflux(c *gin.Context, o result.Options, status int, text string) {
	if status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", influxRealm)
	} else if !c.Writer.Written() {
		c.Header(errorHeader, printable(text[:min(len(text), longestErrorHeader)]))
	}
	if !c.Writer.Written() {
		c.Writer.WriteHeader(status)
	}
	_, _ = c.Writer.Write(result.AppendError(nil, o, text))
}

// printable is a text without the control characters that a header can't have:
// with them InfluxDB sends an answer that no client can read.
func printable(text string) string {
	plain := []byte(text)
	for i, b := range plain {
		if b < ' ' && b != '\n' && b != '\r' && b != '\t' || b == 0x7f {
			plain[i] = ' '
		}
	}
	return string(plain)
}

// requireInflux asks for the configuration's user in InfluxDB's words.
func (rm *room) requireInflux(c *gin.Context) {
	if rm.auth.check(c.Request) {
		return
	}
	c.Abort()
	q := c.Request.URL.Query()
	refuseInflux(c, form(c, q.Get("pretty") == "true"), http.StatusUnauthorized, whyUnauthorized(c.Request, q.Get("u"), q.Get("p")))
}

// whyUnauthorized is what InfluxDB says of credentials that it does not take.
func whyUnauthorized(r *http.Request, u, p string) string {
	const none, wrong = "unable to parse authentication credentials", "authorization failed"
	if u != "" && p != "" {
		return wrong
	}
	scheme, rest, two := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case two && scheme == "Bearer" && !strings.Contains(rest, " "):
		return "bearer auth disabled"
	case two && scheme == "Token" && strings.Contains(rest, ":") && !strings.Contains(rest, " "):
		if strings.HasPrefix(rest, ":") {
			return "username required"
		}
		return wrong
	}
	name, _, ok := r.BasicAuth()
	switch {
	case !ok:
		return none
	case name == "":
		return "username required"
	default:
		return wrong
	}
}
