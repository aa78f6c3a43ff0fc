package operation

import "math/bits"

// Window is a part of time; see Slice.
type Window struct {
	From, To int64
	Last     bool
	// Overlap: more than one shard group covers it.
	Overlap bool
	// Expired: it lies before the retention cutoff.
	Expired bool
}

// Candidate is one measurement window that has to move, as the survey saw it.
type Candidate struct {
	From, To, Wave int
	Rule
	Database        string
	RetentionPolicy string
	Measurement     string
	Window          Window
	// Points is the estimate.
	Points int64
	// Series is how many series the measurement has, 0 where nobody has counted.
	Series int64
	// PointBytes is about what a point takes as a line of line protocol, 0 where
	// none has been looked at.
	PointBytes int64
	// First and Last are the times of the first and last point in the window,
	// where the survey has looked (Looked); the window is then cut between them.
	First, Last int64
	Looked      bool
}

// Cut divides a candidate into slices of about the given number of points by
// equal parts of the time its points span. Together the slices cover the whole
// window; none is narrower than a nanosecond.
func Cut(c Candidate, limit int64) []Slice {
	whole := Slice{
		Database: c.Database, RetentionPolicy: c.RetentionPolicy, Measurement: c.Measurement,
		From: c.Window.From, To: c.Window.To, Last: c.Window.Last, Points: c.Points,
		Overlap: c.Window.Overlap, Expired: c.Window.Expired,
	}
	if limit <= 0 || c.Points <= limit || c.Window.Expired {
		return []Slice{whole}
	}
	n := min((c.Points-1)/limit+1, maxParts)
	span := whole
	if c.Looked && whole.From <= c.First && c.First < c.Last && c.Last < whole.To {
		span.From, span.To, span.Last = c.First, c.Last+1, false
	}
	parts := span.Split(int(n))
	parts[0].From = whole.From
	last := &parts[len(parts)-1]
	last.To, last.Last = whole.To, whole.Last
	return parts
}

// maxParts bounds what one window is cut into at first; parts that are too large
// all the same are cut again while they are copied.
const maxParts = 100_000

// Split divides a slice into at most n parts of equal time; it returns the slice
// itself when there is nothing to divide.
func (s Slice) Split(n int) []Slice {
	// The width may exceed the largest int64, as legal time spans nearly 2^64.
	width := uint64(s.To) - uint64(s.From)
	if n > 1 && uint64(n) > width {
		n = int(width)
	}
	if n < 2 {
		return []Slice{s}
	}
	parts := make([]Slice, n)
	from := s.From
	for i := range parts {
		p := s
		p.From = from
		if i < n-1 {
			hi, lo := bits.Mul64(width, uint64(i+1))
			offset, _ := bits.Div64(hi, lo, uint64(n))
			p.To = int64(uint64(s.From) + offset)
			p.Last = false
		}
		p.Points = s.Points/int64(n) + btoi(int64(i) < s.Points%int64(n))
		parts[i] = p
		from = p.To
	}
	return parts
}

func btoi(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
