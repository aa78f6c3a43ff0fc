package operation

// Report is the verification report that ends a move.
type Report struct {
	OperationID string `json:"operation_id"`
	// Depth is the depth asked for, count unless another was; slices that counts
	// could not prove were compared point by point whatever it is.
	Depth Depth `json:"depth"`
	// Equal is true when every slice is proven and the owners hold no other
	// value anywhere for a point of a source.
	Equal  bool        `json:"equal"`
	Slices SliceTotals `json:"slices"`
	// NotVerified counts the slices that were not compared: those counted as unequal
	// for that, and those that nobody came to.
	NotVerified int          `json:"not_verified"`
	Points      ReportPoints `json:"points"`
	Missing     int64        `json:"missing"`
	Extra       int64        `json:"extra"`
	Different   int64        `json:"different"`
	// Examples are one point of each of these kinds.
	Examples Examples `json:"examples,omitzero"`
	Expired  int64    `json:"expired"`
	// Replaced counts the points of which the destination had another value that
	// gave way to the source's, by the rule of the kind.
	Replaced int64 `json:"replaced"`
	// Returned counts the points that the sources of a resync lacked and have been
	// given.
	Returned int64 `json:"returned"`
	// Unchanged is what was found equal at both ends and not copied; Dropped and
	// Kept are what a clear has removed and what it had to leave.
	Unchanged Amount `json:"unchanged"`
	Dropped   Amount `json:"dropped"`
	Kept      Amount `json:"kept"`
	// Repair says what a verification with repair has done about what it found,
	// which is what the counts above say; Equal is about what is left.
	Repair     *Repair   `json:"repair,omitempty"`
	Problems   []Problem `json:"problems"`
	Unreported int       `json:"problems_left_out,omitempty"`
	// Moves says what is where, by pairs of backends.
	Moves []MoveStanding `json:"moves,omitempty"`
	// Notes are what a person should know about how this was found out.
	Notes []string `json:"notes,omitempty"`
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

// Repair is what a verification has done about the points that one side lacked.
type Repair struct {
	// From is the side they were copied from.
	From Side `json:"from"`
	// Copied counts them.
	Copied int64 `json:"copied"`
	// Left is what a comparison after that has found.
	Left Differences `json:"left"`
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
	Replaced    int64  `json:"replaced,omitempty"`
	// Copied counts the points that a repair has copied.
	Copied int64 `json:"copied,omitempty"`
	// Example is one point that differs, as a person would look for it; Examples
	// are one of each kind.
	Example    string   `json:"example,omitempty"`
	Examples   Examples `json:"examples,omitzero"`
	Resolution string   `json:"resolution,omitempty"`
	Code       string   `json:"code,omitempty"`
	Detail     string   `json:"detail,omitempty"`
}

// size is about what the problem takes in a record.
func (p *Problem) size() int {
	return problemOverhead + p.Slice.nameBytes() + len(p.SourceURL) + len(p.DestURL) + len(p.Example) + p.Examples.size() + len(p.Detail)
}

const problemOverhead = 400

// Resolutions of a problem.
const (
	// ResolutionOwnerKept: the owner's own value was kept, as in every rebalance.
	ResolutionOwnerKept = "owner_value_kept"
	// ResolutionExtra: the owner holds points the source does not have.
	ResolutionExtra = "owner_holds_more"
	// ResolutionSourceWon: the source's value replaced the destination's.
	ResolutionSourceWon = "source_value_won"
	// ResolutionKept: a clear has left the slice where it is.
	ResolutionKept = "kept"
	// ResolutionRepaired: what one side lacked was copied from the other.
	ResolutionRepaired = "repaired"
	// ResolutionExpired: retention removed the points meanwhile.
	ResolutionExpired = "expired"
)
