package operation

// MoveStanding is how far an operation has come between two backends: what is where
// when it ends.
type MoveStanding struct {
	Source      string         `json:"source_backend"`
	Destination string         `json:"destination_backend"`
	Slices      SliceStanding  `json:"slices"`
	Points      PointsStanding `json:"points"`
}

// SliceStanding counts slices by what has become of them. Verified ones are among the
// copied.
type SliceStanding struct {
	Total    int `json:"total"`
	Copied   int `json:"copied"`
	Verified int `json:"verified"`
	Dropped  int `json:"dropped"`
	Failed   int `json:"failed"`
}

// PointsStanding counts points likewise; Copied includes those that were there
// already.
type PointsStanding struct {
	Copied   int64 `json:"copied"`
	Verified int64 `json:"verified"`
	Dropped  int64 `json:"dropped"`
}

// Add adds another standing's counts.
func (m *MoveStanding) Add(o *MoveStanding) {
	m.Slices.Total += o.Slices.Total
	m.Slices.Copied += o.Slices.Copied
	m.Slices.Verified += o.Slices.Verified
	m.Slices.Dropped += o.Slices.Dropped
	m.Slices.Failed += o.Slices.Failed
	m.Points.Copied += o.Points.Copied
	m.Points.Verified += o.Points.Verified
	m.Points.Dropped += o.Points.Dropped
}

// Interrupt makes r the report of an operation that was ended before it was through:
// slices that nobody came to are counted and not equal.
func (r *Report) Interrupt(note string) {
	var total MoveStanding
	for i := range r.Moves {
		total.Add(&r.Moves[i])
	}
	r.Equal = false
	if over := total.Slices.Total - r.Slices.Total; over > 0 {
		r.Slices.Total += over
		r.NotVerified += over
	}
	r.Notes = append(r.Notes, note)
}
