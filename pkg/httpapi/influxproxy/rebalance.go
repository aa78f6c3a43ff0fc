package influxproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// removedBackend is a backend as the body of a rebalance names it: an entry of
// influx-proxy's configuration.
type removedBackend struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
	// AuthEncrypt says that username and password are encrypted as in the
	// configuration file (2.5).
	AuthEncrypt bool `json:"auth_encrypt"`
	WriteOnly   bool `json:"write_only"`
}

func (rm *room) rebalance(c *gin.Context) {
	t, ok := rm.current(c)
	if !ok {
		return
	}
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
		return
	}
	circle, r, err := rebalanceRequest(p, t)
	if err != nil {
		refuseWith(c, err)
		return
	}
	// The header is no part of the original dialect.
	if r.IdempotencyKey, err = httpapi.IdempotencyKey(c.Request); err != nil {
		refuseWith(c, errIdempotency)
		return
	}
	r.RequestedBy, r.Origin = rm.principal(), c.ClientIP()
	// A plan without a run disturbs nobody, so nothing is in its way.
	if !r.DryRun {
		busy, err := rm.flagged(c, circle.ID)
		if err != nil {
			rm.unavailable(c, "reading the flags", err)
			return
		}
		if busy != "" {
			fail(c, http.StatusConflict, busy)
			return
		}
	}
	op, _, err := rm.Submitter.Submit(c.Request.Context(), r)
	if err != nil {
		rm.refuseSubmit(c, circle.ID, err)
		return
	}
	c.Header(operationHeader, op.ID)
	c.Header("Location", httpapi.Link(c.Request, "/v1/operations/"+op.ID))
	sentence(c, http.StatusAccepted, "accepted")
}

// rebalanceRequest checks the parameters in the order influx-proxy does.
func rebalanceRequest(p params, t *topology.Topology) (*topology.Circle, operation.Request, error) {
	var none operation.Request
	circle, err := p.circle("circle_id", t)
	if err != nil {
		return nil, none, err
	}
	move := operation.Rebalance{CircleID: circle.ID, Operation: operation.RebalanceMode(p.get("operation"))}
	switch move.Operation {
	case operation.RebalanceAdd:
	case operation.RebalanceRemove:
		if move.RemovedBackends, err = removedBackends(p.body); err != nil {
			return nil, none, err
		}
	default:
		return nil, none, errOperation
	}
	if move.Workers, err = p.workers(); err != nil {
		return nil, none, err
	}
	if err := p.tuning(); err != nil {
		return nil, none, err
	}
	if move.Databases, err = p.list("db", "dbs"); err != nil {
		return nil, none, err
	}
	dryRun, err := p.flag("dry_run", errDryRun)
	if err != nil {
		return nil, none, err
	}
	raw, err := json.Marshal(move)
	if err != nil {
		return nil, none, errBackends
	}
	// The operation's own rules have the last word, in the dialect's words.
	if _, err := operation.ParseRebalance(raw); err != nil {
		return nil, none, translate(err)
	}
	return circle, operation.Request{Kind: operation.KindRebalance, Parameters: raw, DryRun: dryRun}, nil
}

// removedBackends reads the body of operation rm: at least one backend, no key
// that is not known.
func removedBackends(body []byte) ([]operation.RemovedBackend, error) {
	var in struct {
		Backends []removedBackend `json:"backends"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, errBackends
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) || len(in.Backends) == 0 {
		return nil, errBackends
	}
	out := make([]operation.RemovedBackend, len(in.Backends))
	for i, b := range in.Backends {
		if b.AuthEncrypt {
			var failed [2]error
			b.Username, failed[0] = topology.DecryptCredential(topology.CipherKey, b.Username)
			b.Password, failed[1] = topology.DecryptCredential(topology.CipherKey, b.Password)
			if errors.Join(failed[:]...) != nil {
				return nil, errBackends
			}
		}
		out[i] = operation.RemovedBackend{Name: b.Name, URL: b.URL, Username: b.Username, Password: b.Password}
	}
	return out, nil
}

// translate says in the dialect's words which parameter the operation refused.
func translate(err error) error {
	var invalid *operation.InvalidError
	if !errors.As(err, &invalid) {
		return errParameters
	}
	switch name, _, _ := strings.Cut(invalid.Field, "["); name {
	case "circle_id":
		return errCircle
	case "operation":
		return errOperation
	case "removed_backends":
		return errBackends
	case "workers":
		return errCPUs
	case "databases":
		return errDatabases
	default:
		return refusal(invalid.Error())
	}
}

// flagged returns the sentence for what a person has set by hand, or "".
func (rm *room) flagged(c *gin.Context, circle int) (string, error) {
	migrating, resyncing, err := rm.Flags.Flags(c.Request.Context())
	switch {
	case err != nil:
		return "", err
	case slices.Contains(migrating, circle):
		return circleBusy(circle), nil
	case resyncing:
		return proxyBusy, nil
	default:
		return "", nil
	}
}

// refuseSubmit answers an error of Submit.
func (rm *room) refuseSubmit(c *gin.Context, circle int, err error) {
	var (
		held    *operation.ScopeHeldError
		invalid *operation.InvalidError
		later   *operation.NotImplementedError
	)
	switch {
	case errors.As(err, &held):
		busy := circleBusy(circle)
		if held.Kind == operation.KindResync {
			busy = proxyBusy
		}
		c.Header(operationHeader, held.HolderID)
		c.Header("Location", httpapi.Link(c.Request, "/v1/operations/"+held.HolderID))
		c.Header(errorHeader, busy)
		sentence(c, http.StatusConflict, busy+"\noperation "+held.HolderID)
	case errors.As(err, &invalid):
		refuseWith(c, translate(err))
	case errors.As(err, &later):
		fail(c, http.StatusNotImplemented, later.Error())
	case errors.Is(err, operation.ErrKeyReused):
		fail(c, http.StatusUnprocessableEntity, operation.ErrKeyReused.Error())
	default:
		rm.unavailable(c, "submitting an operation", err)
	}
}

// asOf formats a moment as the dialect's header has it.
func asOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
