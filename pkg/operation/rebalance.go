package operation

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// RebalanceMode says whether a circle has grown or shrunk.
type RebalanceMode string

const (
	// RebalanceAdd moves what each backend of the circle does not own.
	RebalanceAdd RebalanceMode = "add"
	// RebalanceRemove also moves what lies on backends that left the circle.
	RebalanceRemove RebalanceMode = "rm"
)

// Rebalance are the parameters of KindRebalance.
type Rebalance struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID  int           `json:"circle_id"`
	Operation RebalanceMode `json:"operation"`
	// RemovedBackends are read as sources too; required for RebalanceRemove.
	RemovedBackends []RemovedBackend `json:"removed_backends,omitempty"`
	Tuning
}

// RemovedBackend is a backend that has left its circle. Username and Password
// are accepted and never shown; a stored record has them in Sealed only.
type RemovedBackend struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	Sealed   string `json:"sealed,omitempty"`
}

// String never shows the credentials.
func (b RemovedBackend) String() string { return b.Name + " (" + b.URL + ")" }

// GoString never shows the credentials.
func (b RemovedBackend) GoString() string { return b.String() }

// ParseRebalance reads and checks rebalance parameters. Unknown keys are
// refused; the error is an *InvalidError that names the field.
func ParseRebalance(raw json.RawMessage) (Rebalance, error) {
	var p Rebalance
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if err := requireCircles(raw, "circle_id"); err != nil {
		return p, err
	}
	return p, p.validate()
}

func (p *Rebalance) validate() error {
	if p.CircleID < 0 {
		return &InvalidError{Field: "circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	}
	switch p.Operation {
	case RebalanceAdd:
		if len(p.RemovedBackends) > 0 {
			return &InvalidError{Field: "removed_backends", Problem: "belongs to operation rm", Hint: "leave it out or use operation rm"}
		}
	case RebalanceRemove:
		if len(p.RemovedBackends) == 0 {
			return &InvalidError{Field: "removed_backends", Problem: "is missing", Hint: "name each backend that left the circle by name and url"}
		}
	default:
		return &InvalidError{Field: "operation", Problem: fmt.Sprintf("%q is not an operation", p.Operation), Hint: "use add or rm"}
	}
	if err := p.Tuning.validate(); err != nil {
		return err
	}
	return validateRemoved(p.RemovedBackends)
}

func validateRemoved(backends []RemovedBackend) error {
	seen := map[string]bool{}
	for i, b := range backends {
		field := fmt.Sprintf("removed_backends[%d]", i)
		u, err := url.Parse(b.URL)
		switch {
		case b.Name == "":
			return &InvalidError{Field: field + ".name", Problem: "is missing", Hint: "use the name the backend had in the configuration"}
		case b.URL == "":
			return &InvalidError{Field: field + ".url", Problem: "is missing", Hint: "give the backend's address, such as http://127.0.0.1:8086"}
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
			return &InvalidError{Field: field + ".url", Problem: "is not an http or https address", Hint: "give it as http://host:port"}
		case u.User != nil:
			return &InvalidError{Field: field + ".url", Problem: "contains credentials", Hint: "put them in username and password"}
		case u.RawQuery != "", u.ForceQuery, u.Fragment != "":
			// A query may hold credentials too, and addresses are shown.
			return &InvalidError{Field: field + ".url", Problem: "has a query or fragment", Hint: "give it as http://host:port"}
		case seen[strings.TrimRight(b.URL, "/")]:
			return &InvalidError{Field: field + ".url", Problem: "is named twice", Hint: "name each backend once"}
		}
		seen[strings.TrimRight(b.URL, "/")] = true
	}
	return nil
}

// Circles implements Move.
func (p Rebalance) Circles(int) []int { return []int{p.CircleID} }

// Period implements Move: a rebalance moves all of time.
func (p Rebalance) Period(time.Time) Period { return Period{} }

// Public returns a copy of o that may be shown: parameters without credentials,
// sealed or not.
func (o Operation) Public() Operation {
	o.Parameters = publicParameters(o.Kind, o.Parameters)
	o.IdempotencyKey = ""
	return o
}

func publicParameters(kind Kind, raw json.RawMessage) json.RawMessage {
	if kind != KindRebalance {
		return raw
	}
	var p Rebalance
	if err := json.Unmarshal(raw, &p); err != nil {
		return json.RawMessage("{}")
	}
	p.RemovedBackends = slices.Clone(p.RemovedBackends)
	for i := range p.RemovedBackends {
		b := &p.RemovedBackends[i]
		b.Username, b.Password, b.Sealed = "", "", ""
	}
	shown, err := json.Marshal(p)
	if err != nil {
		return json.RawMessage("{}")
	}
	return shown
}
