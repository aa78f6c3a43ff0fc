package influxproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// verb is one of the calls that start a move.
type verb struct {
	kind operation.Kind
	// read reads the parameters that belong to the verb alone, in the order in
	// which influx-proxy checks them. It returns the move, and inside it what all
	// moves have in common, which is read afterwards. Its errors are refusals.
	read func(p params, t *topology.Topology) (move operation.Move, common *operation.Tuning, err error)
}

// verbs are the calls that start a move, by path.
func verbs() map[string]verb {
	cleaning := verb{operation.KindClear, readClear}
	return map[string]verb{
		"/rebalance": {operation.KindRebalance, readRebalance},
		"/recovery":  {operation.KindRecovery, readRecovery},
		"/resync":    {operation.KindResync, readResync},
		"/clear":     cleaning,
		"/cleanup":   cleaning,
	}
}

// start answers a call that starts a move: 202 once the operation is recorded.
// Whatever else it answers, nothing has been started.
func (rm *room) start(v verb) gin.HandlerFunc {
	return func(c *gin.Context) {
		t, p, ok := rm.opened(c)
		if !ok {
			return
		}
		move, r, err := v.request(p, t)
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
		op, _, err := rm.Submitter.Submit(c.Request.Context(), r)
		if err != nil {
			rm.refuseSubmit(c, move, t, err)
			return
		}
		pointTo(c, op.ID)
		sentence(c, http.StatusAccepted, "accepted")
	}
}

// maxReason bounds the reason of a request, in bytes, as the native API does.
const maxReason = 1000

// request reads what a call asks for: first what belongs to the verb, then what
// all have in common.
func (v verb) request(p params, t *topology.Topology) (operation.Move, operation.Request, error) {
	var none operation.Request
	draft, common, err := v.read(p, t)
	if err != nil {
		return nil, none, err
	}
	if *common, err = p.tuning(); err != nil {
		return nil, none, err
	}
	dryRun, err := p.flag("dry_run", errDryRun)
	if err != nil {
		return nil, none, err
	}
	hold, err := p.flag("hold", errHold)
	if err != nil {
		return nil, none, err
	}
	reason := p.get("reason")
	if len(reason) > maxReason {
		return nil, none, errReason
	}
	raw, err := json.Marshal(draft)
	if err != nil {
		return nil, none, errParameters
	}
	// The operation's own rules have the last word, in the dialect's words.
	move, err := operation.ParseMove(v.kind, raw)
	if err != nil {
		return nil, none, translate(err)
	}
	return move, operation.Request{Kind: v.kind, Parameters: raw, DryRun: dryRun, Hold: hold, Reason: reason}, nil
}

// translate says in the dialect's words which parameter the operation refused.
func translate(err error) error {
	var invalid *operation.InvalidError
	if !errors.As(err, &invalid) {
		return errParameters
	}
	switch name, _, _ := strings.Cut(invalid.Field, "["); name {
	case "circle_id", "from_circle_id", "to_circle_id", "operation", "depth":
		return refusal("invalid " + name)
	case "removed_backends":
		return errBackends
	case "backend_urls":
		return refusal("invalid backend_urls, " + invalid.Problem)
	case "workers":
		return errCPUs
	case "batch":
		return errBatch
	case "databases":
		return errDatabases
	case "since_seconds":
		return errSeconds
	case "since":
		return errSince
	case "hold":
		return errHoldTwice
	case "older_than_seconds":
		return errOlder
	default:
		return refusal(invalid.Error())
	}
}

// proxyBusy is the sentence for a resync, which holds every circle.
const proxyBusy = "proxy is resyncing"

// circleBusy is the sentence for a circle that something else is moving, in the
// words of the move that has to wait for it.
func circleBusy(m operation.Move, circle int) string {
	if p, ok := m.(operation.Recovery); ok {
		return fmt.Sprintf("circle %d or %d is migrating", p.FromCircleID, p.ToCircleID)
	}
	return fmt.Sprintf("circle %d is migrating", circle)
}

// held returns the sentence for an operation that is in the way of a move.
func held(h *operation.ScopeHeldError, m operation.Move, t *topology.Topology) string {
	if h.Kind == operation.KindResync {
		return proxyBusy
	}
	circles := m.Circles(len(t.Circles))
	for _, circle := range circles {
		if operation.CircleScope(circle) == h.Scope {
			return circleBusy(m, circle)
		}
	}
	return circleBusy(m, circles[0])
}

// refuseSubmit answers an error of Submit.
func (rm *room) refuseSubmit(c *gin.Context, m operation.Move, t *topology.Topology, err error) {
	var (
		holder  *operation.ScopeHeldError
		flagged *operation.FlaggedError
		invalid *operation.InvalidError
		later   *operation.NotImplementedError
		full    *operation.StoreFullError
		disk    *operation.DiskFullError
	)
	switch {
	case errors.As(err, &holder):
		busy := held(holder, m, t)
		pointTo(c, holder.HolderID)
		c.Header(errorHeader, busy)
		sentence(c, http.StatusConflict, busy+"\noperation "+holder.HolderID+"\n"+holder.Holder(rm.Now()))
	case errors.As(err, &flagged) && flagged.Resyncing:
		fail(c, http.StatusConflict, proxyBusy)
	case errors.As(err, &flagged):
		fail(c, http.StatusConflict, circleBusy(m, flagged.Circle))
	case errors.As(err, &invalid):
		refuseWith(c, translate(err))
	case errors.As(err, &later):
		fail(c, http.StatusNotImplemented, later.Error())
	case errors.As(err, &full):
		fail(c, http.StatusInsufficientStorage, full.Error())
	case errors.As(err, &disk):
		fail(c, http.StatusInsufficientStorage, disk.Error())
	case errors.Is(err, operation.ErrKeyReused):
		fail(c, http.StatusUnprocessableEntity, operation.ErrKeyReused.Error())
	default:
		rm.unavailable(c, "submitting an operation", err)
	}
}

// pointTo says in the headers which operation an answer is about.
func pointTo(c *gin.Context, id string) {
	c.Header(operationHeader, id)
	c.Header("Location", httpapi.Link(c.Request, "/v1/operations/"+id))
}

// asOf formats a moment as the dialect's header has it.
func asOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
