package ingest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ringmaster/pkg/influx"
)

// Refusal is an answer to a client that its points are not stored, or not all of
// them, in the words of InfluxDB wherever it has some.
type Refusal struct { //nolint:errname // it is an answer, in other words than an error of this process
	// Status is that of HTTP.
	Status  int
	Message string
	// RetryAfter is when to try again, 0 if that is of no use.
	RetryAfter time.Duration

	absent bool // the database is not there
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

const (
	statusTooLarge = http.StatusRequestEntityTooLarge
	retryAfter     = time.Second
)

// overloaded refuses at once, with nothing stored.
func overloaded(why string) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Message: "overloaded: " + why, RetryAfter: retryAfter}
}

func (g *Ingest) full() *Refusal {
	g.stats.overload.Add(1)
	return overloaded(fmt.Sprintf("more than %d bytes of writes are under way", g.options.MaxInFlight))
}

// unavailable refuses before anything was sent.
func unavailable(why string) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Message: "unavailable: " + why, RetryAfter: retryAfter}
}

// perhaps refuses when something may be stored.
func perhaps(why string) *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, RetryAfter: retryAfter,
		Message: "unavailable: " + why + "; the points may already be stored in some circle, and to write them again is harmless",
	}
}

// state is what has become of a part.
type state uint8

const (
	// unsent: another part's refusal has ended the request before.
	unsent state = iota
	// stored by the backend, or kept among its hints.
	stored
	hinted
	// refused for good by the backend.
	refused
	// failed for now: to be tried again.
	failed
	// lost: not known to be stored, and not tried any more.
	lost
)

// outcome is what has become of a part.
type outcome struct {
	state state
	// reply, means, detail and dropped are those of a refusal.
	reply   influx.Reply
	means   meaning
	detail  string // what a partial write gives as its reason
	dropped int
	// reason is why it failed or was lost.
	reason string
}

// meaning is what a refusal means.
type meaning uint8

const (
	// other refusals mean nothing special, and nothing was stored.
	other meaning = iota
	// noDatabase and noPolicy: the lane goes nowhere.
	noDatabase
	noPolicy
	// conflict: two types for a field that is new. Nothing of that shard was
	// stored.
	conflict
	// invalid: some points were dropped, the others of that shard are stored.
	invalid
	// expired: points beyond the retention policy were dropped, the others are
	// stored.
	expired
	// unreadable: the server can't read lines, the others are stored.
	unreadable
)

// missing reports whether it may be the backend's own fault.
func (c meaning) missing() bool { return c == noDatabase || c == noPolicy }

// everybodys reports whether a refusal holds for every request of its lane.
func (o *outcome) everybodys() bool {
	return o.means.missing() || o.reply.Status == http.StatusForbidden
}

// refusal is what a client is told of a refused part.
func (o *outcome) refusal() *Refusal {
	return &Refusal{Status: o.reply.Status, Message: o.reply.Text, absent: o.means == noDatabase}
}

// The words of InfluxDB 1.8 by which its refusals are told apart. A text may repeat
// what a client wrote, so only its beginning and its end are looked at.
const (
	partialPrefix   = "partial write: "
	droppedWord     = " dropped="
	conflictPrefix  = "field type conflict"
	beyondPolicy    = "points beyond retention policy"
	unparsedPrefix  = "unable to parse"
	noDatabaseWords = "database not found"
	noPolicyWords   = "retention policy not found"
	panicWord       = "[panic:"
)

// judged is the table of answers to a write:
//
//	status  text                                     means                      stored
//	204                                              stored                     all
//	400     partial write: field type conflict: …    some points are invalid    the rest of the shard
//	400     partial write: points beyond retention … some points are too old    the rest
//	400     partial write: unable to parse …         lines are invalid          the rest
//	400     partial write: … (any other reason)      some points are invalid    the rest of the shard
//	400     field type conflict                      two types of a new field   nothing of the shard
//	400     unable to parse …                        all lines are invalid      nothing
//	404     database not found: …                    the lane goes nowhere      nothing
//	500     retention policy not found: …            the lane goes nowhere      nothing
//	500     database not found: …                    it was dropped meanwhile   nothing
//	500     … [panic: …                              the request is poison      nothing
//	401     …                                        wrong credentials: failed  nothing
//	404     anything else                            no InfluxDB: failed        nothing
//	2xx,3xx anything                                 no InfluxDB: failed        nothing
//	408, 425, 429, all other 5xx                     failed for now             unknown
//	anything else                                    refused                    nothing
//
// What has failed is tried again, and then goes into the hints; what is refused is
// the client's answer. No shard, or those of a request, are told apart: InfluxDB
// answers with the first refusal of any shard.
func judged(r influx.Reply) outcome {
	o := outcome{state: refused, reply: r}
	fails := func() outcome {
		return outcome{state: failed, reply: r, reason: fmt.Sprintf("status %d: %s", r.Status, clipped(r.Text))}
	}
	switch {
	case r.Stored():
		return outcome{state: stored}
	case r.Status < http.StatusBadRequest, r.Status == http.StatusUnauthorized:
		return fails()
	case r.Status == http.StatusBadRequest:
		o.judgeBad()
	case r.Status == http.StatusNotFound:
		if !strings.HasPrefix(r.Text, noDatabaseWords) {
			return fails()
		}
		o.means = noDatabase
	case r.Status == http.StatusInternalServerError && strings.HasPrefix(r.Text, noPolicyWords):
		o.means = noPolicy
	case r.Status == http.StatusInternalServerError && strings.HasPrefix(r.Text, noDatabaseWords):
		o.means = noDatabase
	case r.Status == http.StatusInternalServerError && strings.Contains(r.Text, panicWord):
	case r.Status >= http.StatusInternalServerError, r.Status == http.StatusRequestTimeout,
		r.Status == http.StatusTooEarly, r.Status == http.StatusTooManyRequests:
		return fails()
	}
	return o
}

// judgeBad tells refusals of status 400 apart.
func (o *outcome) judgeBad() {
	text, partial := strings.CutPrefix(o.reply.Text, partialPrefix)
	if !partial {
		switch {
		case strings.HasPrefix(text, conflictPrefix):
			o.means = conflict
		case strings.HasPrefix(text, unparsedPrefix):
			o.means, o.detail = unreadable, text
		}
		return
	}
	o.means, o.detail = invalid, text
	if i := strings.LastIndex(text, droppedWord); i >= 0 {
		if n, err := strconv.Atoi(text[i+len(droppedWord):]); err == nil {
			o.detail, o.dropped = text[:i], n
		}
	}
	switch {
	case o.detail == beyondPolicy:
		o.means = expired
	case strings.HasPrefix(o.detail, unparsedPrefix):
		o.means = unreadable
	}
}

// longestReason bounds what is kept of a server's words for a person.
const longestReason = 512

func clipped(s string) string {
	if len(s) <= longestReason {
		return s
	}
	return s[:longestReason] + " …"
}
