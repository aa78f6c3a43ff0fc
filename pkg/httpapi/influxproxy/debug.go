package influxproxy

import (
	"net/http"
	"net/http/pprof" // what it registers by itself is served nowhere
	profiles "runtime/pprof"
	"strings"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
)

// profiled lets through whoever may see profiles, which tell much about what a
// process does and make it work: those who have the credentials of the dialect or
// the admin's token. Where the configuration has no credentials, the rules of the
// native API hold: the token, or the machine itself.
func (rm *room) profiled(c *gin.Context) {
	if !rm.Pprof || rm.Admin == nil {
		c.Abort()
		fail(c, http.StatusNotFound, "404 page not found: this process has no profiles, pprof_enabled is not set")
		return
	}
	principal, ok := rm.Admin.Check(c.Request)
	if ok && (rm.auth.open || principal == httpapi.PrincipalAdmin) || !rm.auth.open && rm.auth.check(c.Request) {
		return
	}
	c.Abort()
	c.Header("WWW-Authenticate", `Basic realm="InfluxDB"`)
	fail(c, http.StatusUnauthorized, "authentication failed")
}

const profilesPath = "/debug/pprof/"

// profiles lists the profiles. The links of the list need the slash at the end of
// its path, which has been taken off the request on its way here.
func (rm *room) profiles(c *gin.Context) {
	if path, query, _ := strings.Cut(c.Request.RequestURI, "?"); !strings.HasSuffix(path, "/") {
		if query != "" {
			query = "?" + query
		}
		c.Redirect(http.StatusMovedPermanently, httpapi.Link(c.Request, profilesPath)+query)
		return
	}
	c.Request.URL.Path = profilesPath
	pprof.Index(c.Writer, c.Request)
}

// profile serves one profile; seconds says how long those that take their time
// look on.
func (rm *room) profile(c *gin.Context) {
	switch name := c.Param("profile"); name {
	case "cmdline":
		pprof.Cmdline(c.Writer, c.Request)
	case "profile":
		pprof.Profile(c.Writer, c.Request)
	case "symbol":
		pprof.Symbol(c.Writer, c.Request)
	case "trace":
		pprof.Trace(c.Writer, c.Request)
	default:
		if profiles.Lookup(name) == nil {
			fail(c, http.StatusNotFound, "404 page not found: there is no profile of this name")
			return
		}
		pprof.Handler(name).ServeHTTP(c.Writer, c.Request)
	}
}
