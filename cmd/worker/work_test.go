package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/worker"
)

func TestMain(m *testing.M) {
	if os.Getenv(processVariable) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

const (
	patience = 20 * time.Second
	tick     = 10 * time.Millisecond
)

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-data", "d"}, nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, filepath.Join("d", "key"), o.keyFile)
	require.Positive(t, o.slots)
	environ := []string{"RINGMASTER_NATS=nats://env:1", "RINGMASTER_KEY_FILE=env-key", "RINGMASTER_SLOTS=3", "RINGMASTER_LISTEN=", "RINGMASTER_PATIENCE=1m"}
	o, err = parseOptions(nil, environ, io.Discard)
	require.NoError(t, err)
	require.Equal(t, options{nats: "nats://env:1", keyFile: "env-key", slots: 3, patience: time.Minute}, *o)
	o, err = parseOptions([]string{"-slots", "4", "--nats=nats://flag:1", "-listen", ":1", "-backend-timeout", "5s"}, environ, io.Discard)
	require.NoError(t, err)
	require.Equal(t, options{nats: "nats://flag:1", keyFile: "env-key", slots: 4, listen: ":1", patience: time.Minute, backendTimeout: 5 * time.Second}, *o)

	for _, c := range []struct {
		args []string
		says []string
	}{
		{nil, []string{"-nats or -data is missing", "-key-file is missing"}},
		{[]string{"-nats", "n1"}, []string{"-key-file is missing"}},
		{[]string{"-data", "d", "-slots", "0", "-listen", "x", "-patience", "999ms", "-backend-timeout", "0", "-nope", "stray"}, []string{"-slots 0", "-listen", "-patience", "-backend-timeout", "-nope"}},
		{[]string{"-data", "d", "-slots", "9999", "-nats", "http://x"}, []string{"-slots 9999", "-nats"}},
		{[]string{"-data", "d", "-slots", "many", "-log-level", "loud"}, []string{"many", "loud"}},
	} {
		_, err := parseOptions(c.args, nil, io.Discard)
		var usage *program.UsageError
		require.ErrorAs(t, err, &usage, c.args)
		for _, word := range c.says {
			require.ErrorContains(t, err, word)
		}
		require.Equal(t, 2, program.Exit("worker", err, io.Discard))
	}
	var out bytes.Buffer
	_, err = parseOptions([]string{"-version"}, nil, &out)
	require.ErrorIs(t, err, program.ErrDone)
	require.Contains(t, out.String(), "ringmaster worker ")
	_, err = parseOptions([]string{"-h"}, nil, &out)
	require.ErrorIs(t, err, program.ErrDone)
	require.Contains(t, out.String(), "carries out the tasks")
}

// locked is a log that the program writes and the test reads.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// healthAddress waits for the line of the log that says where health is served.
func (l *locked) healthAddress(t *testing.T) string {
	t.Helper()
	var address string
	require.Eventually(t, func() bool {
		for line := range strings.Lines(l.String()) {
			var entry struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving health" {
				address = entry.Address
			}
		}
		return address != ""
	}, patience, tick)
	return address
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

// site is a data directory as an api leaves it, with its JetStream running.
func site(t *testing.T) (string, *bus.Server, *bus.Bus) {
	t.Helper()
	dir := t.TempDir()
	_, err := secrets.Create(filepath.Join(dir, "key"))
	require.NoError(t, err)
	s, err := bus.StartServer(t.Context(), bus.ServerOptions{Dir: dir})
	require.NoError(t, err)
	b := bustest.Connect(t, bus.Options{Server: s})
	bustest.Apply(t, b)
	return dir, s, b
}

func TestAWorkerJoinsServesHealthAndLeaves(t *testing.T) {
	t.Parallel()
	dir, server, b := site(t)
	leases, err := b.Leases(t.Context())
	require.NoError(t, err)
	var out, log locked
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-data", dir, "-slots", "2", "-listen", "127.0.0.1:0"}, nil, &out, &log)
	}()
	url := "http://" + log.healthAddress(t)
	code, body := get(t, url+"/healthz")
	require.Equal(t, http.StatusOK, code, body)
	code, body = get(t, url+"/readyz")
	require.Equal(t, http.StatusOK, code, body)
	code, body = get(t, url+"/metrics")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "process_resident_memory_bytes")
	require.Contains(t, body, "ringmaster_build_info{")
	code, _ = get(t, url+"/other")
	require.Equal(t, http.StatusNotFound, code)
	require.Eventually(t, func() bool {
		live, err := worker.Live(t.Context(), leases)
		return err == nil && len(live) == 1 && live[0].Slots == 2 && strings.Contains(out.String(), "ringmaster worker "+live[0].ID+" ready with 2 slots")
	}, patience, tick)

	require.NoError(t, server.Close(context.Background()))
	require.Eventually(t, func() bool {
		code, _ = get(t, url+"/readyz")
		return code == http.StatusServiceUnavailable
	}, patience, tick)
	code, _ = get(t, url+"/healthz")
	require.Equal(t, http.StatusOK, code, "it lives, and waits")
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, 1, strings.Count(log.String(), `"msg":"stopped"`))
	require.NotContains(t, log.String(), "key file")
	_, err = os.Stat(filepath.Join(dir, "key"))
	require.NoError(t, err)
}

func TestAWorkerThatCannotStart(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), []string{"-data", t.TempDir()}, nil, io.Discard, io.Discard), "opening the key file")
	dir := t.TempDir()
	_, err := secrets.Create(filepath.Join(dir, "key"))
	require.NoError(t, err)
	require.ErrorContains(t, run(t.Context(), []string{"-data", dir}, nil, io.Discard, io.Discard), "is an api running there?")
	server, err := bus.StartServer(t.Context(), bus.ServerOptions{Dir: dir})
	require.NoError(t, err)
	err = run(t.Context(), []string{"-data", dir}, nil, io.Discard, io.Discard)
	require.ErrorContains(t, err, "has an api prepared this NATS?")
	require.Equal(t, 1, program.Exit("worker", err, io.Discard))
	require.NoError(t, server.Close(context.Background()))
}

// A worker with another key than the cluster's says so, and joins: there are tasks
// that need no key.
func TestAWorkerWithAnotherKeyWarnsAndJoins(t *testing.T) {
	t.Parallel()
	dir, server, b := site(t)
	keys, err := secrets.Open(filepath.Join(dir, "key"))
	require.NoError(t, err)
	l, err := ledger.New(t.Context(), b, ledger.Options{})
	require.NoError(t, err)
	require.NoError(t, l.CheckKey(t.Context(), keys))
	other := filepath.Join(t.TempDir(), "other")
	_, err = secrets.Create(other)
	require.NoError(t, err)
	leases, err := b.Leases(t.Context())
	require.NoError(t, err)
	var log locked
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-data", dir, "-key-file", other}, nil, io.Discard, &log) }()
	require.Eventually(t, func() bool {
		live, err := worker.Live(t.Context(), leases)
		return err == nil && len(live) == 1
	}, patience, tick)
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, 1, strings.Count(log.String(), `"level":"WARN"`), log.String())
	require.Contains(t, log.String(), other)
	require.Contains(t, log.String(), "sealed with")
	require.NoError(t, server.Close(context.Background()))
}

// The api beside it has stopped: the worker waits for it, and can be stopped.
func TestAWorkerStoppedWhileItWaitsForNATS(t *testing.T) {
	t.Parallel()
	dir, server, _ := site(t)
	file, err := bus.ReadNATSFile(dir)
	require.NoError(t, err)
	require.NoError(t, server.Close(context.Background()))
	for _, args := range [][]string{{"-data", dir}, {"-nats", "nats://secret@127.0.0.1:1", "-key-file", filepath.Join(dir, "key")}} {
		var log locked
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx, args, nil, io.Discard, &log) }()
		require.Eventually(t, func() bool { return strings.Contains(log.String(), "waiting for NATS") }, patience, tick)
		cancel()
		require.NoError(t, <-done)
		require.Contains(t, log.String(), `"msg":"stopped"`)
		require.NotContains(t, log.String(), "secret")
		require.NotContains(t, log.String(), file.Token)
		if args[0] == "-data" {
			require.Contains(t, log.String(), file.URL)
		}
	}
}

// processVariable makes the test binary the worker itself.
const processVariable = "WORKER_TEST_PROCESS"

// The signal itself: a process that waits for NATS ends with 0.
func TestSIGTERMWhileWaitingForNATS(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	_, err := secrets.Create(key)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	var log locked
	cmd := exec.CommandContext(t.Context(), self, "-nats", "nats://127.0.0.1:1", "-key-file", key)
	cmd.Env, cmd.Stderr = append(os.Environ(), processVariable+"=1"), &log
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "waiting for NATS") }, patience, tick)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())
	require.Contains(t, log.String(), `"msg":"stopped"`)
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	dir, server, b := site(t)
	leases, err := b.Leases(t.Context())
	require.NoError(t, err)
	for range 10 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx, []string{"-data", dir, "-slots", "3"}, nil, io.Discard, io.Discard) }()
		require.Eventually(t, func() bool {
			live, err := worker.Live(t.Context(), leases)
			return err == nil && len(live) == 1
		}, patience, tick)
		cancel()
		require.NoError(t, <-done)
		live, err := worker.Live(t.Context(), leases)
		require.NoError(t, err)
		require.Empty(t, live, "it takes its leave")
	}
	b.Close()
	require.NoError(t, server.Close(context.Background()))
}
