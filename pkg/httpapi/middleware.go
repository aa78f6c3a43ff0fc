package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"
)

// observe writes the access log, and what handlers have reported with c.Error.
// Query strings stay out of it, since the
// influx-proxy dialect carries passwords in them.
func (e *Engine) observe(c *gin.Context) {
	start := e.cfg.Now()
	c.Next()
	for _, err := range c.Errors {
		LogError(c.Request.Context(), e.cfg.Logger, c.Request, "writing an answer", err.Err)
	}
	if !e.cfg.Logger.Enabled(c.Request.Context(), slog.LevelDebug) {
		return
	}
	e.cfg.Logger.LogAttrs(c.Request.Context(), slog.LevelDebug, "request",
		slog.String("request_id", RequestID(c.Request)),
		slog.String("method", OriginalMethod(c.Request)),
		slog.String("path", c.Request.URL.Path),
		slog.Int("status", c.Writer.Status()),
		slog.Int("bytes", max(c.Writer.Size(), 0)),
		slog.Duration("took", e.cfg.Now().Sub(start)),
		slog.String("client", c.ClientIP()),
	)
}

// recover turns a panic into a 500 of the dialect that says nothing about it;
// the log says everything. An answer that has begun is cut off instead, so that
// the client does not take it for whole.
func (e *Engine) recover(c *gin.Context) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(http.ErrAbortHandler)
		}
		e.cfg.Logger.ErrorContext(c.Request.Context(), "panic in a handler",
			"request_id", RequestID(c.Request), "method", OriginalMethod(c.Request),
			"path", c.Request.URL.Path, "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
		c.Abort()
		if c.Writer.Written() {
			panic(http.ErrAbortHandler)
		}
		e.refuse(c.Writer, c.Request, internalProblem(c.Request))
	}()
	c.Next()
}

// limitBody bounds what handlers can read of the body. A body that declares
// itself too large is refused at once; one that turns out to be makes the read
// fail with an *http.MaxBytesError.
func (e *Engine) limitBody(c *gin.Context) {
	if e.bodies[c.FullPath()] {
		c.Next()
		return
	}
	if c.Request.ContentLength > e.cfg.MaxBody {
		c.Abort()
		c.Header("Connection", "close")
		e.refuse(c.Writer, c.Request, TooLarge(e.cfg.MaxBody))
		return
	}
	if c.Request.Body != nil {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, e.cfg.MaxBody)
	}
	c.Next()
}

// TooLarge is the refusal of a body over the limit.
func TooLarge(limit int64) Problem {
	return Problem{
		Status: http.StatusRequestEntityTooLarge, Code: "body_too_large",
		Detail: fmt.Sprintf("the body is larger than %d bytes", limit),
	}
}

func internalProblem(r *http.Request) Problem {
	return Problem{
		Status: http.StatusInternalServerError, Code: "internal",
		Detail: "something went wrong here; the log has it under request id " + RequestID(r),
	}
}

// LogError reports an error that the client is not told the words of.
func LogError(ctx context.Context, log *slog.Logger, r *http.Request, doing string, err error) {
	log.ErrorContext(ctx, doing, "request_id", RequestID(r),
		"method", OriginalMethod(r), "path", r.URL.Path, "error", err)
}
