package operation

import (
	"encoding/json"
	"time"
)

// sliceJSON is a slice as it is written: its times in RFC 3339, as all times of
// the API and of the records are. Every int64 of nanoseconds has such a form.
type sliceJSON struct {
	Database        string    `json:"database"`
	RetentionPolicy string    `json:"retention_policy"`
	Measurement     string    `json:"measurement"`
	From            time.Time `json:"from"`
	To              time.Time `json:"to"`
	Last            bool      `json:"last,omitempty"`
	Points          int64     `json:"points,omitempty"`
	Overlap         bool      `json:"overlap,omitempty"`
	Expired         bool      `json:"expired,omitempty"`
	Halved          int       `json:"halved,omitempty"`
}

// MarshalJSON writes the window's times in RFC 3339, in UTC.
func (s Slice) MarshalJSON() ([]byte, error) {
	return json.Marshal(sliceJSON{
		Database: s.Database, RetentionPolicy: s.RetentionPolicy, Measurement: s.Measurement,
		From: time.Unix(0, s.From).UTC(), To: time.Unix(0, s.To).UTC(),
		Last: s.Last, Points: s.Points, Overlap: s.Overlap, Expired: s.Expired, Halved: s.Halved,
	})
}

// UnmarshalJSON reads what MarshalJSON has written.
func (s *Slice) UnmarshalJSON(data []byte) error {
	var j sliceJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*s = Slice{
		Database: j.Database, RetentionPolicy: j.RetentionPolicy, Measurement: j.Measurement,
		From: j.From.UnixNano(), To: j.To.UnixNano(),
		Last: j.Last, Points: j.Points, Overlap: j.Overlap, Expired: j.Expired, Halved: j.Halved,
	}
	return nil
}
