package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// Of processes that start at once, one makes the token and all use that one; none
// ever sees a part of it.
func TestAdminTokenIsMadeOnce(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := t.TempDir()
		var mu sync.Mutex
		tokens := map[string]int{}
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				token, err := adminToken(dir)
				if err != nil {
					t.Errorf("reading the token: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				tokens[token]++
			})
		}
		all.Wait()
		require.Len(t, tokens, 1)
		for token := range tokens {
			require.GreaterOrEqual(t, len(token), 40)
		}
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, files, 1, "nothing else is left")
		info, err := files[0].Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestAdminTokenThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "admin-token")
	require.NoError(t, os.WriteFile(path, []byte("\n"), 0o600))
	_, err := adminToken(dir)
	require.ErrorContains(t, err, "is empty")
	require.NoError(t, os.WriteFile(path, []byte("own-token\n"), 0o600))
	token, err := adminToken(dir)
	require.NoError(t, err)
	require.Equal(t, "own-token", token)
	require.NoError(t, os.Chmod(path, 0o644)) // that is what is tested
	_, err = adminToken(dir)
	require.ErrorContains(t, err, "chmod 600")
	_, err = adminToken(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// started is an api that runs in this process.
type started struct {
	t    *testing.T
	url  string
	stop func()
	log  *bytes.Buffer // to be read when it has stopped
}

var readyLine = regexp.MustCompile(`^ringmaster api ready on (https?://\S+), data in`)

// start runs the program until it says that it is ready.
func start(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	log := &bytes.Buffer{}
	go func() {
		err := run(ctx, args, nil, in, log)
		_ = in.Close()
		done <- err
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	found := readyLine.FindStringSubmatch(line)
	if err != nil || found == nil {
		cancel()
		t.Fatalf("it is not ready: %q, %v, %v", line, err, <-done)
	}
	s := &started{t: t, url: found[1], log: log, stop: sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		for line := range strings.Lines(log.String()) {
			require.True(t, json.Valid([]byte(line)), line)
		}
		require.Equal(t, 1, strings.Count(log.String(), `"msg":"stopped"`))
	})}
	t.Cleanup(s.stop)
	return s
}

func (s *started) get(path, token string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	require.NoError(s.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(s.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	return res.StatusCode, string(body)
}

// The whole program starts and stops in one process again and again, on the same
// data: nothing is left running, and nothing is lost.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := write(t, "proxy.json", `{"circles":[{"name":"one","backends":[{"name":"a","url":"http://127.0.0.1:1","username":"u","password":"never-shown"}]}]}`)
	args := []string{"-config", config, "-data", dir, "-listen", "127.0.0.1:0", "-slots", "1", "-prefix", "/below", "-log-level", "debug"}
	var token string
	for range 3 {
		s := start(t, args...)
		code, _ := s.get("/healthz", "")
		require.Equal(t, http.StatusOK, code)
		code, body := s.get("/readyz", "")
		require.Equal(t, http.StatusOK, code, body)
		code, body = s.get("/metrics", "")
		require.Equal(t, http.StatusOK, code)
		require.Contains(t, body, "go_goroutines")
		now, err := adminToken(dir)
		require.NoError(t, err)
		if token != "" {
			require.Equal(t, token, now)
		}
		token = now
		code, body = s.get("/v1/topology", token)
		require.Equal(t, http.StatusOK, code)
		require.Contains(t, body, `"epoch":1`)
		require.NotContains(t, body, "never-shown")
		require.NotContains(t, body, "sealed")
		require.Eventually(t, func() bool {
			_, body = s.get("/v1/workers", token)
			return strings.Contains(body, `"slots":1`)
		}, patience, 10*time.Millisecond)
		code, _ = s.get("/v1/operations", token)
		require.Equal(t, http.StatusOK, code)
		s.stop()
	}
}

// What goes wrong while it starts is undone: the next start finds nothing in its
// way.
func TestAFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := write(t, "proxy.json", proxyJSON)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "admin-token"), nil, 0o600))
	args := []string{"-config", config, "-data", dir, "-listen", "127.0.0.1:0", "-slots", "0"}
	err := run(t.Context(), args, nil, io.Discard, io.Discard)
	require.ErrorContains(t, err, "admin token")
	require.NoError(t, os.Remove(filepath.Join(dir, "admin-token")))
	s := start(t, args...)
	// An address that is taken ends the second one, and not the first.
	other := append([]string{}, args...)
	other[3] = t.TempDir()
	other[5] = strings.TrimPrefix(s.url, "http://")
	require.ErrorContains(t, run(t.Context(), other, nil, io.Discard, io.Discard), "listening on")
	code, _ := s.get("/healthz", "")
	require.Equal(t, http.StatusOK, code)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	_ = run(stopped, append([]string{}, append(args[:2:2], "-data", t.TempDir(), "-listen", "127.0.0.1:0")...), nil, io.Discard, io.Discard)
}
