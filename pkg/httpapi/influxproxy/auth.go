package influxproxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
)

// anonymous is the principal of an open dialect.
const anonymous = "anonymous"

// auth checks the one user of the configuration.
type auth struct {
	open               bool
	username, password [sha256.Size]byte
	cross              *http.CrossOriginProtection
}

func newAuth(username, password string) *auth {
	return &auth{
		open:     username == "" && password == "",
		username: sha256.Sum256([]byte(username)), password: sha256.Sum256([]byte(password)),
		cross: http.NewCrossOriginProtection(),
	}
}

// check reports whether a request brings the user in one of the ways that
// InfluxDB's clients have: u and p, Basic, or Token user:password.
func (a *auth) check(r *http.Request) bool {
	if a.open {
		return true
	}
	q := r.URL.Query()
	if q.Has("u") || q.Has("p") {
		if a.equal(q.Get("u"), q.Get("p")) {
			return true
		}
	}
	if u, p, ok := r.BasicAuth(); ok && a.equal(u, p) {
		return true
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Token "); ok {
		u, p, _ := strings.Cut(token, ":")
		return a.equal(u, p)
	}
	return false
}

// equal takes the same time whatever is given: digests have one length, and
// both are compared whatever the first comparison says.
func (a *auth) equal(username, password string) bool {
	u, p := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(u[:], a.username[:])&subtle.ConstantTimeCompare(p[:], a.password[:]) == 1
}

func (rm *room) require(c *gin.Context) {
	if rm.auth.check(c.Request) {
		return
	}
	c.Abort()
	c.Header("WWW-Authenticate", `Basic realm="InfluxDB"`)
	fail(c, http.StatusUnauthorized, "authentication failed")
}

// principal is who asked, for the audit trail.
func (rm *room) principal() string {
	if rm.auth.open {
		return anonymous
	}
	return rm.Username
}

// sameOrigin refuses a POST that a page of another site made a browser send;
// scripts send nothing that it looks at.
func (rm *room) sameOrigin(c *gin.Context) {
	if err := rm.auth.cross.Check(c.Request); err != nil {
		c.Abort()
		fail(c, http.StatusForbidden, "cross-origin request refused")
	}
}
