package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/cmd/internal/program"
)

// An influx-proxy that was replaced may have left writes that it acknowledged:
// they are told of, and not a byte of them is touched.
func TestWhatInfluxProxyHasLeftIsToldAndLeftAlone(t *testing.T) {
	t.Parallel()
	old, data := t.TempDir(), t.TempDir()
	offset := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	files := map[string][]byte{
		"pending.dat": make([]byte, 100), "pending.rec": offset(40),
		"untouched.dat": make([]byte, 7), "untouched.rec": {},
		"without.dat":  make([]byte, 9),
		"nonsense.dat": make([]byte, 11), "nonsense.rec": offset(1 << 40),
		"done.dat": make([]byte, 50), "done.rec": offset(50),
		"empty.dat": {}, "empty.rec": offset(0),
		"notes.txt": []byte("hello"),
	}
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(old, name), content, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(old, "directory.dat"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(data, "here.dat"), []byte("123"), 0o600))
	config := write(t, "proxy.json", `{"circles":[{"name":"one","backends":[{"name":"pending","url":"http://127.0.0.1:1"}]}],"data_dir":"`+old+`"}`)
	says := []string{
		"here.dat", `3 bytes of writes that backend "here"`,
		"pending.dat", `60 bytes of writes that backend "pending"`, `7 bytes of writes that backend "untouched"`,
		`9 bytes of writes that backend "without"`, `11 bytes of writes that backend "nonsense"`,
		"start influx-proxy with its own configuration",
	}
	silent := []string{"done", "empty", "notes", "directory.dat"}
	check := func(text string) {
		t.Helper()
		for _, s := range says {
			require.Contains(t, text, s)
		}
		for _, s := range silent {
			require.NotContains(t, text, s)
		}
	}

	var out bytes.Buffer
	_, err := parseOptions([]string{"-config", config, "-data", data, "-check"}, nil, &out)
	require.ErrorIs(t, err, program.ErrDone)
	check(out.String())

	// It is told before anything is started, and nothing keeps it from starting.
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	var log bytes.Buffer
	_ = run(stopped, []string{"-config", config, "-data", data, "-listen", "127.0.0.1:0"}, nil, io.Discard, &log)
	require.Contains(t, log.String(), `"level":"WARN"`)
	for _, s := range []string{"here.dat", "pending.dat", "untouched.dat", "without.dat", "nonsense.dat"} {
		require.Contains(t, log.String(), s)
	}

	for name, content := range files {
		is, err := os.ReadFile(filepath.Join(old, name))
		require.NoError(t, err)
		require.Equal(t, content, append([]byte{}, is...), name)
	}
	require.Empty(t, leftovers(filepath.Join(old, "none")))
	require.Contains(t, leftovers(config)[0], "cannot be seen")
}
