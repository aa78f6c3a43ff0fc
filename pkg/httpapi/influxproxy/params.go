package influxproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// refusal is a 400 in the dialect's words.
type refusal string

func (r refusal) Error() string { return string(r) }

// The sentences of influx-proxy.
const (
	errOperation  refusal = "invalid operation"
	errBackends   refusal = "invalid backends from body"
	errSameCircle refusal = "from_circle_id and to_circle_id cannot be same"
	errSeconds    refusal = "invalid days, hours, minutes or seconds"
	errTick       refusal = "invalid tick, require non-negative integer"
	errCPUs       refusal = "invalid cpus"
	errWorker     refusal = "invalid worker, require positive integer"
	errBatch      refusal = "invalid batch, require positive integer"
	errLimit      refusal = "invalid limit, require positive integer"
	errHaAddrs    refusal = "invalid ha_addrs"
	errHaTooFew   refusal = "ha_addrs should contain two addrs at least"
	errStatsType  refusal = "invalid stats type"
	errResyncing  refusal = "illegal resyncing"
	errMigrating  refusal = "illegal migrating"
	errTransfer   refusal = "illegal transferring"
	errNothing    refusal = "missing query parameter"
	errReplica    refusal = "invalid db or meas"
	errKey        refusal = "invalid key"
)

// The sentences for what influx-proxy does not have or takes as it comes.
const (
	errSince       refusal = "invalid since, require non-negative integer"
	errSinceTwice  refusal = "invalid since, cannot be given beside days, hours, minutes or seconds"
	errOlder       refusal = "invalid older_than_seconds, require non-negative integer"
	errMessage     refusal = "invalid msg"
	errDryRun      refusal = "invalid dry_run"
	errHold        refusal = "invalid hold"
	errHoldTwice   refusal = "invalid hold, cannot be given beside dry_run"
	errReason      refusal = "invalid reason, require at most 1000 bytes"
	errDatabases   refusal = "invalid db"
	errParameters  refusal = "invalid query parameter"
	errBrokenBody  refusal = "invalid body"
	errIdempotency refusal = "invalid idempotency key"
)

// params are a request's parameters: those of the form body first, then those
// of the query string, as influx-proxy reads them. Names that are not known are
// ignored, as it does.
type params struct {
	values url.Values
	// body is the raw body when it is not a form.
	body []byte
}

// errTooLarge is the refusal of a body over the engine's limit.
var errTooLarge = errors.New("request body too large")

// readParams reads query and body. The error is a refusal or errTooLarge. What
// cannot be read is refused, not skipped: a database list that is lost would
// turn into all databases.
func readParams(r *http.Request) (params, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return params{}, errParameters
	}
	p := params{values: query}
	if r.Method == http.MethodGet || r.Body == nil {
		return p, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return params{}, errTooLarge
		}
		return params{}, errBrokenBody
	}
	// curl -d says that its body is a form even where it is JSON.
	if trimmed := bytes.TrimSpace(body); len(trimmed) > 0 && trimmed[0] == '{' {
		p.body = trimmed
		return p, nil
	}
	form, err := parseForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		return params{}, errParameters
	}
	if form == nil {
		p.body = body
		return p, nil
	}
	for name, values := range form {
		p.values[name] = append(values, p.values[name]...)
	}
	return p, nil
}

// parseForm returns nil for a body that is no form.
func parseForm(contentType string, body []byte) (url.Values, error) {
	media, attributes, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, nil //nolint:nilerr // a body without a sensible type is no form
	}
	switch media {
	case "application/x-www-form-urlencoded":
		return url.ParseQuery(string(body))
	case "multipart/form-data":
		return parseMultipart(attributes["boundary"], body)
	default:
		return nil, nil
	}
}

func (p params) get(name string) string { return p.values.Get(name) }

// first returns the first of several names of one parameter that is given.
func (p params) first(names ...string) string {
	for _, name := range names {
		if text := p.get(name); text != "" {
			return text
		}
	}
	return ""
}

// only refuses parameters that are not among the known ones.
func (p params) only(known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(known, name) {
			return refusal(fmt.Sprintf("unknown parameter: %.100q", name))
		}
	}
	return nil
}

// noBody refuses a body that is not read: whoever sends one means something by it.
func (p params) noBody() error {
	var object map[string]json.RawMessage
	if len(p.body) > 0 && (json.Unmarshal(p.body, &object) != nil || len(object) > 0) {
		return errBrokenBody
	}
	return nil
}

// circle reads a circle's index.
func (p params) circle(name string, t *topology.Topology) (*topology.Circle, error) {
	id, err := strconv.Atoi(p.get(name))
	if err != nil {
		return nil, refusal("invalid " + name)
	}
	c, ok := t.Circle(id)
	if !ok {
		return nil, refusal("invalid " + name)
	}
	return c, nil
}

// list reads a comma list. influx-proxy trims commas and spaces around it.
func (p params) list(names ...string) ([]string, error) {
	for _, name := range names {
		text := strings.Trim(p.get(name), ", ")
		if text == "" {
			continue
		}
		var items []string
		for item := range strings.SplitSeq(text, ",") {
			item = strings.TrimSpace(item)
			if item == "" {
				return nil, refusal("invalid " + name)
			}
			items = append(items, item)
		}
		return items, nil
	}
	return nil, nil
}

// flag reads a boolean that is false unless given.
func (p params) flag(name string, otherwise error) (bool, error) {
	text := p.get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, otherwise
	}
	return on, nil
}

// positive reads a number from 1 to most; 0 means that it was not given.
func (p params) positive(name string, most int, otherwise error) (int, error) {
	text := strings.TrimSpace(p.get(name))
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, otherwise
	}
	return n, nil
}

// natural reads a number from 0 to most; 0 means also that it was not given.
func (p params) natural(name string, most int64, otherwise error) (int64, error) {
	text := strings.TrimSpace(p.get(name))
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, otherwise
	}
	return n, nil
}

// tuning reads what all moves have in common, in the order in which influx-proxy
// checks it; limit, the rows of one answer, and ha_addrs are checked and not
// needed here.
func (p params) tuning() (operation.Tuning, error) {
	const many = 1 << 30
	var out, none operation.Tuning
	cpus, err := p.positive("cpus", operation.MaxWorkers, errCPUs)
	if err != nil {
		return none, err
	}
	worker, err := p.positive("worker", operation.MaxWorkers, errWorker)
	if err != nil {
		return none, err
	}
	if out.Workers = cpus; cpus == 0 {
		out.Workers = worker
	}
	if out.Batch, err = p.positive("batch", many, errBatch); err != nil {
		return none, err
	}
	// It is what a batch may hold at most, so that a smaller one is one, too.
	out.Batch = min(out.Batch, operation.MaxBatch)
	if _, err := p.positive("limit", many, errLimit); err != nil {
		return none, err
	}
	if err := p.haAddrs(); err != nil {
		return none, err
	}
	if out.Databases, err = p.list("db", "dbs"); err != nil {
		return none, err
	}
	out.Depth = operation.Depth(p.get("depth"))
	return out, nil
}

// haAddrPattern is what influx-proxy accepts as host:port.
var haAddrPattern = regexp.MustCompile(`^[\w.-]+:\d{1,5}$`)

// haAddrs checks the addresses of the other proxies. Nothing is done with them:
// all processes share one state.
func (p params) haAddrs() error {
	text := strings.Trim(p.get("ha_addrs"), ", ")
	if text == "" {
		return nil
	}
	addrs := strings.Split(text, ",")
	if len(addrs) < 2 {
		return errHaTooFew
	}
	for _, addr := range addrs {
		if !haAddrPattern.MatchString(addr) {
			return errHaAddrs
		}
		if _, err := strconv.ParseUint(addr[strings.LastIndexByte(addr, ':')+1:], 10, 16); err != nil {
			return errHaAddrs
		}
	}
	return nil
}

// refuseWith answers a readParams or params error.
func refuseWith(c *gin.Context, err error) {
	if errors.Is(err, errTooLarge) {
		c.Header("Connection", "close")
		fail(c, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	fail(c, http.StatusBadRequest, err.Error())
}
