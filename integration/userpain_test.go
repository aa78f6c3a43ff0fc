package integration_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// The tests of this file show that what users of influx-proxy complain about does
// not happen here. Each is named after the complaint and numbered as in the list
// that this project began with.

// 1. The disk is dead or full, yet the ping says healthy, so writes vanish.
func TestUserPain1FullDiskThatAnswersPings(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.members[0][0].fill("db", 4, 500)
	full := s.proxy(1, 0)
	const words = "engine: error writing WAL entry: write /wal/db/autogen/1/_00001.wal: no space left on device"
	full.HandleAll(only(harness.IsWrite, refuse(http.StatusInternalServerError, words))(full))
	s.start()

	// It is told, with the reason, though it answers every ping.
	require.Eventually(t, func() bool {
		var h health25
		s.health("?stats=true", &h)
		return len(h.Checks) == 1 && strings.Contains(h.Checks[0].Message, "its disk is full: ")
	}, patience, 100*time.Millisecond, "the full disk is noticed")
	res, _, err := s.Client.Do(s.context(), http.MethodGet, "/ping", nil, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, res.StatusCode)

	// An operation that has to write there waits and says for what.
	id := s.ask("/recovery?from_circle_id=0&to_circle_id=1")
	op := s.wait(id, func(op *operation.Operation) bool { return len(op.Waits) > 0 || op.State.Terminal() })
	require.False(t, op.State.Terminal())
	require.Contains(t, asJSON(t, op.Waits), "no space left on device")
	require.Contains(t, asJSON(t, op.Waits), full.URL())
	require.Zero(t, op.Progress.Points.Verified)

	// There is space again: it goes on, and nothing has vanished.
	full.HandleAll(nil)
	report := s.succeed(id)
	require.EqualValues(t, 2000, report.Points.Destination)
	s.requireMoved(1, s.members[0], s.members[1], "db")
}

// 2. Resync and recovery always rewrite everything, without a look at what differs.
func TestUserPain2EverythingIsRewrittenWithoutADiff(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	var written atomic.Int64
	for i := range s.members {
		p := s.proxy(i, 0)
		p.Handle(only(harness.IsWrite, func(p *harness.Proxy) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				// What the server refuses changes nothing: so it is asked whether it
				// knows unsigned numbers.
				res, body, err := p.Fetch(r)
				if err != nil {
					harness.Hangup()
				}
				if res.StatusCode == http.StatusNoContent {
					written.Add(r.ContentLength)
				}
				w.WriteHeader(res.StatusCode)
				_, _ = w.Write(body)
			}
		})(p))
	}
	s.start()
	const measurements, points = 20, 500
	for _, b := range s.all() {
		b.fill("db", measurements, points)
	}
	for _, query := range []string{"/resync", "/recovery?from_circle_id=0&to_circle_id=1", "/recovery?from_circle_id=1&to_circle_id=0", "/resync?depth=count"} {
		op := s.finish(s.ask(query), operation.Succeeded)
		require.Zero(t, written.Load(), "%s writes nothing where nothing differs", query)
		require.True(t, strings.HasPrefix(op.Result.Note, "nothing to do"), op.Result.Note)
		require.EqualValues(t, measurements*points, op.Progress.Points.Unchanged, "what that saved is shown")
		require.Equal(t, operation.Amount{Slices: measurements, Points: measurements * points}, s.report(op.ID).Unchanged)
	}
	// One point of twenty measurements is another one: that alone is written.
	line := fmt.Sprintf("m007,host=h3,zone=z value=-1 %d\n", int64(firstTime))
	s.members[0][0].write("db", "", line)
	op := s.finish(s.ask("/resync"), operation.Succeeded)
	require.LessOrEqual(t, written.Load(), int64(2*len(line)))
	require.Positive(t, written.Load())
	require.Equal(t, measurements-1, s.report(op.ID).Unchanged.Slices)
	require.Equal(t, s.members[0][0].dump(), s.members[1][0].dump())
}

// 7. "databases empty", and an operation that does nothing looks like a success.
func TestUserPain7NothingIsDoneAndLooksLikeSuccess(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.start()
	// Nothing is there at all, or not of the database that is asked for: that is
	// said.
	for query, words := range map[string]string{
		"/recovery?from_circle_id=0&to_circle_id=1":       "no measurement was found",
		"/resync?db=nowhere":                              "no measurement was found",
		"/rebalance?circle_id=0&operation=add&db=nowhere": "no measurement was found",
		"/clear?circle_id=1":                              "no measurement was found",
	} {
		op := s.finish(s.ask(query), operation.Succeeded)
		require.NotNil(t, op.Result, query)
		require.True(t, strings.HasPrefix(op.Result.Note, "nothing to do"), op.Result.Note)
		require.Contains(t, op.Result.Note, words)
		require.Empty(t, s.members[0][0].databases())
	}

	// Where there is something, databases and policies come exactly as they are,
	// the empty ones too, whatever the circle to be filled lacks.
	from, to := s.members[0][0], s.members[1][0]
	from.exec(`CREATE DATABASE db WITH DURATION 1000w REPLICATION 1 SHARD DURATION 5w NAME "the default"`)
	from.exec(`CREATE RETENTION POLICY ever ON db DURATION INF REPLICATION 1 SHARD DURATION 100d`)
	from.exec(`CREATE RETENTION POLICY unused ON db DURATION 7d REPLICATION 1 SHARD DURATION 2h`)
	from.write("db", "ever", generate("m", 100))
	op := s.finish(s.ask("/recovery?from_circle_id=0&to_circle_id=1"), operation.Succeeded)
	require.Nil(t, op.Result, "something was done")
	require.EqualValues(t, 100, op.Progress.Points.Copied)
	require.ElementsMatch(t, from.policies("db"), to.policies("db"))
	require.Equal(t, from.dump(), to.dump())
}
