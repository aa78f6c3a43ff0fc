package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"ringmaster/pkg/operation"
)

// problemError is a refusal of the server, as RFC 9457 has it.
type problemError struct {
	Title       string  `json:"title"`
	Status      int     `json:"status"`
	Code        string  `json:"code"`
	Detail      string  `json:"detail"`
	Field       string  `json:"field"`
	Hint        string  `json:"hint"`
	OperationID string  `json:"operation_id"`
	Holder      *holder `json:"holder"`

	// raw is the problem as JSON.
	raw []byte
}

// holder is the operation that is in the way.
type holder struct {
	Scope      string  `json:"scope"`
	Kind       string  `json:"kind"`
	State      string  `json:"state"`
	AgeSeconds float64 `json:"age_seconds"`
}

// verb is what lets it go on; to watch it where it goes on by itself.
func (h *holder) verb() string {
	switch {
	case h == nil:
		return "watch"
	case h.State == string(operation.Paused):
		return "resume"
	case h.State == string(operation.AwaitingApproval):
		return "approve"
	default:
		return "watch"
	}
}

// newProblem reads what a server answers that has refused. Something between may
// have answered in its place.
func newProblem(res *http.Response, body []byte) *problemError {
	p := &problemError{}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "application/problem+json" && json.Unmarshal(body, p) == nil && p.Detail != "" {
		p.Status, p.raw = res.StatusCode, bytes.TrimSpace(body)
		return p
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	p = &problemError{
		Title: http.StatusText(res.StatusCode), Status: res.StatusCode, Code: "not_ringmaster",
		Detail: fmt.Sprintf("answered %d %s: %.200s", res.StatusCode, http.StatusText(res.StatusCode), first),
		Hint:   "this is not an answer of Ringmaster's native API; see whether the address and its prefix are right",
	}
	// Strings and a number: this cannot fail.
	p.raw, _ = json.Marshal(map[string]any{"title": p.Title, "status": p.Status, "code": p.Code, "detail": p.Detail, "hint": p.Hint})
	return p
}

// Error says what is wrong and what to do about it.
func (p *problemError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d %s)", p.Detail, p.Status, p.Code)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "\n  %s: %s", name, text)
		}
	}
	line("field", p.Field)
	if h := p.Holder; h != nil {
		line("holder", fmt.Sprintf("%s, which is %s and was submitted %s ago, holds %s", h.Kind, h.State, seconds(h.AgeSeconds), h.Scope))
	}
	line("hint", p.Hint)
	line("next", p.next())
	return b.String()
}

// next is the command that helps on.
func (p *problemError) next() string {
	switch p.Code {
	case "unauthorized":
		return "give --token or --token-file, or --data DIR on the api's own host"
	case "scope_held":
		return fmt.Sprintf("ringctl ops %s %s, or ringctl ops cancel %s", p.Holder.verb(), p.OperationID, p.OperationID)
	case "state_conflict", "no_plan", "no_report":
		return "ringctl ops get " + p.OperationID
	case "no_such_operation":
		return "ringctl ops list"
	case "no_such_lease":
		return "ringctl leases list"
	case "no_such_dead_letter":
		return "ringctl dead-letters list"
	case "not_implemented":
		return "ringctl health says which release the api is of"
	case "idempotency_key_reused":
		return "leave --idempotency-key out to have a new one made"
	}
	return ""
}
