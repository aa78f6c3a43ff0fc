package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/operation"
)

// Bounds of a list's limit parameter.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// maxIdempotencyKey bounds an Idempotency-Key.
const maxIdempotencyKey = 255

// maxCursor bounds a cursor; every cursor this API hands out is shorter.
const maxCursor = 256

// Query reads the query string of a strict route: only the named parameters,
// each at most once. The error is an *operation.InvalidError.
func Query(r *http.Request, allowed ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &operation.InvalidError{Field: "query", Problem: "cannot be read", Hint: "percent-encode what is not a letter or a digit"}
	}
	for name, given := range values {
		switch {
		case !slices.Contains(allowed, name):
			hint := "this route takes no parameters"
			if len(allowed) > 0 {
				hint = "this route takes " + strings.Join(allowed, ", ")
			}
			return nil, &operation.InvalidError{Field: printable(name), Problem: "is not known", Hint: hint}
		case len(given) > 1:
			return nil, &operation.InvalidError{Field: name, Problem: "is given more than once", Hint: "give it once"}
		}
	}
	return values, nil
}

// NoQuery is the middleware of a strict route without parameters.
func NoQuery(c *gin.Context) {
	if _, err := Query(c.Request); err != nil {
		c.Abort()
		p, _ := ProblemOf(err, time.Time{})
		WriteProblem(c.Writer, p)
	}
}

// Page reads limit and cursor. The error is an *operation.InvalidError.
func Page(values url.Values) (limit int, cursor string, err error) {
	limit = DefaultLimit
	if text, given := values["limit"]; given {
		limit, err = strconv.Atoi(text[0])
		if err != nil || limit < 1 || limit > MaxLimit {
			return 0, "", &operation.InvalidError{
				Field: "limit", Problem: "is not a number that is allowed",
				Hint: fmt.Sprintf("use 1 to %d", MaxLimit),
			}
		}
	}
	cursor = values.Get("cursor")
	if len(cursor) > maxCursor {
		return 0, "", BadCursor()
	}
	return limit, cursor, nil
}

// Moment reads a parameter that is a time; zero when it is not given. The error is
// an *operation.InvalidError.
func Moment(values url.Values, name string) (time.Time, error) {
	if !values.Has(name) {
		return time.Time{}, nil
	}
	// A plus sign that was not percent-encoded arrives as a space.
	at, err := time.Parse(time.RFC3339Nano, strings.Replace(values.Get(name), " ", "+", 1))
	if err != nil || at.IsZero() {
		return time.Time{}, &operation.InvalidError{Field: name, Problem: "is not a time", Hint: "use RFC 3339, such as 2026-07-01T12:00:00Z"}
	}
	return at, nil
}

// IdempotencyKey reads the header that makes a POST safe to repeat; it is empty
// when there is none. The error is an *operation.InvalidError.
func IdempotencyKey(r *http.Request) (string, error) {
	const field = "Idempotency-Key"
	given := r.Header.Values(field)
	if len(given) == 0 {
		return "", nil
	}
	var problem string
	key := given[0]
	switch {
	case len(given) > 1:
		problem = "is given more than once"
	case key == "":
		problem = "is empty"
	case len(key) > maxIdempotencyKey:
		problem = "is too long"
	case strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }):
		problem = "has a character that is not printable ASCII"
	default:
		return key, nil
	}
	return "", &operation.InvalidError{
		Field: field, Problem: problem,
		Hint: fmt.Sprintf("use 1 to %d printable ASCII characters", maxIdempotencyKey),
	}
}

// BadCursor refuses a cursor that no answer ever contained.
func BadCursor() error {
	return &operation.InvalidError{Field: "cursor", Problem: "is not one that an answer contained", Hint: "leave it out to start over"}
}

// printable shortens what a client called something, so that it can be
// repeated to it.
func printable(name string) string {
	const most = 64
	if len(name) > most {
		name = name[:most] + "…"
	}
	return strings.ToValidUTF8(name, "?")
}
