package influxproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
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
	errCircle      refusal = "invalid circle_id"
	errOperation   refusal = "invalid operation"
	errBackends    refusal = "invalid backends from body"
	errCPUs        refusal = "invalid cpus"
	errWorker      refusal = "invalid worker, require positive integer"
	errBatch       refusal = "invalid batch, require positive integer"
	errLimit       refusal = "invalid limit, require positive integer"
	errHaAddrs     refusal = "invalid ha_addrs"
	errHaTooFew    refusal = "ha_addrs should contain two addrs at least"
	errStatsType   refusal = "invalid stats type"
	errResyncing   refusal = "illegal resyncing"
	errMigrating   refusal = "illegal migrating"
	errTransfer    refusal = "illegal transferring"
	errNothing     refusal = "missing query parameter"
	errReplica     refusal = "invalid db or meas"
	errDryRun      refusal = "invalid dry_run"
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

// workers reads how many measurements move at once, under the name of either
// generation. 0 leaves it to the free slots.
func (p params) workers() (int, error) {
	cpus, err := p.positive("cpus", operation.MaxWorkers, errCPUs)
	if err != nil || cpus > 0 {
		return cpus, err
	}
	return p.positive("worker", operation.MaxWorkers, errWorker)
}

// tuning checks what influx-proxy tunes a move with and this product decides
// itself.
func (p params) tuning() error {
	const most = 1 << 30
	if _, err := p.positive("batch", most, errBatch); err != nil {
		return err
	}
	if _, err := p.positive("limit", most, errLimit); err != nil {
		return err
	}
	return p.haAddrs()
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

// circleBusy is the sentence for a circle that something else is moving.
func circleBusy(id int) string { return fmt.Sprintf("circle %d is migrating", id) }

// proxyBusy is the sentence for a resync, which holds every circle.
const proxyBusy = "proxy is resyncing"
