package operation

import "time"

// Example is one point of which two backends hold different things, as a person
// would look for it. Long names and values are shortened.
type Example struct {
	Database        string `json:"database"`
	RetentionPolicy string `json:"retention_policy"`
	// Series is the measurement and its tags, each quoted.
	Series string    `json:"series"`
	Time   time.Time `json:"time"`
	// Field is one that differs, Source and Destination are its values at both
	// ends as line protocol writes them; empty where it has none.
	Field       string `json:"field"`
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
}

func (e *Example) size() int {
	if e == nil {
		return 0
	}
	return exampleOverhead + len(e.Database) + len(e.RetentionPolicy) + len(e.Series) + len(e.Field) + len(e.Source) + len(e.Destination)
}

const exampleOverhead = 150

// Examples are one of each kind of difference; nil where there is none.
type Examples struct {
	// Missing is one of a point of the source of which the destination lacks
	// something, Extra one of which the destination holds more, Different one of
	// which it holds another value.
	Missing   *Example `json:"missing,omitempty"`
	Extra     *Example `json:"extra,omitempty"`
	Different *Example `json:"different,omitempty"`
}

// Join takes over the kinds of which e has none.
func (e *Examples) Join(o Examples) {
	for _, kind := range []struct{ own, other **Example }{{&e.Missing, &o.Missing}, {&e.Extra, &o.Extra}, {&e.Different, &o.Different}} {
		if *kind.own == nil {
			*kind.own = *kind.other
		}
	}
}

func (e *Examples) size() int { return e.Missing.size() + e.Extra.size() + e.Different.size() }

// Differences count points that differ, by kind.
type Differences struct {
	Missing   int64 `json:"missing"`
	Extra     int64 `json:"extra"`
	Different int64 `json:"different"`
}

// Any reports whether there are any.
func (d Differences) Any() bool { return d != Differences{} }

func (d *Differences) add(o Differences, sign int64) {
	d.Missing += sign * o.Missing
	d.Extra += sign * o.Extra
	d.Different += sign * o.Different
}
