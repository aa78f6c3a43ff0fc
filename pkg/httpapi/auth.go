package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"
)

// Principals of this release: whoever has the admin token, and whoever is on
// the same machine.
const (
	PrincipalAdmin = "admin"
	PrincipalLocal = "local"
)

const principalKey = "ringmaster.principal"

// AdminAuth decides who may use the native API in this release: whoever brings
// the admin token as a bearer, and, without any token, a client on the same
// machine. It is safe for concurrent use.
type AdminAuth struct {
	token [sha256.Size]byte
	none  bool
	cross *http.CrossOriginProtection
}

// NewAdminAuth returns the check for a token. With an empty token nobody but a
// local client gets in.
func NewAdminAuth(token string) *AdminAuth {
	return &AdminAuth{token: sha256.Sum256([]byte(token)), none: token == "", cross: http.NewCrossOriginProtection()}
}

// Check returns the principal of a request, or false. A token that is wrong is
// refused wherever it comes from.
func (a *AdminAuth) Check(r *http.Request) (string, bool) {
	if header := r.Header.Get("Authorization"); header != "" {
		if a.bearer(header) {
			return PrincipalAdmin, true
		}
		return "", false
	}
	if a.local(r) {
		return PrincipalLocal, true
	}
	return "", false
}

func (a *AdminAuth) bearer(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || a.none {
		return false
	}
	// Digests have one length, so the comparison tells nothing about the token's.
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

// local reports whether a person or a script on this machine is asking. A
// loopback connection alone does not say so: a reverse proxy on the machine
// forwards strangers, and a browser on it runs strangers' pages, under a name
// of theirs that resolves to loopback or from an origin of theirs.
func (a *AdminAuth) local(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Host"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	return localHost(r.Host) && a.cross.Check(r) == nil
}

func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Require is the middleware that lets only principals through.
func (a *AdminAuth) Require(c *gin.Context) {
	principal, ok := a.Check(c.Request)
	if !ok {
		c.Abort()
		c.Header("WWW-Authenticate", `Bearer realm="ringmaster"`)
		WriteProblem(c.Writer, Problem{
			Status: http.StatusUnauthorized, Code: "unauthorized",
			Detail: "this needs the admin token",
			Hint:   "send it as Authorization: Bearer TOKEN; it is in the file admin-token of the data directory",
		})
		return
	}
	c.Set(principalKey, principal)
}

// Principal returns who Require let through.
func Principal(c *gin.Context) string { return c.GetString(principalKey) }
