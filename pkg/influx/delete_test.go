package influx_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

// left counts the points of every measurement of all policies of a database.
func left(t testing.TB, s *influxtest.Server, db string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, rp := range s.Query(`SHOW RETENTION POLICIES ON "` + db + `"`)[0].Series[0].Values {
		for _, r := range s.Query(`SELECT * FROM "` + db + `"."` + rp[0].(string) + `"./.*/`) {
			for _, series := range r.Series {
				counts[series.Name] += len(series.Values)
			}
		}
	}
	return counts
}

// Delete takes exactly one measurement in exactly one window, over all policies,
// whatever its name.
func TestDeleteTakesItsMeasurementOnly(t *testing.T) {
	t.Parallel()
	names := []string{
		"m", "m2", "mm", "M", "_name", "_measurements", "_tagKey", "_tags", "select", "a b", `quote"d`, "o'clock",
		`back\slash`, "carriage\rreturn", "null\x00null", "tab\t", "/m/", "/.*/", "m.m", "autogen.m", `d"."autogen"."m`,
		"comma,", "=", "*", ";", "; DROP DATABASE d", "--", "/* c */", "grüße", "水", "🦉", "\ufffd", "time", "$1", "%s", " ", "-1", "1", "inf()",
	}
	for _, index := range []string{"inmem", "tsi1"} {
		t.Run(index, func(t *testing.T) {
			t.Parallel()
			s, c := start(t, influxtest.WithIndex(index))
			ctx := t.Context()
			database(t, c, "d")
			s.Exec(`CREATE RETENTION POLICY other ON d DURATION INF REPLICATION 1; CREATE DATABASE e`)
			var enc lineproto.Encoder
			var lines []byte
			for _, name := range names {
				require.NoError(t, enc.SetSeries(&lineproto.Series{Measurement: name, Tags: []lineproto.Tag{{Key: "k", Value: "v"}}}, []string{"f"}))
				for ns := range int64(5) {
					var err error
					lines, err = enc.AppendRow(lines, ns, []lineproto.Value{{Kind: lineproto.Integer, Num: uint64(ns)}})
					require.NoError(t, err)
				}
			}
			for _, rp := range []string{"autogen", "other"} {
				require.NoError(t, c.Write(ctx, "d", rp, lines))
			}
			require.NoError(t, c.Write(ctx, "e", "autogen", lines))
			want := map[string]int{}
			for _, name := range names {
				want[name] = 10
			}
			require.Equal(t, want, left(t, s, "d"))
			for _, name := range names {
				require.NoError(t, c.Delete(ctx, "d", name, influx.Window{From: 1, To: 3}), "%q", name)
				want[name] = 6
				require.Equal(t, want, left(t, s, "d"), "%q", name)
			}
			for _, name := range names {
				require.NoError(t, c.Delete(ctx, "d", name, influx.Window{From: 3, To: 4, Last: true}), "%q", name)
				want[name] = 2
			}
			require.Equal(t, want, left(t, s, "d"))
			for _, name := range names {
				require.NoError(t, c.Delete(ctx, "d", name, allTime), "%q", name)
			}
			require.Empty(t, left(t, s, "d"))
			for _, n := range left(t, s, "e") {
				require.Equal(t, 5, n, "another database")
			}
		})
	}
}

// A name that is not UTF-8 can only be given as a pattern that others match too,
// and some names not at all.
func TestDeleteRefusesWhatItCannotName(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	ctx := t.Context()
	database(t, c, "d", "\xff v=1 1", "\xfe v=1 1", "_series v=1 1", "_fieldKeys v=1 1", "_tagKeys v=1 1", "m v=1 1")
	before := left(t, s, "d")
	for _, name := range []string{"\xff", "_series", "_fieldKeys", "_tagKeys", ""} {
		err := c.Delete(ctx, "d", name, allTime)
		require.ErrorIs(t, err, influx.ErrUnaddressable, "%q", name)
	}
	require.Error(t, c.Delete(ctx, "", "m", allTime))
	for _, w := range []influx.Window{{From: 1, To: 1}, {From: 2, To: 1}, {From: 2, To: 1, Last: true}, {}} {
		require.NoError(t, c.Delete(ctx, "d", "m", w))
	}
	require.Equal(t, before, left(t, s, "d"))
	requireError(t, c.Delete(ctx, "none", "m", allTime), influx.Permanent, 200)
	require.NoError(t, c.Delete(ctx, "d", "none", allTime), "nothing to delete")
}

// Both ends of legal time are inside of a window that ends there.
func TestDeleteAtBothEndsOfTime(t *testing.T) {
	t.Parallel()
	_, c := start(t)
	ctx := t.Context()
	times := []int64{lineproto.MinTime, lineproto.MinTime + 1, -1, 0, 1, lineproto.MaxTime - 1, lineproto.MaxTime}
	for _, w := range []influx.Window{
		{From: lineproto.MinTime, To: lineproto.MinTime + 1},
		{From: lineproto.MinTime + 1, To: 0},
		{From: -1, To: 1},
		{From: 0, To: 0, Last: true},
		{From: lineproto.MaxTime - 1, To: lineproto.MaxTime},
		{From: lineproto.MaxTime, To: lineproto.MaxTime, Last: true},
		allTime,
		{From: -1 << 63, To: 1<<63 - 1},
	} {
		require.NoError(t, c.CreateDatabase(ctx, "d"))
		var lines strings.Builder
		for _, ns := range times {
			lines.WriteString(sprint("m v=1i %d\n", ns))
		}
		require.NoError(t, c.Write(ctx, "d", "autogen", []byte(lines.String())))
		require.NoError(t, c.Delete(ctx, "d", "m", w))
		var want []int64
		for _, ns := range times {
			if ns < w.From || ns > w.To || ns == w.To && !w.Last {
				want = append(want, ns)
			}
		}
		var got []int64
		for _, g := range shards(t, c) {
			for _, r := range read(t, c, influx.Selection{Database: "d", RetentionPolicy: "autogen", Measurement: "m", Window: g}) {
				got = append(got, r.Time)
			}
		}
		require.ElementsMatch(t, want, got, "%+v", w)
	}
}

func shards(t testing.TB, c *influx.Client) []influx.Window {
	t.Helper()
	groups, err := c.ShardGroups(t.Context())
	require.NoError(t, err)
	var out []influx.Window
	for _, g := range groups {
		out = append(out, influx.Window{From: g.From, To: g.To, Last: g.ToInclusive})
	}
	return out
}

// What a read hides, values of another type in an overlapping shard group, a
// delete takes as well: whoever deletes has to know of it.
func TestDeleteTakesWhatReadsHide(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	ctx := t.Context()
	day := int64(24 * time.Hour)
	s.Exec(`CREATE DATABASE d WITH DURATION INF SHARD DURATION 1d`)
	s.WriteLines("d", "", sprint("m v=1i %d", 3*day))
	s.Exec(`ALTER RETENTION POLICY autogen ON d SHARD DURATION 7d`)
	s.WriteLines("d", "", sprint("m v=\"text\" %d", day))
	s.WriteLines("d", "", sprint("m v=\"more\" %d", 2*day+1))
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 1, "the strings are hidden")
	require.NoError(t, c.Delete(ctx, "d", "m", allTime))
	for _, w := range shards(t, c) {
		require.Empty(t, read(t, c, influx.Selection{Database: "d", RetentionPolicy: "autogen", Measurement: "m", Window: w}))
	}
}

// A guard that has changed its mind stops a delete before anything of it is sent.
func TestDeleteIsGuarded(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	var lost atomic.Bool
	c := client(t, s.URL(), influx.Options{Guard: func() error {
		if lost.Load() {
			return errLease
		}
		return nil
	}})
	database(t, c, "d", "m v=1 1", "n v=1 1")
	require.NoError(t, c.Delete(t.Context(), "d", "n", allTime), "the connection is there")
	lost.Store(true)
	err := c.Delete(t.Context(), "d", "m", allTime)
	require.ErrorIs(t, err, influx.ErrGuard)
	require.ErrorIs(t, err, errLease)
	require.False(t, influx.IsTransient(err))
	require.Equal(t, map[string]int{"m": 1}, left(t, s, "d"))
}

// A delete whose answer is lost is not sent a second time behind its caller's back.
func TestDeleteIsSentOnce(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	s := fake(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && strings.Contains(string(body), "DELETE") && sent.Add(1) > 1 {
			conn, _, _ := http.NewResponseController(w).Hijack()
			conn.Close()
			return
		}
		w.Header().Set("Content-Type", "application/x-msgpack")
		// {"results": [{"statement_id": 0}]}
		_, _ = w.Write([]byte("\x81\xa7results\x91\x81\xacstatement_id\x00"))
	})
	c := client(t, s.URL, influx.Options{})
	require.NoError(t, c.Delete(t.Context(), "d", "m", allTime), "and keeps the connection")
	requireError(t, c.Delete(t.Context(), "d", "m", allTime), influx.Transient, 0)
	require.EqualValues(t, 2, sent.Load())
}

// What a server says that it cannot do is told from what it may do later.
func TestDeleteRefusals(t *testing.T) {
	t.Parallel()
	for text, class := range map[string]influx.Class{
		"cannot delete data. DB contains shards using both inmem and tsi1 indexes. Please convert": influx.Permanent,
		"database not found: d": influx.Permanent,
		"timeout":               influx.Transient,
	} {
		s := fake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("db") != "d" || r.FormValue("q") != "DELETE FROM m WHERE time >= 1 AND time <= 2" {
				return // which is no answer
			}
			w.Header().Set("Content-Type", "application/x-msgpack")
			_, _ = w.Write([]byte("\x81\xa7results\x91\x82\xacstatement_id\x00\xa5error\xd9" + string(rune(len(text))) + text))
		})
		err := client(t, s.URL, influx.Options{}).Delete(t.Context(), "d", "m", influx.Window{From: 1, To: 2, Last: true})
		var refusal *influx.Error
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, class, refusal.Class)
		require.Equal(t, text, refusal.Message)
		require.Equal(t, s.URL, refusal.Server())
	}
}

func TestDeleteNeedsLeave(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t, influxtest.WithAuth())
	s.Exec(`CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES`)
	admin, err := influx.New(influx.Endpoint{URL: s.URL(), Username: "admin", Password: "secret"}, influx.Options{})
	require.NoError(t, err)
	defer admin.Close()
	database(t, admin, "d", "m v=1 1")
	_, err = admin.Identity(t.Context())
	require.NoError(t, err)
	anonymous := client(t, s.URL(), influx.Options{})
	requireError(t, anonymous.Delete(t.Context(), "d", "m", allTime), influx.Permanent, 401)
	_, err = anonymous.Identity(t.Context())
	requireError(t, err, influx.Permanent, 401)
	require.Len(t, read(t, admin, everything("d", "autogen", "m")), 1)
	require.NoError(t, admin.Delete(t.Context(), "d", "m", allTime))
	require.Empty(t, read(t, admin, everything("d", "autogen", "m")))
}
