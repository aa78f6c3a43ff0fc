package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/dataset"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// TestRowsOfARealServerAreThoseOfTheFile writes real and awkward points and
// requires that the check finds nothing; and that it finds every kind of change.
func TestRowsOfARealServerAreThoseOfTheFile(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	files, err := dataset.Files()
	require.NoError(t, err)
	earthquakes := dataset.Public()[6]
	sets := []dataset.Set{earthquakes, dataset.Awkward()}
	require.NoError(t, dataset.Prepare(t.Context(), c, sets...))
	held := map[string]rows{}
	for i := range sets {
		tally, err := dataset.Load(t.Context(), &sets[i], files, func(_, _ string) (*influx.Client, error) { return c, nil })
		require.NoError(t, err)
		for m := range tally {
			held[m], err = server{s.URL()}.rows(t.Context(), place{sets[i].Database, sets[i].Policy.Name, m})
			require.NoError(t, err)
			require.Len(t, held[m], int(tally[m].Points))
		}
		for p, err := range sets[i].Points(files) {
			require.NoError(t, err)
			require.Empty(t, held[p.Series.Measurement].differ(rowKey(tagMap(p.Series.Tags), p.Time), p))
		}
	}

	all, err := server{s.URL()}.contents(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1707), all.points(place{"seismology", "century", "earthquakes"}))
	require.Equal(t, int64(13), all.points(place{"odds & ends", "for ever", "plain"}))

	for p, err := range earthquakes.Points(files) {
		require.NoError(t, err)
		quakes, key := held["earthquakes"], rowKey(tagMap(p.Series.Tags), p.Time)
		require.Equal(t, "it is not there", quakes.differ(key+"0", p))
		for i, changed := range map[int]lineproto.Value{
			5:  lineproto.FloatValue(math.Nextafter(34.4945, 90)), // latitude
			7:  lineproto.IntegerValue(2),                         // magnitude, a float
			8:  lineproto.StringValue("elsewhere"),                // place
			11: lineproto.BooleanValue(true),                      // tsunami
			12: lineproto.IntegerValue(1517966996304),             // updated
		} {
			was := p.Values[i]
			p.Values[i] = changed
			require.Contains(t, quakes.differ(key, p), fmt.Sprintf("field %q is", p.Fields[i]))
			p.Values[i] = was
		}
		require.Empty(t, quakes.differ(key, p))
		p.Values[12] = lineproto.Value{}
		require.Equal(t, "it has 11 fields, want 10", quakes.differ(key, p))
		break
	}
}

func TestWrittenAndTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value lineproto.Value
		json  any
		kind  string
	}{
		{lineproto.FloatValue(3), json.Number("3"), "float"},
		{lineproto.FloatValue(math.Copysign(0, -1)), json.Number("-0"), "float"},
		{lineproto.FloatValue(1e300), json.Number("1e+300"), "float"},
		{lineproto.FloatValue(1e21), json.Number("1000000000000000000000"), "float"},
		{lineproto.IntegerValue(math.MinInt64), json.Number("-9223372036854775808"), "integer"},
		{lineproto.BooleanValue(true), true, "boolean"},
		{lineproto.StringValue("i"), "i", "string"},
		{lineproto.StringValue(""), "", "string"},
	} {
		got, err := told(c.kind, c.json)
		require.NoError(t, err)
		require.Equal(t, written(c.value), got)
	}
	require.NotEqual(t, written(lineproto.FloatValue(3)), written(lineproto.IntegerValue(3)))
	require.NotEqual(t, written(lineproto.FloatValue(0)), written(lineproto.FloatValue(math.Copysign(0, -1))))
	require.NotEqual(t, written(lineproto.StringValue("true")), written(lineproto.BooleanValue(true)))
	_, err := told("string", json.Number("1"))
	require.Error(t, err)
	_, err = told("integer", json.Number("1.5"))
	require.Error(t, err)
}

func TestCheckerSaysWhatItFound(t *testing.T) {
	t.Parallel()
	c := &checker{}
	require.NoError(t, c.verdict())
	for i := range 12 {
		c.found("difference %d", i)
	}
	require.EqualError(t, c.verdict(), "12 differences, the first of them:\n   difference 0\n   difference 1\n   difference 2\n"+
		"   difference 3\n   difference 4\n   difference 5\n   difference 6\n   difference 7\n   difference 8\n   difference 9")
}

// TestCheckFindsWhatIsWrong runs the comparisons over contents that differ.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := place{"metrics", "raw", "m"}
	d := &demo{
		loaded: []loadedSet{{
			Set:   dataset.Set{Database: "metrics", Policy: influx.RetentionPolicy{Name: "raw"}},
			tally: dataset.Tally{"m": {Points: 2, Values: map[string]int64{"f": 2}}},
		}},
		owners: owners{known: map[[2]string]string{{"metrics", "m"}: "new"}},
		before: map[string]contents{"old": {m: {"f": 2}}},
	}
	for name, c := range map[string]struct {
		after map[string]contents
		wrong []string
	}{
		"all is well": {map[string]contents{"old": {m: {"f": 2}}, "new": {m: {"f": 2}}}, nil},
		"missing": {
			map[string]contents{"old": {m: {"f": 2}}},
			[]string{`metrics.raw.m, field "f": 2 values were written, new has 0`},
		},
		"one short": {
			map[string]contents{"old": {m: {"f": 2}}, "new": {m: {"f": 1}}},
			[]string{`metrics.raw.m, field "f": 2 values were written, new has 1`},
		},
		"too much": {
			map[string]contents{"old": {m: {"f": 2}}, "new": {m: {"f": 2, "g": 1}}},
			[]string{"metrics.raw.m has fields that nobody wrote: [f g]"},
		},
		"deleted": {
			map[string]contents{"new": {m: {"f": 2}}},
			[]string{"old held map[f:2] of metrics.raw.m and holds map[]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run, found := *d, &checker{}
			run.after = c.after
			_, err := run.checkCounts(t.Context(), found)
			require.NoError(t, err)
			run.checkKept(found)
			require.Equal(t, c.wrong, found.wrong)
		})
	}
}

func TestServerErrorsAreErrors(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"error":"unauthorized"}`:                        "unauthorized",
		`{"results":[{"error":"database not found: x"}]}`: "database not found: x",
		`{"results":[]}`:                                  "0 results",
		`not JSON`:                                        "200 OK",
		`{"results":[{"series":[{"name":"m","columns":["a"]}]}`: "EOF",
		`{"results":[{"statement_id":0},{"statement_id":1}]}`:   "2 results",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		_, err := server{s.URL}.query(t.Context(), "SHOW DATABASES")
		s.Close()
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "SHOW DATABASES")
	}
}
