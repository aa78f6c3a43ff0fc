package operation

import "fmt"

// Report is the verification report that ends a move.
type Report struct {
	OperationID string `json:"operation_id"`
	// Depth is the depth asked for; slices that counts could not prove were
	// compared point by point whatever it is.
	Depth Depth `json:"depth"`
	// Equal is true when every slice is proven and the owners hold no other
	// value anywhere for a point of a source.
	Equal      bool         `json:"equal"`
	Slices     SliceTotals  `json:"slices"`
	Points     ReportPoints `json:"points"`
	Missing    int64        `json:"missing"`
	Extra      int64        `json:"extra"`
	Different  int64        `json:"different"`
	Expired    int64        `json:"expired"`
	Problems   []Problem    `json:"problems"`
	Unreported int          `json:"problems_left_out,omitempty"`
}

// SliceTotals counts slices. Unequal ones have a problem each.
type SliceTotals struct {
	Total   int `json:"total"`
	Equal   int `json:"equal"`
	Unequal int `json:"unequal"`
	// ByCount and ByPoints say how the equal ones were proven.
	ByCount  int `json:"by_count"`
	ByPoints int `json:"by_points"`
}

// ReportPoints are the points seen at both ends of the slices.
type ReportPoints struct {
	Source      int64 `json:"source"`
	Destination int64 `json:"destination"`
}

// Problem is one slice that is not simply equal. A slice whose only problem is
// that the owner holds other values, or more points, is proven all the same:
// Resolution then says which rule decided.
type Problem struct {
	Slice       Slice  `json:"slice"`
	SourceURL   string `json:"source_backend"`
	DestURL     string `json:"destination_backend"`
	Source      int64  `json:"source"`
	Destination int64  `json:"destination"`
	Missing     int64  `json:"missing"`
	Extra       int64  `json:"extra"`
	Different   int64  `json:"different"`
	// Example is one point that differs, as a person would look for it.
	Example    string `json:"example,omitempty"`
	Resolution string `json:"resolution,omitempty"`
	Code       string `json:"code,omitempty"`
	Detail     string `json:"detail,omitempty"`
}

// Resolutions of a problem.
const (
	// ResolutionOwnerKept: the owner's own value was kept, as in every rebalance.
	ResolutionOwnerKept = "owner_value_kept"
	// ResolutionExtra: the owner holds points the source does not have.
	ResolutionExtra = "owner_holds_more"
	// ResolutionExpired: retention removed the points meanwhile.
	ResolutionExpired = "expired"
)

// Verdict is what one verify task found. Verdicts of disjoint slices add up.
type Verdict struct {
	Slices    SliceTotals  `json:"slices"`
	Points    ReportPoints `json:"points"`
	Missing   int64        `json:"missing"`
	Extra     int64        `json:"extra"`
	Different int64        `json:"different"`
	Expired   int64        `json:"expired"`
	// Problems are bounded; LeftOut counts those beyond the bound.
	Problems []Problem `json:"problems,omitempty"`
	LeftOut  int       `json:"left_out,omitempty"`
	// Unproven are the slices, by index in the task, to be copied once more.
	Unproven []int `json:"unproven,omitempty"`
}

// AddProblem keeps a problem within the bound.
func (v *Verdict) AddProblem(p Problem) {
	if len(v.Problems) >= MaxReportProblems {
		v.LeftOut++
		return
	}
	v.Problems = append(v.Problems, p)
}

// Add joins another verdict's totals and problems to v; Unproven, which are
// indexes into one task, stay apart.
func (v *Verdict) Add(o *Verdict) {
	v.Slices.Total += o.Slices.Total
	v.Slices.Equal += o.Slices.Equal
	v.Slices.Unequal += o.Slices.Unequal
	v.Slices.ByCount += o.Slices.ByCount
	v.Slices.ByPoints += o.Slices.ByPoints
	v.Points.Source += o.Points.Source
	v.Points.Destination += o.Points.Destination
	v.Missing += o.Missing
	v.Extra += o.Extra
	v.Different += o.Different
	v.Expired += o.Expired
	for _, p := range o.Problems {
		v.AddProblem(p)
	}
	v.LeftOut += o.LeftOut
}

// Report turns the joined verdict of all tasks into the operation's report.
func (v *Verdict) Report(id string, depth Depth) Report {
	problems := v.Problems
	if problems == nil {
		problems = []Problem{}
	}
	return Report{
		OperationID: id, Depth: depth,
		Equal:  v.Slices.Unequal == 0 && v.Missing == 0 && v.Different == 0,
		Slices: v.Slices, Points: v.Points,
		Missing: v.Missing, Extra: v.Extra, Different: v.Different, Expired: v.Expired,
		Problems: problems, Unreported: v.LeftOut,
	}
}

// WithoutUnproven returns v without the slices that are copied once more, whose
// next verdict counts instead. What such a slice adds to the point totals is
// taken from its problem; problems beyond the bound keep theirs, so the totals
// of a very unequal first round are an upper bound.
func (v Verdict) WithoutUnproven() Verdict {
	n := len(v.Unproven)
	v.Slices.Total -= n
	v.Slices.Unequal -= n
	kept := make([]Problem, 0, len(v.Problems))
	for _, p := range v.Problems {
		if p.Code != CodeUnequal {
			kept = append(kept, p)
			continue
		}
		v.Points.Source -= p.Source
		v.Points.Destination -= p.Destination
		v.Missing -= p.Missing
		v.Extra -= p.Extra
		v.Different -= p.Different
	}
	v.Problems, v.Unproven = kept, nil
	return v
}

// CodeUnequal is the code of the problem of a slice that is not proven.
const CodeUnequal = "unequal"

// AddUnjudged counts the slices of a copy task whose verification failed.
func (v *Verdict) AddUnjudged(of *Task, failure *Error) {
	n := 0
	for i := range of.SliceCount() {
		if i >= len(of.Checkpoint) || of.Checkpoint[i].State != SliceHandedOver {
			n++
		}
	}
	v.Slices.Total += n
	v.Slices.Unequal += n
	p := Problem{SourceURL: of.Source, DestURL: of.Destination, Code: "not_verified", Detail: fmt.Sprintf("%d slices of task %s were not verified", n, of.ID)}
	if failure != nil {
		p.Detail += ": " + failure.Detail
	}
	v.AddProblem(p)
}
