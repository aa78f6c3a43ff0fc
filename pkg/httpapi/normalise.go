package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// requestInfo is what normalisation took away from a request and handlers may
// still want to know.
type requestInfo struct {
	method string
	prefix string
	id     string
}

type requestInfoKey struct{}

func infoOf(r *http.Request) requestInfo {
	info, _ := r.Context().Value(requestInfoKey{}).(requestInfo)
	return info
}

// OriginalMethod is the method the client sent: HEAD where handlers see GET.
func OriginalMethod(r *http.Request) string {
	if m := infoOf(r).method; m != "" {
		return m
	}
	return r.Method
}

// RequestID is the id that the answer carries in X-Request-Id and that the log
// carries beside everything about the request.
func RequestID(r *http.Request) string { return infoOf(r).id }

// Link turns a path of this API into one that the client can follow: below the
// prefix that the request came in with.
func Link(r *http.Request, path string) string { return infoOf(r).prefix + path }

// ServeHTTP normalises the request once, for all dialects, and routes it.
//
// The prefix is cut off; a path outside it is nobody's. One or more trailing
// slashes are dropped. HEAD is answered like GET, and net/http drops the body.
// In the path, an encoded slash belongs to its segment and every other encoded
// character equals its plain form.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := requestInfo{method: r.Method, prefix: e.cfg.Prefix, id: r.Header.Get("X-Request-Id")}
	if !validRequestID(info.id) {
		info.id = e.cfg.NewRequestID()
	}
	w.Header().Set("X-Request-Id", info.id)
	w.Header().Set("X-Content-Type-Options", "nosniff")

	n := r.WithContext(context.WithValue(r.Context(), requestInfoKey{}, info))
	n.URL = new(url.URL)
	*n.URL = *r.URL
	if r.Method == http.MethodHead {
		n.Method = http.MethodGet
	}
	if !setPath(n.URL, r.URL.EscapedPath(), e.cfg.Prefix) {
		// It stays as it is; no dialect's routes can be meant.
		n.URL.Path, n.URL.RawPath = r.URL.Path, ""
		e.outside(w, n)
		return
	}
	e.gin.ServeHTTP(w, n)
}

// outside refuses a path that is not below the prefix, in the shape of the
// dialect that takes the rest.
func (e *Engine) outside(w http.ResponseWriter, r *http.Request) {
	e.dialectOf("").Refuse(w, r, Problem{
		Status: http.StatusNotFound, Code: "no_such_route",
		Detail: "everything is served below " + e.cfg.Prefix,
	})
}

// setPath puts the normalised form of an escaped path into u; it reports
// whether the path is below the prefix.
func setPath(u *url.URL, escaped, prefix string) bool {
	rest, ok := strings.CutPrefix(escaped, (&url.URL{Path: prefix}).EscapedPath())
	if !ok || rest != "" && rest[0] != '/' {
		return false
	}
	// More than one leading slash is not a path of ours.
	if strings.HasPrefix(rest, "//") {
		return false
	}
	rest = "/" + strings.Trim(rest, "/")
	segments := strings.Split(rest, "/")
	encodedSlash := false
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return false
		}
		encodedSlash = encodedSlash || strings.Contains(plain, "/")
		segments[i] = plain
	}
	u.Path, u.RawPath = strings.Join(segments, "/"), ""
	if encodedSlash {
		for i, s := range segments {
			segments[i] = url.PathEscape(s)
		}
		u.RawPath = strings.Join(segments, "/")
	}
	return true
}

// cleanPrefix returns a prefix with one leading and no trailing slash, or "".
func cleanPrefix(prefix string) (string, error) {
	trimmed := strings.Trim(prefix, "/")
	if trimmed == "" {
		return "", nil
	}
	for segment := range strings.SplitSeq(trimmed, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsAny(segment, "?#%*: ") {
			return "", fmt.Errorf("prefix %q is not a path such as /ringmaster", prefix)
		}
	}
	return "/" + trimmed, nil
}

// validRequestID admits what is safe to log and to send back.
func validRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}
