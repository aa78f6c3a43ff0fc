package dataset_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/integration/dataset"
	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func files(t testing.TB) fs.FS {
	t.Helper()
	f, err := dataset.Files()
	require.NoError(t, err)
	return f
}

// all are the public sets and small generated ones.
func all() []dataset.Set {
	return append(dataset.Public(), dataset.Metrics(3, 500), dataset.Hourly(2, 100), dataset.Awkward())
}

func TestPublicSetsHaveAPointForEveryRowOfTheirFile(t *testing.T) {
	t.Parallel()
	for _, s := range dataset.Public() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			raw, err := fs.ReadFile(files(t), s.File)
			require.NoError(t, err)
			var want int
			if s.File == "earthquakes.json" {
				var counted struct {
					Metadata struct{ Count int }
				}
				require.NoError(t, json.Unmarshal(raw, &counted))
				want = counted.Metadata.Count
			} else {
				rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
				require.NoError(t, err)
				want = len(rows) - 1
				if s.Name == "employment" { // a point of each column but the month
					want *= len(rows[0]) - 1
				}
			}
			got := 0
			for _, err := range s.Points(files(t)) {
				require.NoError(t, err)
				got++
			}
			require.Equal(t, want, got)
		})
	}
}

func TestNoTwoPointsOfASetAreOne(t *testing.T) {
	t.Parallel()
	for _, s := range all() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			seen := map[string]bool{}
			for p, err := range s.Points(files(t)) {
				require.NoError(t, err)
				key := fmt.Sprintf("%q %d", p.Series.AppendKey(nil), p.Time)
				require.False(t, seen[key], "%s", key)
				seen[key] = true
			}
		})
	}
}

func TestAFieldHasOneType(t *testing.T) {
	t.Parallel()
	for _, s := range all() {
		kinds := map[[2]string]lineproto.Kind{}
		for p, err := range s.Points(files(t)) {
			require.NoError(t, err)
			require.Len(t, p.Values, len(p.Fields))
			for i, v := range p.Values {
				if v.Kind == lineproto.Null {
					continue
				}
				field := [2]string{p.Series.Measurement, p.Fields[i]}
				if _, ok := kinds[field]; !ok {
					kinds[field] = v.Kind
				}
				require.Equal(t, kinds[field], v.Kind, "%s: %v", s.Name, field)
			}
		}
	}
}

// TestPointsSayWhatTheFilesSay reads one known row of each file.
func TestPointsSayWhatTheFilesSay(t *testing.T) {
	t.Parallel()
	at := func(text string) int64 {
		when, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
		return when.UnixNano()
	}
	want := map[string]string{
		"daily weather":  fmt.Sprint(`weather,location=Seattle precipitation=10.9,temp_max=10.6,temp_min=2.8,wind=4.5,weather="rain" `, at("2012-01-02T00:00:00Z")),
		"hourly normals": fmt.Sprint(`hourly_normals,location=Seattle pressure=1016.6,temperature=4,wind=3.8 `, at("2010-01-01T01:00:00Z")),
		"CO2 since 1958": fmt.Sprint(`co2 CO2=315.7,adjusted\ CO2=314.44 `, at("1958-03-01T00:00:00Z")),
		"employment":     fmt.Sprint(`employment/wholesale_trade thousands=5840.4 `, at("2006-01-01T00:00:00Z")),
		"electricity":    fmt.Sprint(`net_generation,source=Fossil\ Fuels,state=Iowa gigawatt_hours=35361i `, at("2001-01-01T00:00:00Z")),
		"bird strikes": fmt.Sprint(`bird\ strikes/Louisiana,airport=BARKSDALE\ AIR\ FORCE\ BASE\ ARPT,operator=MILITARY,phase\ of\ flight=Climb `+
			`aircraft="T-38A",cost_other=0i,cost_repair=0i,cost_total=0i,damage="None",size="Large",species="Turkey vulture",speed_knots=300i,time\ of\ day="Day" `,
			at("1990-01-08T00:00:00Z")),
		"earthquakes": `earthquakes,network=ci,scale=ml,status=automatic,type=earthquake code="37868143",depth_km=26.49,gap=174,` +
			`latitude=34.4945,longitude=-118.6671667,magnitude=2,place="4km W of Castaic, CA",rms=0.35,stations=7i,tsunami=false,` +
			`updated=1517966996303i 1517966773840000000`,
	}
	for _, s := range dataset.Public() {
		var lines []byte
		var encoder lineproto.Encoder
		for p, err := range s.Points(files(t)) {
			require.NoError(t, err)
			require.NoError(t, encoder.SetSeries(p.Series, p.Fields))
			lines, err = encoder.AppendRow(lines, p.Time, p.Values)
			require.NoError(t, err)
		}
		require.Contains(t, string(lines), want[s.Name]+"\n", s.Name)
	}
}

func TestReportsOfOneDayAreNanosecondsApart(t *testing.T) {
	t.Parallel()
	midnight := time.Date(1999, 10, 19, 0, 0, 0, 0, time.UTC).UnixNano()
	times := map[int64]bool{}
	for _, s := range dataset.Public() {
		if s.Name != "bird strikes" {
			continue
		}
		for p, err := range s.Points(files(t)) {
			require.NoError(t, err)
			if p.Time >= midnight && p.Time < midnight+int64(24*time.Hour) {
				times[p.Time-midnight] = true
			}
		}
	}
	require.Len(t, times, 16) // the file has 16 of that day
	require.True(t, times[0] && times[15])
}

func TestWrongFilesAreNamedWithTheLine(t *testing.T) {
	t.Parallel()
	const header = "location,date,precipitation,temp_max,temp_min,wind,weather\n"
	weather := dataset.Public()[0]
	for name, c := range map[string]struct{ content, want string }{
		"not a number":   {header + "Seattle,2012-01-01,0,12,5,4,rain\nSeattle,2012-01-02,wet,12,5,4,rain\n", `line 3: column "precipitation"`},
		"not a date":     {header + "Seattle,yesterday,0,12,5,4,rain\n", `line 2: column "date"`},
		"a column short": {"location,date\nSeattle,2012-01-01\n", `line 2: there is no column "precipitation"`},
		"a cell short":   {header + "Seattle,2012-01-01\n", "wrong number of fields"},
		"nothing":        {"", "reading the names of the columns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failed error
			for _, err := range weather.Points(fstest.MapFS{weather.File: {Data: []byte(c.content)}}) {
				if err != nil {
					require.NoError(t, failed, "there is more after an error")
					failed = err
				}
			}
			require.ErrorContains(t, failed, "reading daily weather")
			require.ErrorContains(t, failed, c.want)
		})
	}
	for _, err := range weather.Points(fstest.MapFS{}) {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

func TestAReaderMayStop(t *testing.T) {
	t.Parallel()
	for _, s := range all() {
		n := 0
		for _, err := range s.Points(files(t)) {
			require.NoError(t, err)
			if n++; n == 3 {
				break
			}
		}
		require.Equal(t, 3, n, s.Name)
	}
}

func TestGeneratedSetsHaveThePointsAskedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set                 dataset.Set
		measurements, total int
	}{
		"metrics": {dataset.Metrics(3, 501), 3, 1503},
		"few":     {dataset.Metrics(2, 7), 2, 14},
		"none":    {dataset.Metrics(2, 0), 0, 0},
		"hourly":  {dataset.Hourly(2, 50), 2, 100},
		"awkward": {dataset.Awkward(), 4, 52},
	} {
		names, total := map[string]bool{}, 0
		for p, err := range c.set.Points(nil) {
			require.NoError(t, err)
			names[p.Series.Measurement] = true
			total++
		}
		require.Len(t, names, c.measurements, name)
		require.Equal(t, c.total, total, name)
	}
}

// TestLoadRoundTrip writes every set to two real servers and reads all of it
// back: the same values, of the same types, in the policies asked for.
func TestLoadRoundTrip(t *testing.T) {
	t.Parallel()
	var servers []*influx.Client
	for range 2 {
		c, err := influx.New(influx.Endpoint{URL: influxtest.Start(t).URL()}, influx.Options{})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		require.NoError(t, dataset.Prepare(t.Context(), c, all()...))
		servers = append(servers, c)
	}
	owner := func(_, measurement string) (*influx.Client, error) {
		return servers[len(measurement)%2], nil
	}
	want := []map[harness.Place]harness.Points{{}, {}}
	policies := map[string][]influx.RetentionPolicy{}
	for _, s := range all() {
		tally, err := dataset.Load(t.Context(), &s, files(t), owner)
		require.NoError(t, err)
		var points int64
		values := map[[2]string]int64{}
		for p, err := range s.Points(files(t)) {
			require.NoError(t, err)
			points++
			at := want[len(p.Series.Measurement)%2]
			place := harness.Place{Database: s.Database, RetentionPolicy: s.Policy.Name, Measurement: p.Series.Measurement}
			if at[place] == nil {
				at[place] = harness.Points{}
			}
			for i, v := range p.Values {
				if v.Kind == lineproto.Null {
					continue
				}
				values[[2]string{place.Measurement, p.Fields[i]}]++
				key := ""
				for _, tag := range p.Series.Tags {
					key += fmt.Sprintf("%q=%q,", tag.Key, tag.Value)
				}
				at[place][fmt.Sprintf("%s %q %d", key, p.Fields[i], p.Time)] = fmt.Sprintf("%s %x %q", v.Kind, v.Num, v.Str)
			}
		}
		require.Equal(t, points, tally.Points(), s.Name)
		for m, counts := range tally {
			for field, n := range counts.Values {
				require.Equal(t, values[[2]string{m, field}], n, "%s: %s %s", s.Name, m, field)
				delete(values, [2]string{m, field})
			}
		}
		require.Empty(t, values, s.Name)
		policies[s.Database] = append(policies[s.Database], s.Policy)
	}
	for i, c := range servers {
		have, err := harness.Dump(t.Context(), c.URL())
		require.NoError(t, err)
		require.Len(t, have, len(want[i]))
		for place, points := range want[i] {
			require.Empty(t, harness.Diff(points, have[place]), "%v", place)
			require.Len(t, have[place], len(points), "%v", place)
		}
		for db, all := range policies {
			is, err := c.RetentionPolicies(t.Context(), db)
			require.NoError(t, err)
			require.ElementsMatch(t, all, is, db)
		}
	}
}

func TestLoadTellsWhatWentWrong(t *testing.T) {
	t.Parallel()
	server := influxtest.Start(t)
	c, err := influx.New(influx.Endpoint{URL: server.URL()}, influx.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	s := dataset.Metrics(1, 100_000)
	_, err = dataset.Load(t.Context(), &s, nil, func(_, _ string) (*influx.Client, error) { return c, nil })
	require.ErrorContains(t, err, "loading sensors")
	require.ErrorContains(t, err, "database not found")
	_, err = dataset.Load(t.Context(), &s, nil, func(_, _ string) (*influx.Client, error) { return nil, fs.ErrInvalid })
	require.ErrorIs(t, err, fs.ErrInvalid)
}
