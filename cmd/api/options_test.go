package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/secrets"
)

// write makes a file in a directory of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const proxyJSON = `{
	"circles": [
		{"name": "circle-1", "backends": [
			{"name": "a", "url": "http://127.0.0.1:8086", "username": "u", "password": "never-shown"},
			{"name": "b", "url": "http://127.0.0.1:8087"}]},
		{"name": "circle-2", "backends": [{"name": "c", "url": "http://127.0.0.1:8088"}]}],
	"listen_addr": "127.0.0.1:7076",
	"data_dir": "from-file"
}`

// Ringmaster's own file has everything that flags have.
const ownYAML = `
circles:
  - name: one
    backends:
      - {name: a, url: "http://127.0.0.1:8086"}
listen_addr: "127.0.0.1:1111"
data_dir: file-data
nats: "nats://file:4222"
nats_listen: "127.0.0.1:2222"
key_file: file-key
slots: 3
prefix: /file
`

func TestFileThenEnvironmentThenFlag(t *testing.T) {
	t.Parallel()
	file := write(t, "ringmaster.yaml", ownYAML)
	environ := []string{
		"RINGMASTER_DATA=env-data", "RINGMASTER_LISTEN=127.0.0.1:3333", "RINGMASTER_NATS=nats://env:4222", "RINGMASTER_NATS_LISTEN=127.0.0.1:4444",
		"RINGMASTER_KEY_FILE=env-key", "RINGMASTER_SLOTS=4", "RINGMASTER_PREFIX=/env", "RINGMASTER_LEASE=2s", "RINGMASTER_PATIENCE=3s",
		"RINGMASTER_BACKEND_TIMEOUT=4s", "RINGMASTER_LOG_LEVEL=warn", "RINGMASTER_ACCEPT_CONFIG=true",
	}
	flags := []string{
		"-data", "flag-data", "-listen", "127.0.0.1:5555", "-nats", "nats://flag:4222", "-nats-listen", "127.0.0.1:6666",
		"-key-file", "flag-key", "-slots", "0", "--prefix=/flag", "-lease", "5s", "-patience", "6s", "-backend-timeout", "7s", "-log-level", "error",
		"-accept-config=false",
	}
	type values struct {
		data, listen, nats, natsListen, key, prefix string
		slots                                       int
		lease, patience, backend                    time.Duration
		level                                       slog.Level
		accept                                      bool
	}
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		want    values
	}{
		{"file", nil, nil, values{"file-data", "127.0.0.1:1111", "nats://file:4222", "127.0.0.1:2222", "file-key", "/file", 3, 0, 0, 0, slog.LevelInfo, false}},
		{"environment", nil, environ, values{"env-data", "127.0.0.1:3333", "nats://env:4222", "127.0.0.1:4444", "env-key", "/env", 4, 2 * time.Second, 3 * time.Second, 4 * time.Second, slog.LevelWarn, true}},
		{"flags", flags, environ, values{"flag-data", "127.0.0.1:5555", "nats://flag:4222", "127.0.0.1:6666", "flag-key", "/flag", 0, 5 * time.Second, 6 * time.Second, 7 * time.Second, slog.LevelError, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, err := parseOptions(append([]string{"-config", file}, c.args...), c.environ, &bytes.Buffer{})
			require.NoError(t, err)
			require.Equal(t, c.want, values{
				o.data, o.listen, o.nats, o.natsListen, o.keyFile, o.prefix, o.slots,
				o.lease, o.patience, o.backendTimeout, o.logLevel, o.acceptConfig,
			})
		})
	}
	t.Run("stalls", func(t *testing.T) {
		t.Parallel()
		own := write(t, "own.yaml", "circles: [{name: c, backends: [{name: a, url: 'http://a:1'}]}]\nstalled_after: 90\nwebhook: {url: 'http://hook/file'}\n")
		o, err := parseOptions([]string{"-config", own}, nil, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, 90*time.Second, o.stalled)
		require.Equal(t, "http://hook/file", o.webhook)
		o, err = parseOptions([]string{"-config", own, "-webhook", "http://hook/flag"}, []string{"RINGMASTER_STALLED=2m", "RINGMASTER_WEBHOOK=http://hook/env", "RINGMASTER_ERROR_LIMIT=3m"}, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, 2*time.Minute, o.stalled)
		require.Equal(t, 3*time.Minute, o.errorLimit)
		require.Equal(t, "http://hook/flag", o.webhook)
	})
	t.Run("defaults", func(t *testing.T) {
		t.Parallel()
		o, err := parseOptions([]string{"-config", write(t, "proxy.json", proxyJSON)}, nil, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, runtime.NumCPU(), o.slots)
		require.Equal(t, filepath.Join("from-file", "key"), o.keyFile)
		require.Empty(t, o.nats)
		o, err = parseOptions([]string{"-config", write(t, "proxy.json", proxyJSON), "-data", "d"}, nil, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, filepath.Join("d", "key"), o.keyFile, "the key lies beside the data")
	})
}

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	good := write(t, "proxy.json", proxyJSON)
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no file", nil, []string{"-config is missing"}},
		{"no such file", []string{"-config", good + ".none"}, []string{"proxy.json.none"}},
		{"a bad file and bad flags", []string{"-config", write(t, "bad.json", `{"circles":[{"name":"c","backends":[{"name":"a","url":"ftp://x"}]}],"hash_key":"nonsense","colour":1}`), "-slots", "many", "-nope"}, []string{
			"-nope", "hash_key", "backends[0].url", "colour", "-slots",
		}},
		{"all flags", []string{
			"-config", good, "-listen", "7076", "-nats-listen", "x", "-nats", "http://n", "-slots", "2000", "-prefix", "p?", "-lease", "1ms",
			"-stalled", "1ms", "-error-limit", "1ms", "-webhook", "ftp://hunter2", "-hint-bytes", "1", "-hint-age", "1s", "-history-age", "1s", "-history-bytes", "9", "-write-memory", "1", "-query-time", "1us", "-query-points", "-1", "-query-bytes", "-1",
			"-patience", "-1s", "-backend-timeout", "-1s", "-archive", "s3://x", "-key-file", "/none/key", "stray",
		}, []string{
			"stray", "-slots", "-listen", "-nats-listen", "-nats", "-prefix", "-lease", "-patience", "-backend-timeout", "-archive", "-key-file",
			"-stalled 1ms", "-error-limit 1ms", "-webhook: it is not an http or https address", "-hint-bytes", "-hint-age", "-history-age", "-history-bytes", "-write-memory", "-query-time", "-query-points", "-query-bytes",
		}},
		{"durations that would never do", []string{"-config", good, "-lease", "0", "-patience", "999ms", "-backend-timeout", "1ms"}, []string{"-lease 0s", "-patience 999ms", "-backend-timeout 1ms"}},
		{"NATS off loopback", []string{"-config", good, "-nats-listen", "0.0.0.0:4222"}, []string{"-nats-listen: \"0.0.0.0:4222\" is off loopback, which needs TLS"}},
		{"a file with a bad address and certificates that are not there", []string{"-config", write(t, "tls.json", `{
			"circles": [{"name": "c", "backends": [{"name": "a", "url": "http://127.0.0.1:1"}]}],
			"listen_addr": "7076", "nats_listen": "0.0.0.0:1", "https_enabled": true, "https_cert": "none.pem", "https_key": "none.key"}`)}, []string{
			"listen_addr", "-nats-listen", "none.pem", "none.key",
		}},
		{"environment", []string{"-config", good}, []string{"RINGMASTER_LEASE"}},
		{"certificate", []string{"-config", write(t, "tls.json", strings.Replace(proxyJSON, `"data_dir"`, `"https_enabled": true, "https_cert": "none.pem", "https_key": "none.key", "data_dir"`, 1))}, []string{"https_cert"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			if c.name == "environment" {
				environ = []string{"RINGMASTER_LEASE=soon"}
			}
			_, err := parseOptions(c.args, environ, &bytes.Buffer{})
			var usage *program.UsageError
			require.ErrorAs(t, err, &usage)
			require.GreaterOrEqual(t, len(usage.Mistakes), len(c.says), err)
			for _, word := range c.says {
				require.ErrorContains(t, err, word)
			}
			require.NotContains(t, err.Error(), "never-shown")
			require.Equal(t, 2, program.Exit("api", err, &bytes.Buffer{}))
		})
	}
}

// What the file says of an address is judged once.
func TestAMistakeIsNamedOnce(t *testing.T) {
	t.Parallel()
	file := write(t, "bad.json", strings.Replace(proxyJSON, `"127.0.0.1:7076"`, `"7076", "nats_listen": "4222"`, 1))
	_, err := parseOptions([]string{"-config", file}, nil, &bytes.Buffer{})
	var usage *program.UsageError
	require.ErrorAs(t, err, &usage)
	require.Len(t, usage.Mistakes, 2, err)
}

// With -check and without: a key file that cannot be used is named before anything
// is started. One that is not there yet is fine where it can be made.
func TestKeyFilesAreChecked(t *testing.T) {
	t.Parallel()
	config := write(t, "proxy.json", proxyJSON)
	dir := t.TempDir()
	open, empty := filepath.Join(dir, "open"), filepath.Join(dir, "empty")
	_, err := secrets.Create(open)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(open, 0o640)) // that is what is tested
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, check := range []string{"-check", "-check=false"} {
		for path, says := range map[string]string{
			open: "chmod 600", empty: "no keyset", dir: "is not a file",
			filepath.Join(empty, "key"): "not a directory", filepath.Join(dir, "none", "key"): "no directory",
		} {
			_, err := parseOptions([]string{"-config", config, check, "-key-file", path}, nil, &bytes.Buffer{})
			var usage *program.UsageError
			require.ErrorAs(t, err, &usage, path)
			require.Len(t, usage.Mistakes, 1)
			require.ErrorContains(t, err, "-key-file")
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, says)
		}
	}
	for _, args := range [][]string{
		{"-key-file", filepath.Join(dir, "new")},
		{"-key-file", "new"},
		{"-data", filepath.Join(dir, "a", "b")},
		{"-data", filepath.Join(dir, "a", "b"), "-key-file", filepath.Join(dir, "a", "key")},
	} {
		_, err := parseOptions(append([]string{"-config", config, "-check"}, args...), nil, &bytes.Buffer{})
		require.ErrorIs(t, err, program.ErrDone, args)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "looking makes nothing")
}

func TestCheckPrintsWhatItFound(t *testing.T) {
	t.Parallel()
	file := write(t, "proxy.json", proxyJSON)
	var out bytes.Buffer
	_, err := parseOptions([]string{"-config", file, "-check"}, []string{"RINGMASTER_LISTEN=127.0.0.1:9"}, &out)
	require.ErrorIs(t, err, program.ErrDone)
	got := strings.ReplaceAll(out.String(), filepath.Dir(file), "DIR")
	golden := filepath.Join("testdata", "check.golden")
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.NotContains(t, got, "never-shown")

	out.Reset()
	_, err = parseOptions([]string{"-version", "-config", file}, nil, &out)
	require.ErrorIs(t, err, program.ErrDone)
	require.Contains(t, out.String(), "ringmaster api ")
}

// The bounds of the history: file < environment < flag.
func TestBoundsOfTheHistory(t *testing.T) {
	t.Parallel()
	file := write(t, "own.yaml", "circles: [{name: c, backends: [{name: a, url: 'http://a:1'}]}]\nhistory: {days: 30, bytes: 2097152}\n")
	plain := write(t, "plain.yaml", "circles: [{name: c, backends: [{name: a, url: 'http://a:1'}]}]\n")
	for _, example := range []struct {
		args, environ []string
		age           time.Duration
		bytes         int64
	}{
		{[]string{"-config", plain}, nil, 0, 0}, // the defaults of whoever keeps it
		{[]string{"-config", file}, nil, 30 * 24 * time.Hour, 2 << 20},
		{[]string{"-config", file}, []string{"RINGMASTER_HISTORY_AGE=48h", "RINGMASTER_HISTORY_BYTES=3145728"}, 48 * time.Hour, 3 << 20},
		{[]string{"-config", file, "-history-age", "72h"}, []string{"RINGMASTER_HISTORY_AGE=48h"}, 72 * time.Hour, 2 << 20},
	} {
		o, err := parseOptions(example.args, example.environ, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, example.age, o.historyAge, "%v", example)
		require.Equal(t, example.bytes, o.historyBytes, "%v", example)
	}
}
