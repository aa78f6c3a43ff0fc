package operation

// Preview is what a plan says beyond its moves, so that a person can judge it: it is
// made for dry runs and for operations that are held for approval.
type Preview struct {
	// Balance has an entry for each backend that was looked at, in the order of the
	// plan's backends.
	Balance []PlanBalance `json:"balance,omitempty"`
	Skew    *PlanSkew     `json:"skew,omitempty"`
	// TopMovers are the largest of the plan's measurements by points, at most
	// MaxTopMovers.
	TopMovers []PlanMover   `json:"top_movers,omitempty"`
	Duration  *PlanDuration `json:"duration,omitempty"`
	// Refusals are what the operation would be refused for or would trip over, at most
	// MaxRefusals; RefusalsLeftOut counts the others.
	Refusals        []Refusal `json:"refusals,omitempty"`
	RefusalsLeftOut int       `json:"refusals_left_out,omitempty"`
	// EstimateSource says where points and bytes are from.
	EstimateSource string `json:"estimate_source,omitempty"`
}

// Bounds of a preview.
const (
	MaxTopMovers = 20
	MaxRefusals  = 100
)

// Holding is what a backend holds: exact counts of databases and measurements,
// estimates of points and of bytes on its disk.
type Holding struct {
	Databases    int   `json:"databases"`
	Measurements int   `json:"measurements"`
	Points       int64 `json:"points"`
	Bytes        int64 `json:"bytes"`
}

// PlanBalance is what one backend holds now and what it would hold afterwards.
type PlanBalance struct {
	Backend string `json:"backend"`
	URL     string `json:"url"`
	Removed bool   `json:"removed,omitempty"`
	// Before is now, After when the operation itself has succeeded: a copy leaves its
	// source as it is.
	Before Holding `json:"before"`
	After  Holding `json:"after"`
	// AfterClear is, for what copies, what would be left once a clear has dropped
	// what the backend does not own.
	AfterClear *Holding `json:"after_clear,omitempty"`
}

// PlanMover is a measurement that moves between two backends, which are given by their
// URLs.
type PlanMover struct {
	Database    string `json:"database"`
	Measurement string `json:"measurement"`
	From        string `json:"from"`
	To          string `json:"to"`
	Points      int64  `json:"points"`
	Bytes       int64  `json:"bytes"`
}

// PlanSkew is how uneven a circle is: the points of its largest backend over the mean
// of all. 1 is even, and 0 is without points. Where an operation writes to several
// circles, it is that of the most uneven one.
type PlanSkew struct {
	Before     float64  `json:"before"`
	After      float64  `json:"after"`
	AfterClear *float64 `json:"after_clear,omitempty"`
}

// PlanDuration is how long an operation may take. Basis says what that was worked out
// from.
type PlanDuration struct {
	LowSeconds  float64 `json:"low_seconds"`
	HighSeconds float64 `json:"high_seconds"`
	Basis       string  `json:"basis"`
}

// The codes of refusals that a plan finds by itself. Others are those of what refuses:
// a scope that is held, a flag, a transition.
const (
	RefusalUnreachable = "backend_unreachable" // does not answer, or not to these credentials
	RefusalUnhealthy   = "backend_unhealthy"   // answers, but does not store what is written
	RefusalBacklog     = "backlog"             // writes wait for it
	RefusalUnreadable  = "unreadable"          // a measurement that InfluxQL cannot read
	RefusalAmbiguous   = "type_ambiguous"      // a field has several types in one window
	RefusalConflict    = "type_conflict"       // a field has other types at the other end
	RefusalPolicy      = "policy_kept"         // a policy cannot be made as it is at the source
	RefusalExpired     = "expired"             // points that retention no longer admits
)

// Refusal is something that an operation would be refused for or would trip over.
type Refusal struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
	// Scope, Backend (a URL) and Slice are what it is about, where it is about one.
	Scope   string `json:"scope,omitempty"`
	Backend string `json:"backend,omitempty"`
	Slice   *Slice `json:"slice,omitempty"`
}

// Refuse adds refusals; those beyond MaxRefusals are counted only.
func (p *Preview) Refuse(all ...Refusal) {
	n := min(len(all), MaxRefusals-len(p.Refusals))
	p.Refusals = append(p.Refusals, all[:n]...)
	p.RefusalsLeftOut += len(all) - n
}
