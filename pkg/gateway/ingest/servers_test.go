package ingest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/ingest"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// answer is what a client gets: 204 without words.
type answer struct {
	status int
	text   string
}

// direct asks a server itself.
func direct(t testing.TB, server, db, rp, precision, consistency string, body []byte, gz bool) answer {
	q := url.Values{"db": {db}}
	for k, v := range map[string]string{"rp": rp, "precision": precision, "consistency": consistency} {
		if v != "" {
			q.Set(k, v)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/write?"+q.Encode(), bytes.NewReader(body))
	require.NoError(t, err)
	if gz {
		req.Header.Set("Content-Encoding", "gzip")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var said struct {
		Error string `json:"error"`
	}
	if len(raw) > 0 {
		require.NoError(t, json.NewDecoder(bytes.NewReader(raw)).Decode(&said), string(raw))
	}
	return answer{res.StatusCode, said.Error}
}

// through asks the write path.
func (r *rig) through(t testing.TB, db, rp, precision, consistency, client string, body []byte, gz bool) answer {
	p, _ := lineproto.ParsePrecision(precision)
	err := r.Write(t.Context(), ingest.Request{
		Database: db, RetentionPolicy: rp, Precision: p, Consistency: consistency, Client: client,
		Body: bytes.NewReader(body), Length: int64(len(body)), Gzip: gz,
	})
	if err == nil {
		return answer{http.StatusNoContent, ""}
	}
	refusal, ok := errors.AsType[*ingest.Refusal](err)
	if !ok {
		return answer{0, err.Error()}
	}
	return answer{refusal.Status, refusal.Message}
}

// fleet is real servers: one that is asked directly, and circles of two.
type fleet struct {
	alone   *influxtest.Server
	circles [][]*influxtest.Server
}

func start(t testing.TB, circles, backends int) *fleet {
	t.Helper()
	f := &fleet{circles: make([][]*influxtest.Server, circles)}
	var all sync.WaitGroup
	all.Go(func() { f.alone = influxtest.Start(t) })
	for i := range f.circles {
		f.circles[i] = make([]*influxtest.Server, backends)
		for j := range f.circles[i] {
			all.Go(func() { f.circles[i][j] = influxtest.Start(t) })
		}
	}
	all.Wait()
	return f
}

func (f *fleet) urls() [][]string {
	urls := make([][]string, len(f.circles))
	for i, c := range f.circles {
		for _, s := range c {
			urls[i] = append(urls[i], s.URL())
		}
	}
	return urls
}

func (f *fleet) all() []*influxtest.Server { return append(slices.Concat(f.circles...), f.alone) }

func (f *fleet) exec(q string) {
	for _, s := range f.all() {
		s.Exec(q)
	}
}

// points are all points of a database's default policy on some servers together,
// each as text, sorted.
func points(t testing.TB, db string, servers ...*influxtest.Server) []string {
	t.Helper()
	var all []string
	for _, s := range servers {
		for _, r := range s.Query(fmt.Sprintf(`SELECT * FROM %q../.*/ GROUP BY *`, db)) {
			for _, series := range r.Series {
				for _, v := range series.Values {
					line := fmt.Sprint(series.Name, series.Tags)
					for i, c := range series.Columns {
						if v[i] != nil {
							line += fmt.Sprintf(" %s=%v(%T)", c, v[i], v[i])
						}
					}
					all = append(all, line)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// base is a time in the middle of a shard.
func base() int64 { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC).UnixNano() }

func TestEveryAnswerIsThatOfOneServer(t *testing.T) {
	f := start(t, 2, 2)
	r := newRig(t, cluster(f.urls()...))
	f.exec(`CREATE DATABASE db`)
	f.exec(`CREATE RETENTION POLICY short ON db DURATION 1h REPLICATION 1`)
	old := time.Now().Add(-3 * time.Hour).UnixNano()
	many := func(format string) string {
		var b strings.Builder
		for i := range 40 {
			fmt.Fprintf(&b, format+" %d\n", i, base()+int64(i))
		}
		return b.String()
	}
	for i, c := range []struct {
		name, db, rp, precision, consistency, body string
	}{
		{name: "one line", db: "db", body: "m,a=b f=1 1715774400000000000"},
		{name: "many measurements", db: "db", body: many("m%d f=1")},
		{name: "no time", db: "db", body: "m f=2"},
		{name: "precision", db: "db", precision: "s", body: "m f=2 1715774401"},
		{name: "unknown precision is nanoseconds", db: "db", body: "m f=2 1715774401"},
		{name: "nothing", db: "db"},
		{name: "comments and blanks", db: "db", body: "# nothing\n\n  \r\n"},
		{name: "CRLF", db: "db", body: "m f=3 1715774402000000000\r\nm2 f=3 1715774402000000000\r\n"},
		{name: "nothing into a missing policy", db: "db", rp: "nope"},
		{name: "no database", body: "m f=1"},
		{name: "missing database", db: "nope", body: "m f=1"},
		{name: "missing database, nothing", db: "nope"},
		{name: "missing database, bad lines", db: "nope", body: "bad"},
		{name: "missing database, bad consistency", db: "nope", body: "m f=1", consistency: "most"},
		{name: "missing policy", db: "db", rp: "nope", body: many("m%d f=1")},
		{name: "missing policy, bad lines", db: "db", rp: "nope", body: "bad"},
		{name: "missing policy, some bad lines", db: "db", rp: "nope", body: "bad\nm f=1"},
		{name: "all lines bad", db: "db", body: "bad\nm f=\nm f=1 x"},
		{name: "some lines bad", db: "db", body: "m f=4 1715774403000000000\nbad\nm9 f=1 1715774403000000000\nm f= 5"},
		{name: "consistency", db: "db", consistency: "Quorum", body: "m f=1 1"},
		{name: "bad consistency", db: "db", consistency: "most", body: "m f=1 1"},
		{name: "bad consistency, nothing", db: "db", consistency: "most"},
		{name: "bad consistency, all lines bad", db: "db", consistency: "most", body: "bad"},
		{name: "type that is another", db: "db", body: `m f="x" 1715774400000000000`},
		{name: "some types that are others", db: "db", body: many("m%d f=1i") + many("n%d f=1")},
		{name: "two types at once, one measurement", db: "db", body: "new f=1 1\nnew f=1i 2"},
		{name: "two types at once, several measurements", db: "db", body: "other1 f=1 1\nnewer f=1 1\nnewer f=1i 2\nother2 f=1 1"},
		{name: "two types in one line", db: "db", body: `twice f=1,f="x" 1`},
		{name: "other reasons first", db: "db", body: "m f=1i 1715774400000000000\nm0 f=1i 1715774400000000000\nk,time=x f=1 1715774400000000000"},
		{name: "time as a tag", db: "db", body: "k,time=x f=1 1"},
		{name: "time as a field", db: "db", body: "k time=1 1\nk2 f=1 1"},
		{name: "time as a field beside another", db: "db", body: "k time=1,f=2 1"},
		{name: "beyond the policy", db: "db", rp: "short", body: many("m%d f=1") + fmt.Sprintf("m f=1 %d\n", old)},
		{name: "beyond the policy, some", db: "db", rp: "short", body: many("m%d f=1") + "m f=1\n"},
		{name: "beyond the policy and a bad line", db: "db", rp: "short", body: many("m%d f=1") + "m f=1\nbad\n"},
		{name: "conflict and a bad line", db: "db", body: "m f=1i 1715774400000000000\nbad\n"},
		{name: "escapes in names", db: "db", body: "a\\ b\\,c,t\\ x=v\\=1 f\\ 1=\"x\\\"y\" 5\na\\ b\\,c f\\ 1=1 6"},
		{name: "quotes in a reason", db: "db", body: "a\\ b\\,c,t\\ x=v\\=1 f\\ 1=1i 7"},
	} {
		want := direct(t, f.alone.URL(), c.db, c.rp, c.precision, c.consistency, []byte(c.body), false)
		got := r.through(t, c.db, c.rp, c.precision, c.consistency, "client", []byte(c.body), false)
		require.Equal(t, want, got, "%d %s", i, c.name)
	}
	require.Empty(t, r.keeper.told())
}
