package lineproto_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// write posts a request and returns the status and the error of the answer.
func write(t *testing.T, s *influxtest.Server, target, body string) (status int, message string) {
	t.Helper()
	res, err := http.Post(s.URL()+target, "text/plain", strings.NewReader(body))
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if len(raw) > 0 {
		var answer struct{ Error string }
		require.NoError(t, json.Unmarshal(raw, &answer), "%q", raw)
		message = answer.Error
	}
	return res.StatusCode, message
}

// scanAndWrite does what a gateway does with a request: it sends on what the
// Scanner makes of it, and puts the answer together.
func scanAndWrite(t *testing.T, s *influxtest.Server, db, body string, p lineproto.Precision) (status int, message string) {
	t.Helper()
	var sc lineproto.Scanner
	var lines []byte
	for sc.Reset([]byte(body), p, time.Now().UnixNano()); sc.Next(); {
		lines = sc.AppendLine(lines)
	}
	refused, bad := sc.Refused()
	if len(lines) == 0 && bad > 0 {
		return http.StatusBadRequest, refused
	}
	status, message = write(t, s, "/write?db="+db, string(lines))
	if status == http.StatusNoContent && bad > 0 {
		return http.StatusBadRequest, lineproto.PartialWrite(refused, 0)
	}
	return status, message
}

// stored are all points of a database; what was stored at the server's own time
// has none.
func stored(s *influxtest.Server, db string) []influxtest.Series {
	series := s.Query(fmt.Sprintf(`SELECT * FROM %q.autogen./.*/ GROUP BY *`, db))[0].Series
	for _, table := range series {
		for _, row := range table.Values {
			ns, err := row[0].(json.Number).Int64()
			if err == nil && max(ns-scanNow, scanNow-ns) > 0 && time.Since(time.Unix(0, ns)).Abs() < 2*time.Hour {
				row[0] = "now"
			}
		}
	}
	return series
}

// What the Scanner makes of a request is to a server of InfluxDB 1.8.3 what the
// request itself is: the same points, and the same answer.
func TestServerTakesTheScannersLinesForTheRequest(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE whole; CREATE DATABASE lines`)
	bodies := append(ordinary(), nasty()...)
	bodies = append(bodies, strings.Join(ordinary(), "\n"), strings.Join(ordinary(), "\nbad\n"))
	for i, body := range bodies {
		p := precisions()[i%len(precisions())]
		if strings.HasPrefix(body, "m") {
			body = fmt.Sprintf("m%d%s", i, body[1:]) // fields of other types elsewhere
		}
		for _, body := range []string{body, body + "\nn g=2 2"} {
			if agrees(t, body, p) > 0 {
				continue // the server would take more
			}
			wantStatus, want := write(t, s, "/write?db=whole&precision="+p.String(), body)
			gotStatus, got := scanAndWrite(t, s, "lines", body, p)
			require.Equal(t, wantStatus, gotStatus, "%.300q: %s", body, want)
			require.Equal(t, want, got, "%.300q", body)
		}
	}
	want, got := stored(s, "whole"), stored(s, "lines")
	require.Greater(t, len(want), 60)
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, reflect.DeepEqual(want[i], got[i]), "%.300q became %.300q", fmt.Sprint(want[i]), fmt.Sprint(got[i]))
	}
}

// A server answers an unknown precision with an error, and stores the request.
func TestServerStoresARequestOfUnknownPrecision(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE db`)
	for path, parse := range map[string]func(string) (lineproto.Precision, error){
		"/write?db=db":            lineproto.ParsePrecision,
		"/api/v2/write?bucket=db": lineproto.ParsePrecisionV2,
	} {
		for i, value := range []string{"", "n", "ns", "u", "us", "ms", "s", "m", "h", "x", "S", `"`} {
			p, parseErr := parse(value)
			name := fmt.Sprintf("m%d%d", len(path), i)
			status, message := write(t, s, path+"&precision="+url.QueryEscape(value), name+" f=1 7")
			if parseErr != nil {
				require.Equal(t, http.StatusBadRequest, status)
				require.Equal(t, parseErr.Error(), message)
			} else {
				require.Equal(t, http.StatusNoContent, status)
			}
			rows := s.Query("SELECT f FROM db.autogen." + name)[0].Series[0].Values
			require.Equal(t, json.Number(fmt.Sprint(7*p.Unit())), rows[0][0], "%s %q", path, value)
		}
	}
}
