package operation

import "fmt"

// Verdict is what one verify task found. Verdicts of disjoint slices add up.
type Verdict struct {
	Slices SliceTotals `json:"slices"`
	Findings
	// Examples are one of each kind of difference, whatever Problems have room for.
	Examples Examples `json:"examples,omitzero"`
	// Problems are bounded in number and size; LeftOut counts those beyond.
	Problems []Problem `json:"problems,omitempty"`
	LeftOut  int       `json:"left_out,omitempty"`
	// NotVerified counts the slices that could not be compared; their task has
	// failed.
	NotVerified int `json:"not_verified,omitempty"`
	// Unproven are the slices, by index in the task, to be copied once more.
	// Each has one problem with CodeUnequal, and Open is what they add to the
	// findings above.
	Unproven []int    `json:"unproven,omitempty"`
	Open     Findings `json:"open,omitzero"`
}

// Findings count the points of slices and what is wrong with them.
type Findings struct {
	Points    ReportPoints `json:"points"`
	Missing   int64        `json:"missing"`
	Extra     int64        `json:"extra"`
	Different int64        `json:"different"`
	Expired   int64        `json:"expired"`
	// Replaced counts the points of which the destination had another value that
	// gave way.
	Replaced int64 `json:"replaced,omitempty"`
	// Returned counts the points copied to the source, which lacked them.
	Returned int64 `json:"returned,omitempty"`
	// Unchanged are slices that were not copied, being equal; Dropped and Kept
	// are what a clear has removed and what it had to leave.
	Unchanged Amount `json:"unchanged,omitzero"`
	Dropped   Amount `json:"dropped,omitzero"`
	Kept      Amount `json:"kept,omitzero"`
	// Copied counts the points that a repair has given to the side that lacked
	// them, Left what differs all the same after it.
	Copied int64       `json:"copied,omitempty"`
	Left   Differences `json:"left,omitzero"`
}

// Amount is a number of slices and their points.
type Amount struct {
	Slices int   `json:"slices"`
	Points int64 `json:"points"`
}

func (a *Amount) add(o Amount, sign int64) {
	a.Slices += int(sign) * o.Slices
	a.Points += sign * o.Points
}

func (f *Findings) add(o *Findings, sign int64) {
	f.Points.Source += sign * o.Points.Source
	f.Points.Destination += sign * o.Points.Destination
	f.Missing += sign * o.Missing
	f.Extra += sign * o.Extra
	f.Different += sign * o.Different
	f.Expired += sign * o.Expired
	f.Replaced += sign * o.Replaced
	f.Returned += sign * o.Returned
	f.Unchanged.add(o.Unchanged, sign)
	f.Dropped.add(o.Dropped, sign)
	f.Kept.add(o.Kept, sign)
	f.Copied += sign * o.Copied
	f.Left.add(o.Left, sign)
}

// Count adds the findings of one slice.
func (v *Verdict) Count(f Findings) { v.add(&f, 1) }

// Reopen adds the findings of a slice that is not proven and is to be copied
// once more: its index in the task and its problem.
func (v *Verdict) Reopen(index int, f Findings, p Problem) {
	v.Slices.Unequal++
	v.Count(f)
	v.Open.add(&f, 1)
	v.Unproven = append(v.Unproven, index)
	p.Code = CodeUnequal
	v.AddProblem(p)
}

// Forgo counts a slice that cannot be compared; the problem says why.
func (v *Verdict) Forgo(p Problem, why error) {
	v.Slices.Total++
	v.Slices.Unequal++
	v.NotVerified++
	p.Code, p.Detail = CodeNotVerified, Clip(why.Error())
	v.AddProblem(p)
}

// AddProblem keeps a problem within the bounds, and its examples in any case.
func (v *Verdict) AddProblem(p Problem) {
	v.Examples.Join(p.Examples)
	size := p.size()
	for i := range v.Problems {
		size += v.Problems[i].size()
	}
	if len(v.Problems) >= MaxReportProblems || size > MaxProblemBytes {
		v.LeftOut++
		return
	}
	v.Problems = append(v.Problems, p)
}

// Add joins another verdict's totals and problems to v; Unproven and Open, which
// belong to one task, stay apart.
func (v *Verdict) Add(o *Verdict) {
	v.Slices.Total += o.Slices.Total
	v.Slices.Equal += o.Slices.Equal
	v.Slices.Unequal += o.Slices.Unequal
	v.Slices.ByCount += o.Slices.ByCount
	v.Slices.ByPoints += o.Slices.ByPoints
	v.NotVerified += o.NotVerified
	v.add(&o.Findings, 1)
	for _, p := range o.Problems {
		v.AddProblem(p)
	}
	v.LeftOut += o.LeftOut
	v.Examples.Join(o.Examples)
}

// Extend joins the verdict of further slices of the same task to v.
func (v *Verdict) Extend(o *Verdict) {
	v.Add(o)
	v.Unproven = append(v.Unproven, o.Unproven...)
	v.Open.add(&o.Open, 1)
}

// Report turns the joined verdict of all tasks into the operation's report.
func (v *Verdict) Report(id string, depth Depth) Report {
	problems := v.Problems
	if problems == nil {
		problems = []Problem{}
	}
	notes := []string{}
	if depth == DepthCount {
		notes = append(notes, "slices of which both ends had the same counts were taken for equal without looking at their points, as depth=count asks")
	}
	if depth == "" {
		depth = DepthCount
	}
	return Report{
		OperationID: id, Depth: depth,
		Equal:  v.Slices.Equal == v.Slices.Total && v.Slices.Unequal == 0 && v.Missing == 0 && v.Different == 0,
		Slices: v.Slices, NotVerified: v.NotVerified, Points: v.Points,
		Missing: v.Missing, Extra: v.Extra, Different: v.Different, Examples: v.Examples, Expired: v.Expired,
		Replaced: v.Replaced, Returned: v.Returned, Unchanged: v.Unchanged, Dropped: v.Dropped, Kept: v.Kept,
		Problems: problems, Unreported: v.LeftOut, Notes: notes,
	}
}

// WithoutUnproven returns v without the slices that are copied once more, whose
// next verdict counts instead.
func (v Verdict) WithoutUnproven() Verdict {
	n := len(v.Unproven)
	v.Slices.Total -= n
	v.Slices.Unequal -= n
	v.add(&v.Open, -1)
	kept := make([]Problem, 0, len(v.Problems))
	for _, p := range v.Problems {
		if p.Code != CodeUnequal {
			kept = append(kept, p)
		}
	}
	// Their problems were kept or left out.
	v.LeftOut -= n - (len(v.Problems) - len(kept))
	v.Problems, v.Unproven, v.Open, v.Examples = kept, nil, Findings{}, Examples{}
	for i := range kept {
		v.Examples.Join(kept[i].Examples)
	}
	return v
}

// Settled returns v after the slices that were not proven have been compared once
// more and found equal, point by point.
func (v Verdict) Settled() Verdict {
	n, points := len(v.Unproven), v.Open.Points.Source
	v = v.WithoutUnproven()
	v.Slices.Total += n
	v.Slices.Equal += n
	v.Slices.ByPoints += n
	v.Points.Source += points
	v.Points.Destination += points
	return v
}

// The codes of problems that the verification itself finds.
const (
	// CodeUnequal: the owner lacks points of the source, or holds others than
	// the copy left there.
	CodeUnequal = "unequal"
	// CodeNotCopied: the copy of the slice did not end.
	CodeNotCopied = "not_copied"
	// CodeEarlierFailed: the slice was not copied, because another copy that was
	// to come first has failed.
	CodeEarlierFailed = "earlier_copy_failed"
	// CodeNotVerified: the slice could not be compared.
	CodeNotVerified = "not_verified"
)

// AddUnjudged counts the slices of a copy task that its verification, which
// failed, has not judged.
func (v *Verdict) AddUnjudged(verify, of *Task) {
	n := 0
	for i := range of.SliceCount() {
		if of.Phase == PhaseCompare && !of.Checkpoint.repaired(i) {
			continue // it was judged when it was compared
		}
		if of.Checkpoint.state(i) != SliceHandedOver && verify.Checkpoint.state(i) == SlicePending {
			n++
		}
	}
	if n == 0 {
		return
	}
	v.Slices.Total += n
	v.Slices.Unequal += n
	v.NotVerified += n
	p := Problem{SourceURL: of.Source, DestURL: of.Destination, Code: CodeNotVerified, Detail: fmt.Sprintf("%d slices of task %s were not verified", n, of.ID)}
	if verify.Error != nil {
		p.Detail += ": " + verify.Error.Detail
	}
	v.AddProblem(p)
}
