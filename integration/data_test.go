package integration_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
)

// day is a width of shard groups that several tests use.
const day = 24 * time.Hour

// firstTime is where generated series begin, at a border of shard groups.
const firstTime = 1_699_833_600_000_000_000

// series generates points of one measurement: two tags, a float and an integer,
// a point every ten seconds.
func generate(measurement string, points int) string {
	var b strings.Builder
	for i := range points {
		b.WriteString(measurement)
		b.WriteString(",host=h")
		b.WriteString(strconv.Itoa(i % 10))
		b.WriteString(",zone=z value=")
		b.WriteString(strconv.FormatFloat(float64(i*7919%100_000)/1999, 'g', -1, 64))
		b.WriteString(",count=")
		b.WriteString(strconv.Itoa(i))
		b.WriteString("i ")
		b.WriteString(strconv.FormatInt(int64(firstTime)+int64(i/10)*10_000_000_000, 10))
		b.WriteByte('\n')
	}
	return b.String()
}

// fill creates a database and writes generated measurements m000, m001, ….
func (b *backend) fill(db string, measurements, points int) {
	b.t.Helper()
	b.exec(`CREATE DATABASE "` + db + `"`)
	for m := range measurements {
		b.write(db, "", generate(fmt.Sprintf("m%03d", m), points))
	}
}

// requireHolds requires that a server holds every point of want with the same
// type and value, and nothing else of those measurements.
func requireHolds(t testing.TB, what string, want, have harness.Points) {
	t.Helper()
	if d := harness.Diff(want, have); len(d) > 0 {
		require.Failf(t, what, "%d values are wanted, %d are there; the first that differ:\n%s", len(want), len(have), strings.Join(d, "\n"))
	}
	if len(have) > len(want) {
		require.Failf(t, what, "there is more than wanted: %v", harness.Diff(have, want))
	}
}

// requireMoved requires that every measurement of the sources is at its owner,
// point by point, and that the sources still hold what they held.
func (in *installation) requireMoved(circle int, sources, owners []*backend, databases ...string) {
	in.t.Helper()
	wanted := map[harness.Place]harness.Points{}
	for _, b := range sources {
		for place, points := range b.dump() {
			if !slices.Contains(databases, place.Database) {
				continue
			}
			if wanted[place] == nil {
				wanted[place] = harness.Points{}
			}
			maps.Copy(wanted[place], points)
		}
	}
	require.NotEmpty(in.t, wanted)
	held := map[string]map[harness.Place]harness.Points{}
	for _, b := range owners {
		held[b.URL()] = b.dump()
	}
	for place, points := range wanted {
		url := in.owner(circle, place.Database, place.Measurement)
		if through, ok := in.behind[url]; ok {
			url = through
		}
		requireHolds(in.t, fmt.Sprintf("%v at %s", place, url), points, held[url][place])
	}
}
