package influxproxy

import (
	"github.com/gin-gonic/gin"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/topology"
)

// backendHealth is a backend in /health of 2.4; keys in the order of its page.
// Backlog and Rewrite are false and Load is empty in this release: nothing is
// buffered, and live counts of measurements come later.
type backendHealth struct {
	Active  bool     `json:"active"`
	Backlog bool     `json:"backlog"`
	Load    struct{} `json:"load"`
	Name    string   `json:"name"`
	Rewrite bool     `json:"rewrite"`
	URL     string   `json:"url"`
}

type circleHealth struct {
	Backends []backendHealth `json:"backends"`
	Circle   string          `json:"circle"`
}

// healthObject is /health of 2.5; keys in alphabetical order, as it has them.
type healthObject struct {
	Checks  []string         `json:"checks"`
	Circles []circleHealth25 `json:"circles"`
	Message string           `json:"message"`
	Name    string           `json:"name"`
	Status  string           `json:"status"`
	Version string           `json:"version"`
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
	Active    bool     `json:"active"`
	Backlog   bool     `json:"backlog"`
	Healthy   bool     `json:"healthy"`
	Name      string   `json:"name"`
	Rewriting bool     `json:"rewriting"`
	Stats     struct{} `json:"stats"`
	URL       string   `json:"url"`
	WriteOnly bool     `json:"write_only"`
}

// health answers in the shape of 2.4, or of 2.5 when stats=true asks for it. It
// shows what the last probes found and asks no backend.
func (rm *room) health(c *gin.Context) {
	t, ok := rm.current(c)
	if !ok {
		return
	}
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
		return
	}
	status := rm.Prober.Backends(c.Request.Context())
	if p.get("stats") == "true" {
		answer(c, rm.health25(t, status))
		return
	}
	circles := make([]circleHealth, len(t.Circles))
	for i, circle := range t.Circles {
		backends := make([]backendHealth, len(circle.Backends))
		for j, b := range circle.Backends {
			backends[j] = backendHealth{Active: status[b.URL].Active, Name: b.Name, URL: b.URL}
		}
		circles[i] = circleHealth{Backends: backends, Circle: circle.Name}
	}
	answer(c, circles)
}

func (rm *room) health25(t *topology.Topology, status map[string]httpapi.BackendStatus) healthObject {
	circles := make([]circleHealth25, len(t.Circles))
	for i, circle := range t.Circles {
		backends := make([]backendHealth25, len(circle.Backends))
		summary := circleSummary25{Active: true, ID: circle.ID, Name: circle.Name}
		for j, b := range circle.Backends {
			active := status[b.URL].Active
			backends[j] = backendHealth25{Active: active, Healthy: active, Name: b.Name, URL: b.URL, WriteOnly: b.WriteOnly}
			summary.Active = summary.Active && active
			summary.WriteOnly = summary.WriteOnly || b.WriteOnly
		}
		circles[i] = circleHealth25{Backends: backends, Circle: summary}
	}
	return healthObject{
		Checks: []string{}, Circles: circles, Message: "ready for queries and writes",
		Name: "influx-proxy", Status: "pass", Version: rm.Version,
	}
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
	t, ok := rm.current(c)
	if !ok {
		return
	}
	p, err := readParams(c.Request)
	if err != nil {
		refuseWith(c, err)
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
