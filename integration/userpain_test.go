package integration_test

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
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

// 1. For what clients write: the point is neither lost nor turned back, and the read
// that follows finds it.
func TestUserPain1WritesOnAFullDiskDoNotVanish(t *testing.T) {
	t.Parallel()
	s := newCircleSite(t, 1, 1)
	s.Settings = map[string]any{"check_interval": 1}
	full := s.proxy(1, 0)
	s.start()
	s.query("CREATE DATABASE db")
	const words = "engine: error writing WAL entry: write /wal/db/autogen/1/_00001.wal: no space left on device"
	full.HandleAll(only(harness.IsWrite, refuse(http.StatusInternalServerError, words))(full))
	for i := range 5 {
		s.store("db", lateLines(fmt.Sprintf("early%d", i)))
	}
	s.awaitMode(s.members[1][0], "hinting")
	res, topology := s.do(http.MethodGet, "/v1/topology", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Contains(t, topology, "no space left on device", "it is told why")
	for range 4 {
		require.Empty(t, s.said("db", readLate("early0")))
		_, answer := s.do(http.MethodGet, "/query?db=db&q=SELECT+value+FROM+%22early0-07%22", nil, "")
		require.Contains(t, answer, ",7]")
	}
	require.Len(t, s.members[0][0].dump(), 5*lateCount)
	full.HandleAll(nil)
	s.awaitMode(s.members[1][0], "direct")
	require.Equal(t, s.members[0][0].dump(), s.members[1][0].dump())
}

// 3. Two proxies, one with the new node: what is written through the other lands
// where nobody looks.
func TestUserPain3TwoProxiesOneWithTheNewNode(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	require.NoError(t, in.WriteCircles(circleOf("one", b[0])))
	in.startAPI()
	in.startWorker()
	in.query("CREATE DATABASE db")
	unaware, _ := in.peer(circleOf("one", b[0]))
	unaware.store("db", lateLines("before"))
	in.reconfigure(circleOf("one", b[0], b[1]))
	in.awaitStep(2, 0, "write_both_read_old")
	// Its file knows nothing of the new node; it does.
	unaware.store("db", lateLines("meanwhile"))
	unaware.store("db", strings.ReplaceAll(lateLines("before"), "i ", "000i "))
	in.finish(in.rebalanceAdd(0).ID, operation.Succeeded)
	in.awaitStep(2, 0, "")
	unaware.store("db", lateLines("after"))
	for _, g := range []*installation{in, unaware} {
		for _, kind := range []string{"before", "meanwhile", "after"} {
			for _, i := range []int{1, 17, 39} {
				want := fmt.Sprintf(",%d]", i)
				if kind == "before" {
					want = fmt.Sprintf(",%d000]", i)
				}
				_, answer := g.do(http.MethodGet, "/query?"+url.Values{"db": {"db"}, "q": {fmt.Sprintf("SELECT value FROM \"%s-%02d\"", kind, i)}}.Encode(), nil, "")
				require.Contains(t, answer, want, "%s-%02d", kind, i)
			}
		}
	}
	for _, kind := range []string{"before", "meanwhile", "after"} {
		in.requireLate(kind, b)
	}
}

// 4. What is kept for a backend that is down grows until the disk is full.
func TestUserPain4TheBacklogGrowsUntilTheDiskIsFull(t *testing.T) {
	t.Parallel()
	const bound = 64 << 20
	b := startBackends(t, 2)
	in := install(t)
	in.Settings = map[string]any{"check_interval": 1}
	require.NoError(t, in.WriteCircles(circleOf("one", b[0]), circleOf("two", b[1])))
	in.startAPI("-hint-bytes", fmt.Sprint(bound))
	in.query("CREATE DATABASE db")
	in.store("db", "m value=1i 1\n")
	b[1].Kill()
	in.store("db", "m value=1i 2\n")
	in.awaitMode(b[1], "hinting")
	// Text that can't be compressed much, as nobody's points are.
	dice := rand.New(rand.NewPCG(4, 4))
	raw := make([]byte, 30<<10)
	at, acknowledged := int64(firstTime), 0
	batch := func() string {
		var lines strings.Builder
		for lines.Len() < 8<<20 {
			for i := range raw {
				raw[i] = byte(dice.Uint32())
			}
			at++
			fmt.Fprintf(&lines, "big text=\"%s\" %d\n", base64.StdEncoding.EncodeToString(raw), at)
		}
		return lines.String()
	}
	refused := ""
	for n := 0; refused == "" && n < 3*bound/(8<<20); n++ {
		lines := batch()
		switch status, body := in.writeOnce("db", lines); status {
		case http.StatusNoContent:
			acknowledged += strings.Count(lines, "\n")
		case http.StatusServiceUnavailable:
			refused = body
		default:
			t.Fatal(status, body)
		}
	}
	require.Contains(t, refused, "64.0 MiB", "the bound is told")
	require.Contains(t, refused, b[1].URL())
	// What waits is shown, and there was an alarm before.
	require.True(t, waitFor(t, func() bool { return strings.Contains(in.API.Output(), "hints are about to reach a bound") }))
	_, metrics := in.do(http.MethodGet, "/metrics", nil, "")
	require.Regexp(t, `ringmaster_hints_bytes\{backend="`+b[1].URL()+`",mode="hinting"\} [1-9]`, metrics)
	require.Contains(t, metrics, `ringmaster_hints_alarm{backend="`+b[1].URL()+`"} 1`)
	require.Contains(t, metrics, fmt.Sprintf("ringmaster_hints_limit_bytes{backend=%q} 6.7108864e+07", b[1].URL()))
	var kept int64
	require.NoError(t, filepath.WalkDir(filepath.Join(in.DataDir(), "jetstream"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, infoErr := d.Info(); infoErr == nil {
				kept += info.Size()
			}
		}
		return nil
	}))
	require.Less(t, kept, int64(2*bound))
	// Nothing that was acknowledged is missing afterwards.
	b[1].Restart()
	in.awaitMode(b[1], "direct")
	answer := b[1].Query(`SELECT count(text) FROM db.autogen.big`)
	require.Equal(t, fmt.Sprint(acknowledged), fmt.Sprint(answer[0].Series[0].Values[0][1]))
	require.True(t, waitFor(t, func() bool {
		status, _ := in.writeOnce("db", "m value=1i 3\n")
		return status == http.StatusNoContent
	}))
}

// 5. The framing of what is kept breaks in a crash, and the replay is stuck for ever.
func TestUserPain5ABrokenTailOfTheBacklogStopsTheReplay(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	in := install(t)
	in.Settings = map[string]any{"check_interval": 1}
	require.NoError(t, in.WriteCircles(circleOf("one", b[0]), circleOf("two", b[1])))
	in.startAPI()
	in.query("CREATE DATABASE db")
	b[1].Kill()
	for i := range 5 {
		in.store("db", lateLines(fmt.Sprintf("early%d", i)))
	}
	in.awaitMode(b[1], "hinting")
	in.API.Kill()
	// The crash has left the beginning of one more message.
	torn := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(in.DataDir(), "jetstream"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".blk") || !strings.Contains(strings.ToLower(path), "hint") {
			return err
		}
		block, err := os.ReadFile(path)
		if err != nil || len(block) == 0 {
			return err
		}
		torn++
		return os.WriteFile(path, append(block, block[:min(len(block), 70)]...), 0o600)
	}))
	require.Positive(t, torn)
	in.startAPI()
	in.store("db", lateLines("late"))
	b[1].Restart()
	in.awaitMode(b[1], "direct")
	require.Equal(t, b[0].dump(), b[1].dump())
	require.Len(t, b[1].dump(), 6*lateCount)
}
