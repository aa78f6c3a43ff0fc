package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	client "github.com/influxdata/influxdb1-client/v2"
	"github.com/stretchr/testify/require"
)

// gatewayOverTwoCircles starts the api over two circles of two backends.
func gatewayOverTwoCircles(t testing.TB) *installation {
	t.Helper()
	b := startBackends(t, 4)
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", b[:2]...), circleOf("two", b[2:]...)))
	in.startAPI()
	return in
}

// TestOfficialGoClientRunsUnmodified runs the ordinary flows of the official Go client
// for InfluxDB 1.x.
func TestOfficialGoClientRunsUnmodified(t *testing.T) {
	t.Parallel()
	in := gatewayOverTwoCircles(t)
	for _, encoding := range []client.ContentEncoding{client.DefaultEncoding, client.GzipEncoding} {
		t.Run("encoding "+string(encoding), func(t *testing.T) { in.as(t).goClientFlows(encoding) })
	}
}

func (in *installation) goClientFlows(encoding client.ContentEncoding) {
	t := in.t
	t.Helper()
	c, err := client.NewHTTPClient(client.HTTPConfig{Addr: in.Client.URL, WriteEncoding: encoding, UserAgent: "a program", Timeout: patience})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, version, err := c.Ping(patience)
	require.NoError(t, err)
	require.NotEmpty(t, version)

	query := func(q client.Query) []client.Result {
		t.Helper()
		res, err := c.Query(q)
		require.NoError(t, err)
		require.NoError(t, res.Error())
		return res.Results
	}
	db := "go_" + string(encoding)
	query(client.NewQuery(`CREATE DATABASE "`+db+`"`, "", ""))
	query(client.NewQuery(`CREATE RETENTION POLICY kept ON "`+db+`" DURATION INF REPLICATION 1`, "", ""))

	const measurements, points = 4, 25
	begin := time.Date(2024, time.May, 1, 0, 0, 0, 0, time.UTC)
	for _, precision := range []string{"ns", "ms", "s"} {
		for _, policy := range []string{"", "kept"} {
			batch, err := client.NewBatchPoints(client.BatchPointsConfig{Database: db, Precision: precision, RetentionPolicy: policy, WriteConsistency: "any"})
			require.NoError(t, err)
			for m := range measurements {
				for i := range points {
					p, err := client.NewPoint(fmt.Sprintf("weather %d", m), map[string]string{"station": fmt.Sprintf("s,%d", i%3), "precision": precision},
						map[string]any{"temperature": float64(i) / 2, "number": i, "rain": i%2 == 0, "remark": `a "quoted" word`}, begin.Add(time.Duration(i)*time.Second))
					require.NoError(t, err)
					batch.AddPoint(p)
				}
			}
			require.NoError(t, c.Write(batch))
		}
	}

	// One answer over all owners.
	const all = 3 * points
	counts := query(client.NewQuery(`SELECT count(number) FROM /weather/; SELECT count(number) FROM kept./weather/`, db, "ns"))
	require.Len(t, counts, 2)
	for _, result := range counts {
		require.Len(t, result.Series, measurements)
		for m, row := range result.Series {
			require.Equal(t, fmt.Sprintf("weather %d", m), row.Name)
			require.Equal(t, json.Number(fmt.Sprint(all)), row.Values[0][1])
		}
	}
	rows := query(client.NewQueryWithRP(`SELECT temperature, remark FROM "weather 1" WHERE precision = 's' LIMIT 2`, db, "kept", "s"))
	require.Equal(t, [][]any{
		{json.Number(fmt.Sprint(begin.Unix())), json.Number("0"), `a "quoted" word`},
		{json.Number(fmt.Sprint(begin.Unix() + 1)), json.Number("0.5"), `a "quoted" word`},
	}, rows[0].Series[0].Values)
	bound := query(client.NewQueryWithParameters(`SELECT number FROM "weather 0", "weather 3" WHERE station = $station AND number > $least AND precision = 'ns'`, db, "ms",
		client.Params{"station": client.StringValue("s,1"), "least": client.IntegerValue(20)}))
	require.Len(t, bound[0].Series, 2)
	require.Len(t, bound[0].Series[0].Values, 1, "number 22")

	// Chunks, by both of the client's ways.
	q := client.NewQuery(`SELECT number FROM /weather/`, db, "ns")
	q.Chunked, q.ChunkSize = true, 7
	require.Len(t, query(q), measurements*((all+6)/7), "a result for each chunk")
	chunks, err := c.QueryAsChunk(q)
	require.NoError(t, err)
	read := 0
	for {
		res, err := chunks.NextResponse()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.NoError(t, res.Error())
		for _, result := range res.Results {
			for _, row := range result.Series {
				read += len(row.Values)
			}
		}
	}
	require.NoError(t, chunks.Close())
	require.Equal(t, measurements*all, read)

	// What is refused comes as the client's errors.
	res, err := c.Query(client.NewQuery("SELECT", db, ""))
	require.NoError(t, err)
	require.ErrorContains(t, res.Error(), "error parsing query: ")
	res, err = c.Query(client.NewQuery("SELECT v FROM nowhere..m", db, ""))
	require.NoError(t, err)
	require.EqualError(t, res.Error(), "database not found: nowhere")
	conflict, err := client.NewBatchPoints(client.BatchPointsConfig{Database: db})
	require.NoError(t, err)
	p, err := client.NewPoint("weather 0", map[string]string{"station": "x"}, map[string]any{"number": "text"}, begin)
	require.NoError(t, err)
	conflict.AddPoint(p)
	err = c.Write(conflict)
	require.ErrorContains(t, err, "partial write: field type conflict")

	query(client.NewQuery(`DROP SERIES FROM "weather 2"`, db, ""))
	require.Len(t, query(client.NewQuery("SHOW MEASUREMENTS", db, ""))[0].Series[0].Values, measurements-1)
	query(client.NewQuery(`DROP DATABASE "`+db+`"`, "", ""))
	res, err = c.Query(client.NewQuery("SELECT number FROM /weather/", db, ""))
	require.NoError(t, err)
	require.EqualError(t, res.Error(), "database not found: "+db)
}

// pythonFlows are the ordinary flows of the Python package influxdb.
const pythonFlows = `
import sys
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

client = InfluxDBClient(host=sys.argv[1], port=int(sys.argv[2]), timeout=60)
assert client.ping()
client.create_database('py')
assert {'name': 'py'} in client.get_list_database(), client.get_list_database()
client.switch_database('py')
client.create_retention_policy('kept', 'INF', '1', database='py', default=False)
client.create_retention_policy('month', '30d', '1', database='py', default=False, shard_duration='1d')
client.alter_retention_policy('month', database='py', duration='60d')
policies = {p['name']: p for p in client.get_list_retention_policies('py')}
assert set(policies) == {'autogen', 'kept', 'month'} and policies['month']['duration'] == '1440h0m0s', policies
client.drop_retention_policy('month', 'py')
assert len(client.get_list_retention_policies('py')) == 2

points = [{'measurement': 'm%d' % m, 'tags': {'host': 'h%d' % (i % 3), 'where': 'here, there'}, 'time': 1700000000 + i,
           'fields': {'value': i / 2.0, 'count': i, 'up': i % 2 == 0, 'word': 'w "%d"' % i}} for m in range(5) for i in range(30)]
assert client.write_points(points, time_precision='s', batch_size=40)
assert client.write_points(points, time_precision='s', retention_policy='kept', tags={'also': 'x'})
assert client.write_points(['line,t=a v=1 1700000000', 'line,t=b v=2 1700000001'], time_precision='s', protocol='line')
assert client.write(['line,t=c v=3 1700000002'], {'db': 'py', 'precision': 's'}, 204, 'line')

assert [m['name'] for m in client.get_list_measurements()] == ['line', 'm0', 'm1', 'm2', 'm3', 'm4'], client.get_list_measurements()
assert len(client.get_list_series()) == 3 + 5 * 6 and client.get_list_series(measurement='line') == ['line,t=a', 'line,t=b', 'line,t=c']
assert len(client.get_list_series(tags={'host': 'h1'})) == 10
result = client.query('SELECT count("value") FROM /m[0-9]/ GROUP BY host', epoch='s')
assert len(result) == 15 and all(list(p)[0]['count'] == 10 for p in result), result
assert [p['value'] for p in client.query('SELECT value FROM m3 WHERE host = $host LIMIT 2', bind_params={'host': 'h1'}).get_points()] == [0.5, 2.0]
assert list(client.query('SELECT v FROM line', epoch='s').get_points(measurement='line')) == [{'time': 1700000000 + i, 'v': i + 1} for i in range(3)]
assert [len(list(r.get_points())) for r in client.query('SELECT value FROM m1; SELECT value FROM m1, m2')] == [30, 60]
# The package reads one message of MessagePack only, whatever the server.
plain = InfluxDBClient(host=sys.argv[1], port=int(sys.argv[2]), database='py', headers={'Accept': 'application/json'})
chunked = plain.query('SELECT value FROM m0, m1, m2', chunked=True, chunk_size=7)
plain.close()
total = sum(len(list(r.get_points())) for r in (chunked if not hasattr(chunked, 'get_points') else [chunked]))
assert total == 90, total
assert len(list(client.query('SHOW TAG VALUES WITH KEY = host').get_points())) == 15

for bad, text in [('SELECT', 'error parsing query'), ('SELECT v FROM nowhere..m', 'database not found: nowhere')]:
    try:
        client.query(bad)
        raise AssertionError('no error: ' + bad)
    except InfluxDBClientError as e:
        assert text in str(e), e
try:
    client.write_points([{'measurement': 'm0', 'tags': {'host': 'h0', 'where': 'here, there'}, 'fields': {'count': 'text'}, 'time': 1700000000}], time_precision='s')
    raise AssertionError('no conflict')
except InfluxDBClientError as e:
    assert e.code == 400 and 'field type conflict' in str(e), e

client.delete_series(measurement='m0', tags={'host': 'h1'})
assert len(client.get_list_series(measurement='m0')) == 4, client.get_list_series(measurement='m0')
client.delete_series(measurement='m1')
assert 'm1' not in [m['name'] for m in client.get_list_measurements()]
client.drop_measurement('m2')
assert client.query('SELECT * FROM m2').raw.get('series', []) == []
client.drop_database('py')
assert {'name': 'py'} not in client.get_list_database()
client.close()
print('all flows done')
`

// TestPythonClientRunsUnmodified runs the ordinary flows of the Python package influxdb.
func TestPythonClientRunsUnmodified(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3: ", err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, python, "-m", "venv", dir).CombinedOutput(); err != nil {
		t.Skipf("python3 makes no environment: %v: %s", err, out)
	}
	python = filepath.Join(dir, "bin", "python3")
	install := exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "influxdb==5.3.2")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("the package influxdb can't be had: %v: %s", err, clipped(string(out)))
	}
	script := filepath.Join(dir, "flows.py")
	require.NoError(t, os.WriteFile(script, []byte(pythonFlows), 0o600))
	in := gatewayOverTwoCircles(t)
	u, err := url.Parse(in.Client.URL)
	require.NoError(t, err)
	out, err := exec.CommandContext(ctx, python, script, u.Hostname(), u.Port()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "all flows done")
}
