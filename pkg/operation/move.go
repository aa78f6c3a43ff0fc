package operation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Move are the checked parameters of a kind that works on the points of circles.
type Move interface {
	// Circles returns the circles that the move is about, by index in a
	// configuration of n circles. It holds them exclusively, unless it only reads;
	// see CircleScopes.
	Circles(n int) []int
	// Period returns the part of time that a move created at a moment is about.
	Period(created time.Time) Period
	// Tuned returns what all kinds have in common.
	Tuned() Tuning
}

// ParseMove reads and checks the parameters of a kind of move. Unknown keys are
// refused; the error is an *InvalidError that names the field.
func ParseMove(kind Kind, raw json.RawMessage) (Move, error) {
	switch kind {
	case KindRebalance:
		return ParseRebalance(raw)
	case KindRecovery:
		return ParseRecovery(raw)
	case KindResync:
		return ParseResync(raw)
	case KindClear:
		return ParseClear(raw)
	case KindVerify:
		return ParseVerify(raw)
	default:
		return nil, &NotImplementedError{What: string(kind)}
	}
}

// CircleScopes are the scopes of a move in a configuration of n circles: none of one
// that only reads.
func CircleScopes(m Move, n int) []string {
	out := []string{}
	if v, ok := m.(Verify); ok && !v.Repair {
		return out
	}
	for _, id := range m.Circles(n) {
		out = append(out, CircleScope(id))
	}
	return out
}

// Surveyed returns the circles that have to be known for a move to be planned: its
// own first. A clear has to know all, since a server may serve several circles, and
// what is a leftover in one may be the good copy of another.
func Surveyed(m Move, n int) []int {
	own := m.Circles(n)
	if _, ok := m.(Clear); !ok {
		return own
	}
	all := slices.Clone(own)
	for i := range n {
		if !slices.Contains(own, i) {
			all = append(all, i)
		}
	}
	return all
}

// CircleScope is the scope of one circle.
func CircleScope(id int) string { return fmt.Sprintf("circle/%d", id) }

// Depth is how a copy is proven.
type Depth string

// Where no depth is given, a copy to an empty destination is proven by counts
// per series and field if the source has not changed meanwhile, and every other
// slice by its points.
const (
	// DepthCount also leaves alone, without looking at their points, the slices
	// of which both ends have the same counts.
	DepthCount Depth = "count"
	// DepthDigest reads the destination back and compares every point.
	DepthDigest Depth = "digest"
)

// Bounds of parameters.
const (
	MaxWorkers = 1024
	MaxBatch   = 100_000
	// MaxSeconds is a hundred years.
	MaxSeconds = 100 * 366 * 24 * 60 * 60
)

// Tuning are the parameters that all kinds of moves have.
type Tuning struct {
	// Databases limits the move; empty means all.
	Databases []string `json:"databases,omitempty"`
	// Workers is how many tasks read from one source at once; 0 leaves it to the
	// free slots.
	Workers int `json:"workers,omitempty"`
	// Batch is how many points one write holds at most; 0 leaves it to the worker.
	Batch int   `json:"batch,omitempty"`
	Depth Depth `json:"depth,omitempty"`
}

// Tuned implements Move.
func (t Tuning) Tuned() Tuning { return t }

func (t *Tuning) validate() error {
	switch t.Depth {
	case "", DepthCount, DepthDigest:
	default:
		return &InvalidError{Field: "depth", Problem: fmt.Sprintf("%q is not a depth", t.Depth), Hint: "use count or digest, or leave it out"}
	}
	if t.Workers < 0 || t.Workers > MaxWorkers {
		return &InvalidError{Field: "workers", Problem: fmt.Sprintf("%d is out of range", t.Workers), Hint: fmt.Sprintf("use 0 (no limit) to %d", MaxWorkers)}
	}
	if t.Batch < 0 || t.Batch > MaxBatch {
		return &InvalidError{Field: "batch", Problem: fmt.Sprintf("%d is out of range", t.Batch), Hint: fmt.Sprintf("use 0 (the worker decides) to %d", MaxBatch)}
	}
	for i, db := range t.Databases {
		if db == "" {
			return &InvalidError{Field: fmt.Sprintf("databases[%d]", i), Problem: "is empty", Hint: "leave databases out for all of them"}
		}
	}
	return nil
}

// Period is a part of time, in nanoseconds; nil means no bound. To is excluded.
type Period struct{ From, To *int64 }

// Since limits a move to recent points.
type Since struct {
	// SinceSeconds limits it to the last seconds before the request; 0 means all.
	SinceSeconds int64 `json:"since_seconds,omitempty"`
	// Since limits it to points that are not older.
	Since *time.Time `json:"since,omitempty"`
}

// Period implements Move.
func (s Since) Period(created time.Time) Period {
	var p Period
	switch {
	case s.Since != nil:
		p.From = new(s.Since.UnixNano())
	case s.SinceSeconds > 0:
		p.From = new(created.Add(-time.Duration(s.SinceSeconds) * time.Second).UnixNano())
	}
	return p
}

func (s *Since) validate() error {
	switch {
	case s.SinceSeconds < 0 || s.SinceSeconds > MaxSeconds:
		return &InvalidError{Field: "since_seconds", Problem: fmt.Sprintf("%d is out of range", s.SinceSeconds), Hint: fmt.Sprintf("use 0 (all points) to %d", int64(MaxSeconds))}
	case s.Since != nil && s.SinceSeconds > 0:
		return &InvalidError{Field: "since", Problem: "is given beside since_seconds", Hint: "give one of them"}
	case s.Since != nil && (s.Since.Year() < 1678 || s.Since.Year() > 2261):
		return &InvalidError{Field: "since", Problem: "is outside InfluxDB's time", Hint: "use a time from 1678 to 2261"}
	}
	return nil
}

// Recovery are the parameters of KindRecovery: one circle is filled from another.
// Where both hold a point, the circle copied from has its way.
type Recovery struct {
	// FromCircleID and ToCircleID are indexes in the configuration, from 0.
	FromCircleID int `json:"from_circle_id"`
	ToCircleID   int `json:"to_circle_id"`
	// BackendURLs limits what is written to these backends; empty means all of
	// the circle.
	BackendURLs []string `json:"backend_urls,omitempty"`
	Since
	Tuning
}

// ParseRecovery reads and checks recovery parameters.
func ParseRecovery(raw json.RawMessage) (Recovery, error) {
	var p Recovery
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if err := requireCircles(raw, "from_circle_id", "to_circle_id"); err != nil {
		return p, err
	}
	return p, p.validate()
}

func (p *Recovery) validate() error {
	switch {
	case p.FromCircleID < 0:
		return &InvalidError{Field: "from_circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	case p.ToCircleID < 0:
		return &InvalidError{Field: "to_circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	case p.FromCircleID == p.ToCircleID:
		return &InvalidError{Field: "to_circle_id", Problem: "is the circle copied from", Hint: "name two circles"}
	}
	for i, address := range p.BackendURLs {
		field := fmt.Sprintf("backend_urls[%d]", i)
		u, err := url.Parse(address)
		switch {
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
			return &InvalidError{Field: field, Problem: "is not the address of a backend", Hint: "give it as in the configuration, such as http://127.0.0.1:8086"}
		case slices.Contains(p.BackendURLs[:i], address):
			return &InvalidError{Field: field, Problem: "is named twice", Hint: "name each backend once"}
		}
	}
	if err := p.Since.validate(); err != nil {
		return err
	}
	return p.Tuning.validate()
}

// Circles implements Move.
func (p Recovery) Circles(int) []int { return []int{p.FromCircleID, p.ToCircleID} }

// Resync are the parameters of KindResync: every circle gets what the others
// hold. Where two hold a point, the circle with the lower id has its way.
type Resync struct {
	Since
	Tuning
}

// ParseResync reads and checks resync parameters.
func ParseResync(raw json.RawMessage) (Resync, error) {
	var p Resync
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if err := p.Since.validate(); err != nil {
		return p, err
	}
	return p, p.Tuning.validate()
}

// Circles implements Move: all of them.
func (p Resync) Circles(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Clear are the parameters of KindClear: what a backend holds and does not own
// is dropped there, once its owner is proven to hold every point of it.
type Clear struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID int `json:"circle_id"`
	// OlderThanSeconds limits it to points that were older than that when it was
	// asked for; 0 means all.
	OlderThanSeconds int64 `json:"older_than_seconds,omitempty"`
	Tuning
}

// ParseClear reads and checks clear parameters.
func ParseClear(raw json.RawMessage) (Clear, error) {
	var p Clear
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if err := requireCircles(raw, "circle_id"); err != nil {
		return p, err
	}
	switch {
	case p.CircleID < 0:
		return p, &InvalidError{Field: "circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	case p.OlderThanSeconds < 0 || p.OlderThanSeconds > MaxSeconds:
		return p, &InvalidError{
			Field: "older_than_seconds", Problem: fmt.Sprintf("%d is out of range", p.OlderThanSeconds),
			Hint: fmt.Sprintf("use 0 (all points) to %d", int64(MaxSeconds)),
		}
	case p.Depth == DepthCount:
		return p, &InvalidError{Field: "depth", Problem: "is count", Hint: "leave it out: nothing is dropped that was not compared point by point"}
	}
	return p, p.Tuning.validate()
}

// Circles implements Move.
func (p Clear) Circles(int) []int { return []int{p.CircleID} }

// Period implements Move.
func (p Clear) Period(created time.Time) Period {
	if p.OlderThanSeconds == 0 {
		return Period{}
	}
	return Period{To: new(created.Add(-time.Duration(p.OlderThanSeconds) * time.Second).UnixNano())}
}

// requireCircles refuses parameters without the named circles: a missing one must
// not mean circle 0.
func requireCircles(raw json.RawMessage, names ...string) error {
	var given map[string]json.RawMessage
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			return &InvalidError{Field: "parameters", Problem: "is not a JSON object", Hint: kindsHint}
		}
	}
	for _, name := range names {
		if v, ok := given[name]; !ok || string(v) == "null" {
			return &InvalidError{Field: name, Problem: "is missing", Hint: "give the index of the circle, starting at 0"}
		}
	}
	return nil
}
