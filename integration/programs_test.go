package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

// exits runs a program that is expected to end by itself, and returns its exit
// code and what it printed.
func exits(t *testing.T, program string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, log bytes.Buffer
	cmd := exec.CommandContext(bounded(t), filepath.Join(binDir, program), args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &exit, "%s %v", program, args)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

func TestExitCodesAndMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := write("good.json", `{"circles":[{"name":"one","backends":[{"name":"a","url":"http://127.0.0.1:1","username":"u","password":"hidden-Password"}]}],"listen_addr":"127.0.0.1:0","data_dir":"`+dir+`/data"}`)
	bad := write("bad.json", `{"circles":[{"name":"one","backends":[{"name":"","url":"x"}]}],"hash_key":"nonsense","listen_adr":":1"}`)
	for name, c := range map[string]struct {
		program string
		args    []string
		code    int
		out     []string
		log     []string
	}{
		"version":        {"api", []string{"-version"}, 0, []string{"ringmaster api "}, nil},
		"worker version": {"worker", []string{"--version"}, 0, []string{"ringmaster worker "}, nil},
		"help":           {"api", []string{"-help"}, 0, []string{"-config", "RINGMASTER_"}, nil},
		"check":          {"api", []string{"-config", good, "-check"}, 0, []string{"is valid", `circle 0 "one"`, `backend "a" http://127.0.0.1:1`, "127.0.0.1:0"}, nil},
		"check of a bad file": {
			"api",
			[]string{"-config", bad, "-check"},
			2, nil,
			[]string{"nonsense", "listen_adr", "name", "url"},
		},
		"no configuration":        {"api", nil, 2, nil, []string{"-config is missing"}},
		"no such file":            {"api", []string{"-config", dir + "/none.json"}, 2, nil, []string{"none.json"}},
		"several mistakes":        {"api", []string{"-config", good, "-slots", "x", "-lease", "1ms", "-patience", "-1s"}, 2, nil, []string{"-slots", "-lease", "-patience"}},
		"unknown flag":            {"worker", []string{"-slot", "1"}, 2, nil, []string{"-slot"}},
		"worker without NATS":     {"worker", []string{"-slots", "0"}, 2, nil, []string{"-nats or -data is missing", "-slots 0"}},
		"worker without an api":   {"worker", []string{"-data", dir}, 1, nil, []string{"key"}},
		"address in use or wrong": {"api", []string{"-config", good, "-listen", "256.0.0.1:1"}, 1, nil, []string{"listening on 256.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, log := exits(t, c.program, c.args...)
			require.Equal(t, c.code, code, "%s\n%s", out, log)
			for _, word := range c.out {
				require.Contains(t, out, word)
			}
			for _, word := range c.log {
				require.Contains(t, log, word)
			}
			require.NotContains(t, out+log, "hidden-Password")
		})
	}
}

func TestSecondProcessOnADataDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.embedded()
	require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1"))
	in.startAPI()
	code, _, log := exits(t, "api", "-config", in.ConfigFile(), "-listen", "127.0.0.1:0")
	require.Equal(t, 1, code, log)
	require.Contains(t, log, "store directory is in use")
	require.Contains(t, log, fmt.Sprintf("process %d", in.API.PID()))
	// The first one is none the worse for it, and what it keeps is private.
	res, body := in.do(http.MethodGet, "/readyz", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode, body)
	for _, name := range []string{"key", "admin-token", "nats.json"} {
		info, err := os.Stat(filepath.Join(in.DataDir(), name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	in.stopAPI()
	in.startAPI()
	in.stopAPI()
}

// A program that is told to stop while it starts stops as well.
func TestStoppedWhileStarting(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.embedded()
	require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1"))
	for _, moment := range []string{"key", "jetstream", "nats.json", "admin-token"} {
		var log bytes.Buffer
		cmd := exec.CommandContext(bounded(t), filepath.Join(binDir, "api"), "-config", in.ConfigFile())
		cmd.Stderr = &log
		require.NoError(t, cmd.Start())
		require.Eventually(t, func() bool {
			_, err := os.Stat(filepath.Join(in.DataDir(), moment))
			return err == nil
		}, patience, time.Millisecond, moment)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait(), "stopped when there was %s: %s", moment, log.String())
		require.NoError(t, os.RemoveAll(in.DataDir()))
	}
	in.startAPI()
}

// longLease is a lease that no test waits for.
const longLease = "10m"

func TestWorkerGivesItsTaskBackWhenItIsStopped(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	b[0].fill("db", 4, 1000)
	owner := b[1].proxied()
	writes := newGate()
	in := install(t)
	t.Cleanup(writes.release)
	in.behind[owner.URL()] = b[1].URL()
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	in.startAPI("-lease", longLease)
	first := in.startWorker("-slots", "1")
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	writes.reached.await(t, "the first worker writes")
	began := time.Now()
	code, err := first.Stop()
	require.NoError(t, err)
	require.Zero(t, code, first.Output())
	for _, task := range in.tasks(op.ID) {
		require.NotEqual(t, operation.TaskRunning, task.State, "it was given back")
		require.Empty(t, task.Holder)
	}
	owner.Handle(nil)
	second := in.startWorker("-slots", "1")
	in.succeed(op.ID)
	require.Less(t, time.Since(began), 30*time.Second, "nobody waited for a lease")
	in.requireMoved(0, b[:1], b[1:], "db")
	for _, task := range in.tasks(op.ID) {
		require.Equal(t, workerID(t, second), task.Holder)
		require.Empty(t, task.Error)
	}
	var workers struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	require.NoError(t, in.Client.Get(in.context(), "/v1/workers", &workers))
	require.Len(t, workers.Items, 1, "a worker that was stopped is gone from the list at once")
	require.Equal(t, workerID(t, second), workers.Items[0].ID)
}

// One binary is a whole system, and goes on where it was stopped.
func TestAPIWithSlotsOfItsOwnDrainsAndGoesOn(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 2)
	b[0].fill("db", 4, 1000)
	owner := b[1].proxied()
	writes := newGate()
	in := install(t)
	t.Cleanup(writes.release)
	in.behind[owner.URL()] = b[1].URL()
	writes.hold(owner, harness.IsWrite)
	require.NoError(t, in.WriteConfigURLs(owner.URL()))
	start := func() {
		require.NoError(t, in.StartAPI(in.context(), "-slots", "2", "-lease", longLease))
	}
	start()
	op := in.rebalanceRemove(0, []harness.Backend{b[0].configured("gone")})
	writes.reached.await(t, "the api writes")
	began := time.Now()
	in.stopAPI()
	owner.Handle(nil)
	start()
	in.succeed(op.ID)
	require.Less(t, time.Since(began), 30*time.Second, "nobody waited for a lease")
	in.requireMoved(0, b[:1], b[1:], "db")
}

// A lease that was chosen at the first start holds for later starts that say
// nothing of it.
func TestLeaseIsKeptFromTheFirstStart(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.embedded()
	require.NoError(t, in.WriteConfigURLs("http://127.0.0.1:1"))
	for _, flags := range [][]string{{"-lease", "7s"}, nil} {
		require.NoError(t, in.StartAPI(in.context(), flags...))
		file, err := bus.ReadNATSFile(in.DataDir())
		require.NoError(t, err)
		b, err := bus.Connect(in.context(), bus.Options{URL: file.URL, Token: file.Token, Name: t.Name()})
		require.NoError(t, err)
		leases, err := b.Leases(in.context())
		require.NoError(t, err)
		require.Equal(t, 7*time.Second, leases.TTL())
		b.Close()
		in.stopAPI()
	}
}

func TestStatisticsAddUpAtTheEnd(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 4)
	in := install(t)
	require.NoError(t, in.WriteConfigURLs(b[0].URL(), b[1].URL(), b[2].URL()))
	for i := range 3 {
		b[i].fill("one", 12, 50)
	}
	b[3].fill("two", 9, 50)
	b[3].exec(`CREATE DATABASE empty`)
	in.startAPI()
	in.startWorker()
	check := func(rows map[string]statsRow, urls ...string) (moved int) {
		t.Helper()
		require.Len(t, rows, len(urls))
		for _, url := range urls {
			row, ok := rows[url]
			require.True(t, ok, "a row for %s", url)
			require.Equal(t, row.DatabaseTotal, row.DatabaseDone, "%s: %+v", url, row)
			require.Equal(t, row.MeasurementTotal, row.MeasurementDone, "%s: %+v", url, row)
			require.Equal(t, row.MeasurementTotal, row.MigrateCount+row.InplaceCount, "%s: %+v", url, row)
			moved += row.MigrateCount
		}
		return moved
	}
	op := in.finish(in.submitOld("circle_id=0&operation=add"), operation.Succeeded)
	rows := in.stats(0)
	require.Equal(t, 24, check(rows, b[0].URL(), b[1].URL(), b[2].URL()), "each of 12 measurements lies at one owner and two others: %+v", rows)
	require.Equal(t, 24, op.Progress.Measurements.Done)
	require.Equal(t, op.Progress.Tasks.Total, op.Progress.Tasks.Done)

	op = in.finish(in.submitOld("circle_id=0&operation=rm&cpus=2", b[3].configured("gone")), operation.Succeeded)
	rows = in.stats(0)
	// The circle's own copies lie where they lay: nothing deletes them.
	require.Equal(t, 24+9, check(rows, b[0].URL(), b[1].URL(), b[2].URL(), b[3].URL()))
	require.Equal(t, statsRow{2, 2, 9, 9, 9, 0}, rows[b[3].URL()])

	// The later generation's names tell the same.
	res, body := in.do(http.MethodGet, "/transfer/stats?circle_id=0&type=rebalance", nil, "")
	require.Equal(t, http.StatusOK, res.StatusCode)
	later := map[string]map[string]int{}
	require.NoError(t, json.Unmarshal([]byte(body), &later))
	require.Equal(t, 9, later[b[3].URL()]["transfer_count"])
	for _, path := range []string{"/migrate/state", "/transfer/state"} {
		res, body := in.do(http.MethodGet, path, nil, "")
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.NotContains(t, body, "true", "nothing moves any more")
	}
	require.Equal(t, op.ID, res.Header.Get("X-Operation-Id"))
	require.Contains(t, strings.Join(in.listed(), " "), op.ID)
}
