package influxproxy

import (
	"fmt"

	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// backendHealth is a backend in /health of 2.4; keys in the order of its page.
// Backlog says that writes wait for it, Rewrite that they are being replayed. Behind
// what the page has, Error and LoadError say what is wrong where something is.
type backendHealth struct {
	Active    bool            `json:"active"`
	Backlog   bool            `json:"backlog"`
	Load      map[string]load `json:"load"`
	Name      string          `json:"name"`
	Rewrite   bool            `json:"rewrite"`
	URL       string          `json:"url"`
	Error     string          `json:"error,omitempty"`
	LoadError string          `json:"load_error,omitempty"`
}

type circleHealth struct {
	Backends []backendHealth `json:"backends"`
	Circle   string          `json:"circle"`
}

// healthObject is /health of 2.5; keys in alphabetical order, as it has them.
type healthObject struct {
	Checks  []check          `json:"checks"`
	Circles []circleHealth25 `json:"circles"`
	Message string           `json:"message"`
	Name    string           `json:"name"`
	Status  string           `json:"status"`
	Version string           `json:"version"`
}

// check is a backend that is not well, in the shape of InfluxDB's health checks.
// influx-proxy has the list and leaves it empty.
type check struct {
	Message string `json:"message"`
	Name    string `json:"name"`
	Status  string `json:"status"`
}

type circleHealth25 struct {
	Backends []backendHealth25 `json:"backends"`
	Circle   circleSummary25   `json:"circle"`
}

type circleSummary25 struct {
	Active    bool   `json:"active"`
	ID        int    `json:"id"`
	Name      string `json:"name"`
	WriteOnly bool   `json:"write_only"`
}

type backendHealth25 struct {
	Active     bool            `json:"active"`
	Backlog    bool            `json:"backlog"`
	Healthy    bool            `json:"healthy"`
	Name       string          `json:"name"`
	Rewriting  bool            `json:"rewriting"`
	Stats      map[string]load `json:"stats"`
	URL        string          `json:"url"`
	WriteOnly  bool            `json:"write_only"`
	Error      string          `json:"error,omitempty"`
	Note       string          `json:"note,omitempty"`
	StatsError string          `json:"stats_error,omitempty"`
}

// health answers in the shape of 2.4, or of 2.5 when stats=true asks for it. It
// shows what the last probes found; only for counts of measurements that nobody
// has asked for in a while it waits, and not for long.
func (rm *room) health(c *gin.Context) {
	t, p, ok := rm.opened(c)
	if !ok {
		return
	}
	counts := rm.loads(c, t)
	status := rm.Prober.Backends(c.Request.Context())
	if p.get("stats") == "true" {
		answer(c, rm.health25(t, status, counts))
		return
	}
	circles := make([]circleHealth, len(t.Circles))
	for i, circle := range t.Circles {
		backends := make([]backendHealth, len(circle.Backends))
		for j, b := range circle.Backends {
			s, n := status[b.URL], counts[b.Name]
			shown, _ := n.shown()
			backends[j] = backendHealth{
				Active: s.Active, Error: s.Error, Load: shown, LoadError: n.Error, Name: b.Name, URL: b.URL,
			}
			backends[j].Backlog, backends[j].Rewrite = rm.backlog(b.URL)
		}
		circles[i] = circleHealth{Backends: backends, Circle: circle.Name}
	}
	answer(c, circles)
}

// The two states of the proxy as a whole. It fails when no circle is whole: then
// no query can be sure to see everything.
const (
	statusPass = "pass"
	statusFail = "fail"
)

func (rm *room) health25(t *topology.Topology, status map[string]httpapi.BackendStatus, counts map[string]BackendLoad) healthObject {
	h := healthObject{
		Checks: []check{}, Circles: make([]circleHealth25, len(t.Circles)),
		Message: "ready for queries and writes", Name: "influx-proxy", Status: statusFail, Version: rm.Version,
	}
	total := 0
	for i, circle := range t.Circles {
		backends := make([]backendHealth25, len(circle.Backends))
		summary := circleSummary25{Active: true, ID: circle.ID, Name: circle.Name}
		for j, b := range circle.Backends {
			s, n := status[b.URL], counts[b.Name]
			shown, inPlace := n.shown()
			backends[j] = backendHealth25{
				// As for influx-proxy, what lies at a wrong place is no good health.
				Active: s.Active, Error: s.Error, Healthy: s.Healthy() && inPlace, Name: b.Name, Note: s.Note,
				Stats: shown, StatsError: n.Error, URL: b.URL, WriteOnly: b.WriteOnly,
			}
			backends[j].Backlog, backends[j].Rewriting = rm.backlog(b.URL)
			summary.Active = summary.Active && s.Active
			summary.WriteOnly = summary.WriteOnly || b.WriteOnly
			total++
			if !s.Healthy() {
				h.Checks = append(h.Checks, check{Message: ill(s), Name: b.Name, Status: statusFail})
			}
		}
		if summary.Active {
			h.Status = statusPass
		}
		h.Circles[i] = circleHealth25{Backends: backends, Circle: summary}
	}
	if n := len(h.Checks); n > 0 {
		h.Message = fmt.Sprintf("%d of %d backends cannot be used: %s: %s", n, total, h.Checks[0].Name, h.Checks[0].Message)
		if n > 1 {
			h.Message += fmt.Sprintf(" (and %d more)", n-1)
		}
	}
	return h
}

// backlog reports whether writes wait for a backend, and whether they are being
// replayed.
func (rm *room) backlog(url string) (waiting, replayed bool) {
	if rm.Serving == nil {
		return false, false
	}
	view := rm.Serving.View()
	if view == nil {
		return false, false
	}
	mode := view.Mode(url)
	return mode != serving.Direct, mode == serving.Draining || mode == serving.Handover
}

// ill says what is wrong with a backend.
func ill(s httpapi.BackendStatus) string {
	switch {
	case s.CheckedAt.IsZero():
		return "it has not been asked yet"
	case s.Error == "":
		return "it does not answer"
	}
	return s.Error
}

// replica24 and replica25 are the owner of a measurement in one circle.
type replica24 struct {
	Circle string `json:"circle"`
	Name   string `json:"name"`
	URL    string `json:"url"`
}

type replica25 struct {
	Backend struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	} `json:"backend"`
	Circle struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	} `json:"circle"`
}

// replica answers with the owner in every circle: for meas in the shape of 2.4,
// for mm in that of 2.5.
func (rm *room) replica(c *gin.Context) {
	t, p, ok := rm.opened(c)
	if !ok {
		return
	}
	db, measurement, newer := p.get("db"), p.get("meas"), false
	if measurement == "" {
		measurement, newer = p.get("mm"), true
	}
	if db == "" || measurement == "" {
		refuseWith(c, errReplica)
		return
	}
	replicas := make([]any, 0, len(t.Circles))
	for _, circle := range t.Circles {
		placement, err := t.Placement(circle.ID)
		if err != nil {
			rm.unavailable(c, "placing a measurement", err)
			return
		}
		owner := placement.Owner(db, measurement)
		if owner == nil {
			continue
		}
		if !newer {
			replicas = append(replicas, replica24{Circle: circle.Name, Name: owner.Name, URL: owner.URL})
			continue
		}
		var r replica25
		r.Backend.Name, r.Backend.URL = owner.Name, owner.URL
		r.Circle.ID, r.Circle.Name = circle.ID, circle.Name
		replicas = append(replicas, r)
	}
	answer(c, replicas)
}
