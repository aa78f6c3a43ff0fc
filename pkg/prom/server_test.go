package prom_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/prom"
)

// post sends a payload and returns the status and the body of the answer.
func post(t *testing.T, s *influxtest.Server, target string, body []byte) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+target, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Accept-Encoding", prom.ContentEncoding)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if res.StatusCode == http.StatusOK {
		require.Equal(t, prom.ContentType, res.Header.Get("Content-Type"))
		require.Equal(t, prom.ContentEncoding, res.Header.Get("Content-Encoding"))
	}
	return res.StatusCode, raw
}

func message(t *testing.T, raw []byte) string {
	t.Helper()
	var answer struct{ Error string }
	require.NoError(t, json.Unmarshal(raw, &answer), "%q", raw)
	return answer.Error
}

// What DecodeWrite makes of a payload is to a server of InfluxDB 1.8.3 what the
// payload itself is.
func TestServerTakesTheLinesForThePayload(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE whole; CREATE DATABASE lines`)
	for i, body := range [][]byte{
		writeBody(),
		writeBody(
			series{[]label{{"__name__", "up"}, {"job", "node"}, {"empty", ""}}, []sample{{1, 1700000000000}, {2, -5}, {math.NaN(), 7}, {math.Inf(1), 8}, {math.Inf(-1), 9}}},
			series{[]label{{"zone", "b"}, {"job", "a b,c=d\"e"}, {"__name__", "http_requests_total"}, {"job", "x"}}, []sample{{1e-300, 1}, {math.MaxFloat64, 2}, {math.Copysign(0, -1), 3}, {0.1, 4}}},
			series{[]label{{"größe", "weiß"}, {"path", `C:\dir\x`}}, []sample{{1, 1}}},
			series{[]label{{"__name__", "a measurement, with=all"}, {"tag key", "ta\tb"}}, []sample{{1, 1}}},
			series{nil, []sample{{3, math.MaxInt64}, {4, math.MinInt64}}},
		),
		writeBody(series{[]label{{"__name__", "m"}, {"t", strings.Repeat(" ", 40000)}}, []sample{{1, 1}}}),
		writeBody(series{[]label{{"__name__", "m"}, {"t", strings.Repeat("a", 65519)}}, []sample{{1, 1}}}),
		writeBody(series{[]label{{"a", "b"}}, []sample{{1, wrapped()}}}),
		[]byte("noise"), nil,
		snappy.Encode(nil, []byte{1<<3 | 2, 5, 1}),
		snappy.Encode(nil, []byte{1 << 3, 5}),
		snappy.Encode(nil, []byte{2, 0}),
		snappy.Encode(nil, []byte{4}),
		snappy.Encode(nil, []byte{9<<3 | 7}),
		snappy.Encode(nil, []byte(strings.Repeat("\xff", 11))),
		snappy.Encode(nil, []byte{9<<3 | 3, 1 << 3, 5, 2<<3 | 3, 2<<3 | 4, 9<<3 | 4}),
	} {
		wantStatus, raw := post(t, s, "/api/v1/prom/write?db=whole", body)
		w, err := prom.DecodeWrite(nil, body, limit)
		if err != nil {
			require.Equal(t, http.StatusBadRequest, wantStatus, "%d", i)
			require.Equal(t, message(t, raw), err.Error(), "%d", i)
			continue
		}
		require.Zero(t, w.Refused, w.Reason)
		gotStatus, _ := post(t, s, "/write?db=lines", w.Lines)
		require.Equal(t, wantStatus, gotStatus, "%d: %s", i, raw)
	}
	want := s.Query(`SELECT * FROM whole.autogen./.*/ GROUP BY *`)[0].Series
	require.GreaterOrEqual(t, len(want), 5)
	require.Equal(t, want, s.Query(`SELECT * FROM lines.autogen./.*/ GROUP BY *`)[0].Series)
}

// Two servers that own half of the measurements each, and hold leftovers of the other
// half, answer together as one server does that holds all.
func TestServersAnswerTogetherAsOne(t *testing.T) {
	t.Parallel()
	one, first, second := influxtest.Start(t), influxtest.Start(t), influxtest.Start(t)
	owners := []*influxtest.Server{first, second}
	for _, s := range []*influxtest.Server{one, first, second} {
		s.Exec(`CREATE DATABASE db`)
	}
	var names []string
	owned := make([][]string, len(owners))
	for i := range 10 {
		name := fmt.Sprintf("metric_%d", i)
		if i == 7 {
			name = "odd name (a|b), c=d"
		}
		names = append(names, name)
		var all []series
		for j := range 3 {
			labels := []label{{"__name__", name}, {"instance", fmt.Sprint("i", j)}}
			if i%2 == 0 {
				labels = append(labels, label{"job", fmt.Sprint("j", j)})
			}
			all = append(all, series{labels, []sample{{float64(i), 1000}, {float64(j), 2_000_000_000}}})
		}
		mine := i / 2 % 2
		owned[mine] = append(owned[mine], name)
		for _, s := range []*influxtest.Server{one, owners[mine]} {
			status, raw := post(t, s, "/api/v1/prom/write?db=db", writeBody(all...))
			require.Equal(t, http.StatusNoContent, status, "%s", raw)
		}
		if i%3 == 0 {
			post(t, owners[1-mine], "/api/v1/prom/write?db=db", writeBody(series{all[0].labels, []sample{{-1, 1500}}}))
		}
	}
	names, owned[0] = append(names, "count", "bare"), append(owned[0], "count", "bare")
	for _, s := range []*influxtest.Server{one, first} {
		s.WriteLines("db", "", "metric_0,__name__=metric_0,instance=i0 other=1,value=9 5000000\ncount,instance=i1 value=5i 5000000\nbare,instance=i1 value=5 5000000\n")
	}

	for _, c := range [][]matcher{
		{{equal, "__name__", "metric_3"}},
		{{equal, "__name__", "metric_3"}, {equal, "instance", "i1"}},
		{{equal, "__name__", "nothing"}},
		{{matching, "__name__", "metric_.*"}},
		{{matching, "__name__", "ric_[12]$"}},
		{{matching, "__name__", "^metric_1$"}},
		{{notMatching, "__name__", "metric_[0-4]"}},
		{{notEqual, "__name__", "metric_1"}},
		{{equal, "job", "j1"}},
		{{equal, "job", ""}},
		{{notEqual, "job", "j1"}},
		{{notEqual, "job", ""}},
		{{matching, "job", "j[12]"}},
		{{notMatching, "job", "j[12]"}},
		{{matching, "job", ".*"}},
		{{equal, "__name__", "metric_2"}, {equal, "__name__", "metric_2"}, {notEqual, "job", "j1"}},
		{{equal, "_name", "metric_2"}, {notEqual, "job", "j1"}},
		{{equal, "_measurement", "metric_5"}, {notEqual, "job", "j1"}},
		{{matching, "__name__", "odd"}, {matching, "instance", "i"}},
		{{equal, "_field", "other"}},
		{{notEqual, "_tagKey", "x"}},
		{{matching, "instance", "("}},
		{{matching, "__name__", "("}},
	} {
		for _, window := range [][2]int64{{0, 0}, {1000, 2000}, {1001, 3_000_000_000}, {5, 4}} {
			body := readBody(window[0], window[1], c...)
			wantStatus, want := post(t, one, "/api/v1/prom/read?db=db", body)
			r, err := prom.DecodeRead(body, limit)
			require.NoError(t, err)
			if wantStatus == http.StatusOK {
				want, err = snappy.Decode(nil, want)
				require.NoError(t, err)
			}
			for _, most := range []int{1, len(names)} {
				status, got := ask(t, r, body, owners, names, owned, most)
				require.Equal(t, wantStatus, status, "%v: %s", c, want)
				if status == http.StatusOK {
					got, err = snappy.Decode(nil, got)
					require.NoError(t, err)
				}
				require.Equal(t, string(want), string(got), "%v %v", c, window)
			}
		}
	}
	for _, body := range [][]byte{nil, readBody(1, 2), readBody(1, 2, matcher{9, "a", "b"}), snappy.Encode(nil, nil), snappy.Encode(nil, sized(nil, 1, []byte{3<<3 | 1}))} {
		status, raw := post(t, one, "/api/v1/prom/read?db=db", body)
		require.Equal(t, http.StatusBadRequest, status)
		_, err := prom.DecodeRead(body, limit)
		require.EqualError(t, err, message(t, raw))
	}
}

// ask does what a gateway does with a read request, for so many measurements at once.
func ask(t *testing.T, r *prom.Read, body []byte, owners []*influxtest.Server, names []string, owned [][]string, most int) (int, []byte) {
	t.Helper()
	const target = "/api/v1/prom/read?db=db"
	if one, ok := r.Measurement(); ok {
		for i, list := range owned {
			if slices.Contains(list, one) {
				return post(t, owners[i], target, body)
			}
		}
		return post(t, owners[0], target, body)
	}
	var answers [][]byte
	for i, list := range owned {
		var asked []string
		for _, name := range names {
			if slices.Contains(list, name) && r.Matches(name) {
				asked = append(asked, name)
			}
		}
		for some := range slices.Chunk(asked, most) {
			status, raw := post(t, owners[i], target, r.Restrict(some))
			if status != http.StatusOK {
				return status, raw
			}
			answers = append(answers, raw)
		}
	}
	if len(answers) == 0 {
		return post(t, owners[0], target, body)
	}
	merged, err := prom.MergeReads(answers, limit)
	require.NoError(t, err)
	return http.StatusOK, merged
}
