package dataset

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"ringmaster/pkg/lineproto"
)

// series makes a series of tags in the order of their keys.
func series(measurement string, tags ...lineproto.Tag) *lineproto.Series {
	return &lineproto.Series{Measurement: measurement, Tags: tags}
}

func weather(r *row, emit func(*Point) error) error {
	return emit(&Point{
		Series: series("weather", lineproto.Tag{Key: "location", Value: r.text("location")}),
		Fields: []string{"precipitation", "temp_max", "temp_min", "wind", "weather"},
		Values: []lineproto.Value{
			r.float("precipitation"), r.float("temp_max"), r.float("temp_min"), r.float("wind"), r.str("weather"),
		},
		Time: r.time("date", time.DateOnly),
	})
}

func normals(r *row, emit func(*Point) error) error {
	return emit(&Point{
		Series: series("hourly_normals", lineproto.Tag{Key: "location", Value: "Seattle"}),
		Fields: []string{"pressure", "temperature", "wind"},
		Values: []lineproto.Value{r.float("pressure"), r.float("temperature"), r.float("wind")},
		Time:   r.time("date", "2006-01-02T15:04:05"),
	})
}

func carbonDioxide(r *row, emit func(*Point) error) error {
	return emit(&Point{
		Series: series("co2"),
		Fields: []string{"CO2", "adjusted CO2"},
		Values: []lineproto.Value{r.float("CO2"), r.float("adjusted CO2")},
		Time:   r.time("Date", time.DateOnly),
	})
}

func electricity(r *row, emit func(*Point) error) error {
	return emit(&Point{
		Series: series("net_generation",
			lineproto.Tag{Key: "source", Value: r.text("source")}, lineproto.Tag{Key: "state", Value: "Iowa"}),
		Fields: []string{"gigawatt_hours"},
		Values: []lineproto.Value{r.integer("net_generation")},
		Time:   r.time("year", time.DateOnly),
	})
}

// fractional says of which industries the file gives fractions of a thousand; a
// field has one type in all of its points.
func fractional(industry string) bool {
	switch industry {
	case "wholesale_trade", "retail_trade", "transportation_and_warehousing", "utilities":
		return true
	default:
		return false
	}
}

// employment makes a measurement of each column, so that one row is a point of
// each: few series that have no tags.
func employment(r *row, emit func(*Point) error) error {
	at := r.time("month", time.DateOnly)
	for _, industry := range slices.Sorted(maps.Keys(r.columns)) {
		if industry == "month" {
			continue
		}
		value := r.integer
		if fractional(industry) {
			value = r.float
		}
		err := emit(&Point{
			Series: series("employment/" + industry),
			Fields: []string{"thousands"}, Values: []lineproto.Value{value(industry)}, Time: at,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// birdStrikes makes a measurement of each state. The file knows days only: the
// n-th report of a day lies n nanoseconds after its midnight, counted over the
// whole file, so that no report replaces another.
func birdStrikes(file *bufio.Reader, emit func(*Point) error) error {
	reports := map[int64]int64{}
	return rows(func(r *row, emit func(*Point) error) error {
		midnight := r.time("Flight Date", time.DateOnly)
		p := &Point{
			Series: series("bird strikes/"+r.text("Origin State"),
				lineproto.Tag{Key: "airport", Value: r.text("Airport Name")},
				lineproto.Tag{Key: "operator", Value: r.text("Aircraft Airline Operator")},
				lineproto.Tag{Key: "phase of flight", Value: r.text("Phase of flight")}),
			Fields: []string{
				"aircraft", "cost_other", "cost_repair", "cost_total", "damage", "size", "species", "speed_knots", "time of day",
			},
			Values: []lineproto.Value{
				r.str("Aircraft Make Model"), r.integer("Cost Other"), r.integer("Cost Repair"), r.integer("Cost Total $"),
				r.str("Effect Amount of damage"), r.str("Wildlife Size"), r.str("Wildlife Species"),
				r.integer("Speed IAS in knots"), r.str("Time of day"),
			},
			Time: midnight + reports[midnight],
		}
		reports[midnight]++
		return emit(p)
	})(file, emit)
}

// earthquake is what is used of a GeoJSON feature.
type earthquake struct {
	Properties struct {
		Magnitude float64  `json:"mag"`
		Place     string   `json:"place"`
		Time      int64    `json:"time"`
		Updated   int64    `json:"updated"`
		Felt      *int64   `json:"felt"`
		Alert     *string  `json:"alert"`
		Status    string   `json:"status"`
		Tsunami   int      `json:"tsunami"`
		Network   string   `json:"net"`
		Code      string   `json:"code"`
		Stations  *int64   `json:"nst"`
		RMS       *float64 `json:"rms"`
		Gap       *float64 `json:"gap"`
		Scale     string   `json:"magType"`
		Type      string   `json:"type"`
	} `json:"properties"`
	Geometry struct {
		Coordinates [3]float64 `json:"coordinates"`
	} `json:"geometry"`
}

// earthquakes streams the features of the GeoJSON file.
func earthquakes(file *bufio.Reader, emit func(*Point) error) error {
	in := json.NewDecoder(file)
	for name := json.Token(nil); name != "features"; {
		var err error
		if name, err = in.Token(); err != nil {
			return fmt.Errorf("looking for the features: %w", err)
		}
	}
	if _, err := in.Token(); err != nil { // the bracket that opens them
		return err
	}
	for in.More() {
		var q earthquake
		if err := in.Decode(&q); err != nil {
			return err
		}
		if err := emit(q.point()); err != nil {
			return err
		}
	}
	return nil
}

func (q *earthquake) point() *Point {
	p, at := &q.Properties, &q.Geometry.Coordinates
	return &Point{
		Series: series("earthquakes",
			lineproto.Tag{Key: "network", Value: p.Network}, lineproto.Tag{Key: "scale", Value: p.Scale},
			lineproto.Tag{Key: "status", Value: p.Status}, lineproto.Tag{Key: "type", Value: p.Type}),
		Fields: []string{
			"alert", "code", "depth_km", "felt", "gap", "latitude", "longitude", "magnitude",
			"place", "rms", "stations", "tsunami", "updated",
		},
		Values: []lineproto.Value{
			optional(p.Alert, lineproto.StringValue), lineproto.StringValue(p.Code), lineproto.FloatValue(at[2]),
			optional(p.Felt, lineproto.IntegerValue), optional(p.Gap, lineproto.FloatValue),
			lineproto.FloatValue(at[1]), lineproto.FloatValue(at[0]), lineproto.FloatValue(p.Magnitude),
			lineproto.StringValue(p.Place), optional(p.RMS, lineproto.FloatValue),
			optional(p.Stations, lineproto.IntegerValue), lineproto.BooleanValue(p.Tsunami != 0),
			lineproto.IntegerValue(p.Updated),
		},
		Time: p.Time * int64(time.Millisecond),
	}
}

// optional is Null for what the file has no value of.
func optional[T any](value *T, convert func(T) lineproto.Value) lineproto.Value {
	if value == nil {
		return lineproto.Value{}
	}
	return convert(*value)
}
