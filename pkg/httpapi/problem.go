package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ringmaster/pkg/operation"
)

// ProblemType is the content type of a Problem.
const ProblemType = "application/problem+json"

// Problem is an error as the native API tells it: RFC 9457 with a code for
// programs, and the field, the remedy and the operation where they apply.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Code is stable; Detail is for a person and may change.
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
	Hint   string `json:"hint,omitempty"`
	// OperationID is the operation that the problem is about, for a scope that
	// is held its holder.
	OperationID string  `json:"operation_id,omitempty"`
	Holder      *Holder `json:"holder,omitempty"`
}

// Holder describes the operation that holds a scope.
type Holder struct {
	Scope       string `json:"scope"`
	OperationID string `json:"operation_id"`
	// Kind, State, Since and AgeSeconds are absent when its record cannot be read.
	Kind       operation.Kind  `json:"kind,omitempty"`
	State      operation.State `json:"state,omitempty"`
	Since      time.Time       `json:"since,omitzero"`
	AgeSeconds *float64        `json:"age_seconds,omitempty"`
}

// WriteProblem answers with p as problem+json. A missing title is the status's
// own text.
func WriteProblem(w http.ResponseWriter, p Problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	// Strings, numbers and times: this cannot fail.
	body, _ := json.Marshal(p)
	w.Header().Set("Content-Type", ProblemType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// ProblemOf translates the refusals that every service shares. It reports
// false for an error that is not a refusal: the caller logs that one and
// answers Unavailable.
func ProblemOf(err error, now time.Time) (Problem, bool) {
	var (
		invalid *operation.InvalidError
		held    *operation.ScopeHeldError
		flagged *operation.FlaggedError
		missing *operation.NotImplementedError
		full    *operation.StoreFullError
		disk    *operation.DiskFullError
		state   *operation.StateError
		dated   *operation.OutdatedError
		letter  *operation.LetterError
		points  *operation.PointsRefusedError
		tooBig  *http.MaxBytesError
	)
	switch {
	case errors.As(err, &invalid):
		return Problem{
			Status: http.StatusBadRequest, Code: "invalid", Field: invalid.Field,
			Detail: invalid.Error(), Hint: invalid.Hint,
		}, true
	case errors.As(err, &held):
		return heldProblem(held, now), true
	case errors.As(err, &flagged):
		return Problem{Status: http.StatusConflict, Code: "flagged_by_hand", Detail: flagged.Error(), Hint: flagged.Hint()}, true
	case errors.As(err, &state):
		return Problem{Status: http.StatusConflict, Code: "state_conflict", Detail: state.Error(), Hint: state.Remedy, OperationID: state.ID}, true
	case errors.As(err, &dated):
		return Problem{Status: http.StatusConflict, Code: dated.Code, Detail: dated.Error(), Hint: dated.Hint(), OperationID: dated.ID}, true
	case errors.As(err, &full):
		return Problem{Status: http.StatusInsufficientStorage, Code: "store_full", Detail: full.Error(), Hint: full.Hint()}, true
	case errors.As(err, &disk):
		return Problem{Status: http.StatusInsufficientStorage, Code: "disk_full", Detail: disk.Error(), Hint: disk.Hint()}, true
	case errors.As(err, &missing):
		return Problem{Status: http.StatusNotImplemented, Code: "not_implemented", Detail: missing.Error()}, true
	case errors.As(err, &letter):
		return Problem{Status: http.StatusConflict, Code: "not_retriable", Detail: letter.Error(), Hint: "it stays where it is; DELETE /v1/dead-letters/{id} drops it"}, true
	case errors.As(err, &points):
		return pointsProblem(points), true
	case errors.Is(err, operation.ErrNoLetter):
		return Problem{
			Status: http.StatusNotFound, Code: "no_such_dead_letter",
			Detail: operation.ErrNoLetter.Error(), Hint: "GET /v1/dead-letters lists them",
		}, true
	case errors.Is(err, operation.ErrKeyReused):
		return Problem{
			Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused", Field: "Idempotency-Key",
			Detail: operation.ErrKeyReused.Error(), Hint: "use a new key for a new request",
		}, true
	case errors.Is(err, operation.ErrNotFound):
		return Problem{
			Status: http.StatusNotFound, Code: "no_such_operation",
			Detail: operation.ErrNotFound.Error(), Hint: "GET /v1/operations lists them",
		}, true
	case errors.As(err, &tooBig):
		return TooLarge(tooBig.Limit), true
	default:
		return Problem{}, false
	}
}

func heldProblem(held *operation.ScopeHeldError, now time.Time) Problem {
	holder := &Holder{Scope: held.Scope, OperationID: held.HolderID}
	if held.Described() {
		age := held.Age(now).Seconds()
		holder.Kind, holder.State, holder.Since, holder.AgeSeconds = held.Kind, held.State, held.Since.UTC(), &age
	}
	return Problem{
		Status: http.StatusConflict, Code: "scope_held",
		Detail:      fmt.Sprintf("%s is held by operation %s (%s)", held.Scope, held.HolderID, held.Holder(now)),
		Hint:        held.Hint(),
		OperationID: held.HolderID,
		Holder:      holder,
	}
}

// pointsProblem tells a refusal for good from one that may pass.
func pointsProblem(refused *operation.PointsRefusedError) Problem {
	p := Problem{
		Status: http.StatusUnprocessableEntity, Code: "points_refused", Detail: refused.Error(),
		Hint: "the letter is kept; mend what the refusal names, or drop the letter",
	}
	if refused.Status >= http.StatusInternalServerError {
		p.Status, p.Code, p.Hint = http.StatusConflict, "points_not_stored", "the letter is kept; try it again later"
	}
	return p
}

// Unavailable is the answer when the records cannot be reached: what was asked
// for may or may not have been recorded.
func Unavailable() Problem {
	return Problem{
		Status: http.StatusServiceUnavailable, Code: "unavailable",
		Detail: "the records cannot be reached at the moment",
		Hint:   "try again; a POST is safe to repeat with the same Idempotency-Key",
	}
}
