package operation

import (
	"encoding/json"
	"fmt"
)

// Side names one of the two sides that a verification compares.
type Side string

// The sides of a verification.
const (
	// SideCircle is the circle that the verification is about.
	SideCircle Side = "circle"
	// SideAgainst is what that circle is compared with.
	SideAgainst Side = "against"
)

// Verify are the parameters of KindVerify: what the owners of one circle hold is
// compared with what those of another hold. Within one circle, what lies where it
// does not belong is compared with its owners.
type Verify struct {
	// CircleID is the circle's index in the configuration, from 0.
	CircleID int `json:"circle_id"`
	// AgainstCircleID is the circle it is compared with; the circle itself means
	// what lies in wrong places there. Left out, it is the lowest other circle, or
	// the circle itself where there is no other.
	AgainstCircleID *int `json:"against_circle_id,omitempty"`
	// Repair copies the points that one side lacks from the other, RepairFrom. It
	// replaces no value and deletes nothing.
	Repair     bool `json:"repair,omitempty"`
	RepairFrom Side `json:"repair_from,omitempty"`
	Since
	Tuning
}

// ParseVerify reads and checks verify parameters. Where no depth is given it is the
// deepest.
func ParseVerify(raw json.RawMessage) (Verify, error) {
	var p Verify
	if err := decodeStrict(raw, &p); err != nil {
		return p, err
	}
	if err := requireCircles(raw, "circle_id"); err != nil {
		return p, err
	}
	if err := p.validate(); err != nil {
		return p, err
	}
	if p.Depth == "" {
		p.Depth = DepthDigest
	}
	return p, nil
}

func (p *Verify) validate() error {
	switch {
	case p.CircleID < 0:
		return &InvalidError{Field: "circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	case p.AgainstCircleID != nil && *p.AgainstCircleID < 0:
		return &InvalidError{Field: "against_circle_id", Problem: "is negative", Hint: "give the index of the circle, starting at 0"}
	case !p.Repair && p.RepairFrom != "":
		return &InvalidError{Field: "repair_from", Problem: "is given without repair", Hint: "leave it out, or set repair to true for what is missing to be copied"}
	case p.Repair && p.RepairFrom == "":
		return &InvalidError{Field: "repair_from", Problem: "is missing", Hint: "name the side to copy from: circle (circle_id) or against (against_circle_id)"}
	case p.Repair && p.RepairFrom != SideCircle && p.RepairFrom != SideAgainst:
		return &InvalidError{Field: "repair_from", Problem: fmt.Sprintf("%q is not a side", p.RepairFrom), Hint: "use circle (circle_id) or against (against_circle_id)"}
	}
	if err := p.Since.validate(); err != nil {
		return err
	}
	return p.Tuning.validate()
}

// CheckAmong refuses a repair that has no second circle in a configuration of n.
func (p Verify) CheckAmong(n int) error {
	if !p.Repair || p.Against(n) != p.CircleID {
		return nil
	}
	return &InvalidError{
		Field: "repair", Problem: "is asked for within one circle",
		Hint: "start a rebalance: it brings what lies in wrong places to its owners and proves it",
	}
}

// Against is the circle it is compared with in a configuration of n circles.
func (p Verify) Against(n int) int {
	switch {
	case p.AgainstCircleID != nil:
		return *p.AgainstCircleID
	case p.CircleID != 0:
		return 0
	case n > 1:
		return 1
	default:
		return p.CircleID
	}
}

// Circles implements Move: the circle and what it is compared with.
func (p Verify) Circles(n int) []int {
	if against := p.Against(n); against != p.CircleID {
		return []int{p.CircleID, against}
	}
	return []int{p.CircleID}
}

// VerifyReport turns the joined verdict of a verification into its report: it is
// equal when both ends of every slice hold the same, after the repair if there is
// one.
func (v *Verdict) VerifyReport(id string, p Verify) Report {
	r := v.Report(id, p.Depth)
	r.Equal = v.Slices.Equal == v.Slices.Total && v.Slices.Unequal == 0
	if p.Repair {
		r.Repair = &Repair{From: p.RepairFrom, Copied: v.Copied, Left: v.Left}
	}
	return r
}

// AddUncompared counts the slices of a verification's task that it has not come to.
func (v *Verdict) AddUncompared(task *Task) {
	n := 0
	for i := range task.SliceCount() {
		// What was found and not repaired after all has not been judged either.
		if state := task.Checkpoint.state(i); state == SlicePending || state == SliceCompared {
			n++
		}
	}
	if n == 0 {
		return
	}
	v.Slices.Total += n
	v.Slices.Unequal += n
	v.NotVerified += n
	p := Problem{SourceURL: task.Source, DestURL: task.Destination, Code: CodeNotVerified, Detail: fmt.Sprintf("%d slices of task %s were not compared, or not repaired", n, task.ID)}
	if task.Error != nil {
		p.Detail = Clip(p.Detail + ": " + task.Error.Detail)
	}
	v.AddProblem(p)
}
