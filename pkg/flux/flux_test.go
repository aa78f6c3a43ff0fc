package flux_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/flux"
)

func TestAnalyse(t *testing.T) {
	t.Parallel()
	source := func(bucket string, measurements ...string) flux.Source {
		return flux.Source{Bucket: bucket, Measurements: measurements}
	}
	for script, want := range map[string]flux.Script{
		`from(bucket: "db/rp") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "cpu")`:                       {Sources: []flux.Source{source("db/rp", "cpu")}},
		`from(bucket:"db")|>range(start:-1h)|>filter(fn:(r)=>r["_measurement"]=="cpu" and r._field == "x")`:              {Sources: []flux.Source{source("db", "cpu")}},
		`from(bucket: "db") |> range(start: -1h) |> filter(fn: (r) => "cpu" == r._measurement)`:                          {Sources: []flux.Source{source("db", "cpu")}},
		`from(bucket: "db") |> filter(fn: (r) => (r._measurement == "b" or r._measurement == "a") and (r.x > 3))`:        {Sources: []flux.Source{source("db", "a", "b")}},
		`from(bucket: "db") |> filter(fn: (r) => r._measurement == "a" or r._field == "x")`:                              {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: (r) => not r._measurement == "a")`:                                             {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: (r) => r._measurement =~ /cpu/)`:                                               {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: (r) => r._measurement == "a" + x)`:                                             {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: (r) => r._measurement == "a${x}")`:                                             {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: f)`:                                                                            {Sources: []flux.Source{source("db")}},
		`from(bucket: v.bucket) |> filter(fn: (r) => r._measurement == "a")`:                                             {Sources: []flux.Source{source("", "a")}},
		`from(bucket: "db") |> filter(fn: (r) => r._field == "x") |> filter(fn: (r) => r._measurement == "m")`:           {Sources: []flux.Source{source("db", "m")}},
		`from(bucket: "db") |> map(fn: (r) => ({r with _measurement: "m"})) |> filter(fn: (r) => r._measurement == "m")`: {Sources: []flux.Source{source("db")}},
		"// from(bucket: \"no\")\nfrom(bucket: \"db\") // |> filter\n |> filter(fn: (r) => r._measurement == \"m\")":     {Sources: []flux.Source{source("db", "m")}},
		`a = from(bucket: "a") |> filter(fn: (r) => r._measurement == "m")
b = from(bucket: "b") |> filter(fn: (r) => r._measurement == "n")
join(tables: {a, b}, on: ["_time"])`: {Sources: []flux.Source{source("a", "m"), source("b", "n")}},
		`import "influxdata/influxdb/v1" v1.tagValues(bucket: "db", tag: "host")`:                                  {Sources: []flux.Source{source("db")}},
		`from(bucket: "db") |> filter(fn: (r) => r._measurement == "m") |> to(bucket: "x")`:                        {Sources: []flux.Source{source("db", "m"), source("x")}, Writes: true},
		`from(bucket: "db") |> filter(fn: (r) => r.path == "a) or b" and r._measurement == "m\"n" and r.x =~ /"/)`: {Sources: []flux.Source{source("db", `m"n`)}},
		`buckets()`: {},
		``:          {},
	} {
		require.Equal(t, want, flux.Analyse(script), script)
	}
}

func FuzzAnalyse(f *testing.F) {
	f.Add(`from(bucket: "db/rp") |> range(start: -1h) |> filter(fn: (r) => (r._measurement == "cpu" or r["_measurement"] == "mem") and r.x =~ /a/)`)
	f.Add(`from(bucket:"${x}" |> filter(fn: (r) => ((((`)
	f.Fuzz(func(t *testing.T, script string) {
		for _, s := range flux.Analyse(script).Sources {
			require.LessOrEqual(t, len(s.Bucket), len(script))
		}
	})
}
