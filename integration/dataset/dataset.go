// Package dataset turns public measurements and generated ones into points: for
// the demonstration, and for tests that want real input.
//
// Each [Set] says into which database and retention policy it goes and streams
// its points; [Load] writes them to the servers that own them. The files of the
// public sets lie in integration/testdata, with their sources.
package dataset

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// Set is a number of measurements that go into one retention policy.
type Set struct {
	// Name says in a few words what the set holds, Source who published it.
	Name, Source string
	// File is its file in integration/testdata; a generated set has none.
	File     string
	Database string
	Policy   influx.RetentionPolicy

	read reader
}

// reader calls emit for every point of a file. An error of emit ends it.
type reader func(file *bufio.Reader, emit func(*Point) error) error

// Point is one point of a set: no two of a set have the same series and time.
type Point struct {
	// Series and Fields may be those of the point before: the same pointer means
	// the same series and fields.
	Series *lineproto.Series
	// Fields are the names of the fields and Values their values; a field that
	// the point lacks is Null.
	Fields []string
	Values []lineproto.Value
	// Time is in nanoseconds since the Unix epoch.
	Time int64
}

// Files returns the directory of the public sets' files, from any working
// directory inside the module.
func Files() (fs.FS, error) {
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	return os.DirFS(filepath.Join(root, "integration", "testdata")), nil
}

// Points streams the points of the set, in constant memory. A point is valid
// until the next one. After an error there are no more.
func (s *Set) Points(files fs.FS) iter.Seq2[*Point, error] {
	return func(yield func(*Point, error) bool) {
		var file *bufio.Reader
		if s.File != "" {
			f, err := files.Open(s.File)
			if err != nil {
				yield(nil, fmt.Errorf("opening %s: %w", s.Name, err))
				return
			}
			defer f.Close()
			file = bufio.NewReader(f)
		}
		err := s.read(file, func(p *Point) error {
			if !yield(p, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("reading %s: %w", s.Name, err))
		}
	}
}

// errStopped ends a reader whose consumer wants no more.
var errStopped = errors.New("stopped")

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// kept is a retention policy that keeps points for ever.
func kept(name string, shards time.Duration, isDefault bool) influx.RetentionPolicy {
	return influx.RetentionPolicy{Name: name, ShardDuration: shards, Replication: 1, Default: isDefault}
}

// Public returns the public sets, the default policy of each database first. All
// of it is old, so policies keep it for ever or for a century.
func Public() []Set {
	century := kept("century", day, true)
	century.Duration = 5200 * week
	return []Set{
		{
			Name: "daily weather", Source: "NOAA", File: "weather.csv",
			Database: "climate", Policy: kept("daily", 52*week, true), read: rows(weather),
		},
		{
			Name: "hourly normals", Source: "NOAA", File: "seattle-weather-hourly-normals.csv",
			Database: "climate", Policy: kept("normals", 4*week, false), read: rows(normals),
		},
		{
			Name: "CO2 since 1958", Source: "Scripps CO2 Program", File: "co2-concentration.csv",
			Database: "climate", Policy: kept("long_term", 520*week, false), read: rows(carbonDioxide),
		},
		{
			Name: "employment", Source: "BLS", File: "us-employment.csv",
			Database: "economy", Policy: kept("monthly", 52*week, true), read: rows(employment),
		},
		{
			Name: "electricity", Source: "EIA", File: "iowa-electricity.csv",
			Database: "economy", Policy: kept("yearly", 520*week, false), read: rows(electricity),
		},
		{
			Name: "bird strikes", Source: "FAA", File: "birdstrikes.csv",
			Database: "aviation", Policy: kept("reports", 52*week, true), read: birdStrikes,
		},
		{
			Name: "earthquakes", Source: "USGS", File: "earthquakes.json",
			Database: "seismology", Policy: century, read: earthquakes,
		},
	}
}
