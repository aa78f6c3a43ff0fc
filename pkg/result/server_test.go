package result_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// asked is how a client asks.
type asked struct {
	accept string
	values url.Values
}

func ways() []asked {
	var all []asked
	for _, accept := range []string{"", "application/json", "application/csv", "text/csv;q=0.5, text/html", "application/x-msgpack", "*/*", "text/*", "image/png"} {
		for _, chunked := range []string{"", "1", "2", "10000"} {
			for _, epoch := range []string{"", "ns", "u", "ms", "s", "m", "h", "d"} {
				for _, pretty := range []string{"", "true"} {
					v := url.Values{}
					if chunked != "" {
						v.Set("chunked", "true")
						v.Set("chunk_size", chunked)
					}
					if epoch != "" {
						v.Set("epoch", epoch)
					}
					if pretty != "" {
						v.Set("pretty", pretty)
					}
					all = append(all, asked{accept, v})
				}
			}
		}
	}
	return all
}

// TestAnswersAreThoseOfAServer asks a server in every way, and writes what it
// answers to the plain question in that way: byte for byte the same.
func TestAnswersAreThoseOfAServer(t *testing.T) {
	s := influxtest.Start(t)
	s.Exec(`CREATE DATABASE d`)
	s.WriteLines("d", "", `m,t=a,u=x\,y v=1,w=2i,s="x<&>\n\"é" 1000000000
m,t=b v=1e300,w=3i,b=true 2000000000
m v=5,w=-40i 3000000000
m,t=c v=1e-9,w=9007199254740993i,s="" 3600000000123
n,t=a v=1e-7,x=100 1000000001
n,t=ü\ ber v=0.000001,y="line
break",z=false 1700000000123456789
n,t=b v=123456789012345678901234567890 -1500000000
n,t=c v=70000,w=300i,i=-70000i,j=5000000000i,k=-200i 5`)
	c, err := influx.New(influx.Endpoint{URL: s.URL()}, influx.Options{})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	for _, statements := range [][]string{
		{"SELECT * FROM m"},
		{"SELECT * FROM m, n GROUP BY t"},
		{"SELECT * FROM m, n GROUP BY *"},
		{"SELECT * FROM m, n GROUP BY * ORDER BY time DESC"},
		{"SELECT mean(v), count(w) FROM m, n"},
		{"SELECT mean(v) FROM m WHERE time >= 0 AND time < 5s GROUP BY time(1s)"},
		{"SELECT v FROM m WHERE time > now()"},
		{"SHOW DATABASES"},
		{"SHOW MEASUREMENTS"},
		{"SHOW TAG KEYS"},
		{"SHOW TAG VALUES WITH KEY = t"},
		{"SHOW FIELD KEYS"},
		{"SHOW SERIES"},
		{"SHOW SERIES CARDINALITY"},
		{"CREATE DATABASE d"},
		{"SELECT v FROM m", "SELECT w FROM n", "SHOW MEASUREMENTS"},
		{"SELECT v FROM nodb..m"},
		{"SELECT v FROM m", "SELECT v FROM nodb..m"},
		{"SELECT v FROM m", "SELECT v FROM m WHERE time > now()", "SHOW TAG KEYS"},
		{"SELECT exp(v) FROM m"},
		{"SELECT exp(v) FROM m", "SELECT v FROM m"},
	} {
		t.Run(fmt.Sprint(statements), func(t *testing.T) {
			for _, way := range ways() {
				compareWay(t, s.URL(), c, statements, way)
			}
		})
	}
}

func compareWay(t *testing.T, server string, c *influx.Client, statements []string, way asked) {
	t.Helper()
	var q string
	for i, s := range statements {
		if i > 0 {
			q += ";"
		}
		q += s
	}
	v := url.Values{"q": {q}, "db": {"d"}}
	maps.Copy(v, way.values)
	want, contentType := getAnswer(t, server+"/query?"+v.Encode(), way.accept)

	var accept []string
	if way.accept != "" {
		accept = []string{way.accept}
	}
	format, says := result.Negotiate(accept)
	require.Equal(t, contentType, says)
	size, _ := strconv.Atoi(v.Get("chunk_size"))
	var got bytes.Buffer
	w := result.NewWriter(&got, result.Options{
		Format: format, Pretty: v.Get("pretty") == "true", Chunked: v.Get("chunked") == "true", Epoch: v.Get("epoch"),
	})
	for i, s := range statements {
		a, err := c.Ask(t.Context(), influx.Question{Text: s, Database: "d", ChunkSize: size, ReadOnly: true})
		require.NoError(t, err)
		for {
			r, err := a.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			r.StatementID = i
			require.NoError(t, w.Write(r))
		}
		a.Close()
	}
	require.NoError(t, w.Close())
	if format == result.Msgpack {
		// The order of tags is random there.
		require.Equal(t, objects(t, want), objects(t, got.Bytes()), "%s %v", q, way)
		require.Len(t, got.Bytes(), len(want), "%s %v", q, way)
		return
	}
	require.Equal(t, string(want), got.String(), "%s %v", q, way)
}

func objects(t *testing.T, b []byte) (all []any) {
	t.Helper()
	for len(b) > 0 {
		var v any
		var err error
		v, b, err = msgp.ReadIntfBytes(b)
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

func getAnswer(t *testing.T, target, accept string) (body []byte, contentType string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	require.NoError(t, err)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	return body, res.Header.Get("Content-Type")
}
