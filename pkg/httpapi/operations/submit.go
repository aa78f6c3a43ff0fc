package operations

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// maxReason bounds the reason of a request, in bytes.
const maxReason = 1000

// laterKinds are the kinds that API.md names and that have no command yet; a kind
// that has one answers for itself.
func laterKinds() []operation.Kind {
	return []operation.Kind{"archive", "restore", "index_action"}
}

// request is the body of POST /v1/operations.
type request struct {
	Kind       operation.Kind  `json:"kind"`
	Parameters json.RawMessage `json:"parameters"`
	DryRun     bool            `json:"dry_run"`
	Hold       bool            `json:"hold"`
	Limits     json.RawMessage `json:"limits"`
	Reason     string          `json:"reason"`
}

func (rm *room) submit(c *gin.Context) {
	r, err := rm.request(c)
	if err != nil {
		rm.fail(c, "reading a request", err)
		return
	}
	op, _, err := rm.Submitter.Submit(c.Request.Context(), r)
	if err != nil {
		rm.fail(c, "submitting an operation", ofParameters(err))
		return
	}
	c.Header("Location", httpapi.Link(c.Request, location(op.ID)))
	httpapi.JSON(c, http.StatusAccepted, view(c.Request, op, rm.Now()))
}

// request reads and checks everything that can be checked without starting
// anything. Its errors are refusals.
func (rm *room) request(c *gin.Context) (operation.Request, error) {
	var none operation.Request
	key, err := httpapi.IdempotencyKey(c.Request)
	if err != nil {
		return none, err
	}
	body, err := readBody(c.Request)
	if err != nil {
		return none, err
	}
	var in request
	if err := decode(body, &in, "the keys are kind, parameters, dry_run, hold, limits and reason"); err != nil {
		return none, err
	}
	if err := in.check(); err != nil {
		return none, err
	}
	limits, err := readLimits(in.Limits)
	if err != nil {
		return none, err
	}
	parameters, err := rm.parameters(in.Kind, in.Parameters)
	if err != nil {
		return none, ofParameters(err)
	}
	return operation.Request{
		Kind: in.Kind, Parameters: parameters, DryRun: in.DryRun, Hold: in.Hold, Limits: limits, Reason: in.Reason,
		IdempotencyKey: key, RequestedBy: httpapi.Principal(c), Origin: c.ClientIP(),
	}, nil
}

// check refuses what this release does not know or does not carry out.
func (in *request) check() error {
	switch {
	case in.Kind == "":
		return &operation.InvalidError{Field: "kind", Problem: "is missing", Hint: "GET /v1/kinds lists the kinds"}
	case !in.Kind.Valid() && !slices.Contains(laterKinds(), in.Kind):
		return &operation.InvalidError{Field: "kind", Problem: fmt.Sprintf("%.64q is not a kind", string(in.Kind)), Hint: "GET /v1/kinds lists the kinds"}
	case !in.Kind.Implemented():
		return &operation.NotImplementedError{What: string(in.Kind)}
	case in.Hold && in.DryRun:
		return &operation.InvalidError{Field: "hold", Problem: "is given beside dry_run", Hint: "a dry run only plans; use hold alone to plan, look and approve"}
	}
	return checkReason(in.Reason)
}

// readLimits reads the limits of a request, which may be none.
func readLimits(raw json.RawMessage) (limits operation.Limits, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return limits, nil
	}
	if err := decode(raw, &limits, "the keys are points_per_second, bytes_per_second and slots_per_backend"); err != nil {
		return limits, within("limits", err)
	}
	return limits, limits.Check("limits.")
}

// parameters checks the parameters of a kind, as far as the topology at hand can
// tell, and returns them in one form, so that equal requests are equal byte for
// byte.
func (rm *room) parameters(kind operation.Kind, raw json.RawMessage) (json.RawMessage, error) {
	move, err := operation.ParseMove(kind, raw)
	if err != nil {
		return nil, err
	}
	t := rm.Topology.Current()
	if t == nil {
		return nil, errNoTopology
	}
	switch p := move.(type) {
	case operation.Rebalance:
		err = errors.Join(unsealed(p.RemovedBackends), circleKnown(t, "circle_id", p.CircleID))
	case operation.Recovery:
		err = errors.Join(circleKnown(t, "from_circle_id", p.FromCircleID), circleKnown(t, "to_circle_id", p.ToCircleID))
	case operation.Clear:
		err = circleKnown(t, "circle_id", p.CircleID)
	}
	if err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(move)
	if err != nil {
		return nil, fmt.Errorf("writing parameters: %w", err)
	}
	return canonical, nil
}

// unsealed refuses the record's sealed form of credentials, which is nothing that
// a client may bring.
func unsealed(backends []operation.RemovedBackend) error {
	for i, b := range backends {
		if b.Sealed != "" {
			return &operation.InvalidError{
				Field: fmt.Sprintf("removed_backends[%d].sealed", i), Problem: "is not known",
				Hint: "give username and password",
			}
		}
	}
	return nil
}

func circleKnown(t *topology.Topology, field string, id int) error {
	if _, ok := t.Circle(id); ok {
		return nil
	}
	return &operation.InvalidError{
		Field: field, Problem: fmt.Sprintf("there is no circle %d", id),
		Hint: "GET /v1/topology lists the circles",
	}
}

// ofParameters names the field of a refusal as the body has it.
func ofParameters(err error) error {
	if invalid, ok := errors.AsType[*operation.InvalidError](err); ok && invalid.Field == "kind" {
		return err
	}
	return within("parameters", err)
}

// within names the field of a refusal of what stands under a key of the body.
func within(key string, err error) error {
	invalid, ok := errors.AsType[*operation.InvalidError](err)
	if !ok || invalid.Field == key {
		return err
	}
	inside := *invalid
	inside.Field = key + "." + invalid.Field
	if invalid.Field == "body" {
		inside.Field = key
	}
	return &inside
}

var errNoTopology = errors.New("no topology is known yet")

// decode reads one JSON object strictly; the error names the key that is wrong, and
// says which there are.
func decode(body []byte, into any, keys string) error {
	trimmed := bytes.TrimSpace(body)
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return &operation.InvalidError{Field: "body", Problem: "is not a JSON object", Hint: "send one; " + keys}
	}
	dec := json.NewDecoder(bytes.NewReader(trimmed))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return &operation.InvalidError{Field: "body", Problem: "has more after the object", Hint: "send one JSON object"}
	}
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return &operation.InvalidError{Field: wrongType.Field, Problem: "is a " + wrongType.Value, Hint: "use a " + wrongType.Type.String()}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return &operation.InvalidError{Field: strings.Trim(name, `"`), Problem: "is not known", Hint: keys}
	}
	return &operation.InvalidError{Field: "body", Problem: "is not valid JSON", Hint: err.Error()}
}
