package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/integration/harness"
)

// binDir holds the demonstration itself and the programs it starts.
var binDir string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ringmaster-demo-test-")
	if err == nil {
		binDir = dir
		defer os.RemoveAll(dir)
		// One more package beside those that are always built.
		err = harness.BuildPrograms(context.Background(), dir, "./integration/demo")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left over:", err)
			return 1
		}
	}
	return code
}

// patience bounds every wait of a test; what is waited for takes seconds.
const patience = 2 * time.Minute

// demonstration is a run of the program whose temporary files lie in a directory
// of its own.
type demonstration struct {
	*exec.Cmd

	t      *testing.T
	tmp    string
	output *watched
}

// small makes a run short.
var small = []string{"-measurements", "40", "-points", "5000", "-lease", "1s"}

func startDemo(t *testing.T, args ...string) *demonstration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	d := &demonstration{t: t, tmp: t.TempDir(), output: &watched{changed: make(chan struct{}, 1)}}
	d.Cmd = exec.CommandContext(ctx, filepath.Join(binDir, "demo"), append([]string{"-bin", binDir}, args...)...)
	d.Env = append(os.Environ(), "TMPDIR="+d.tmp, "KEEP=")
	d.Stdout, d.Stderr = d.output, d.output
	require.NoError(t, d.Start())
	return d
}

// finish waits for the end and returns the exit code.
func (d *demonstration) finish() int {
	d.t.Helper()
	_ = d.Wait() // the exit code says it
	return d.ProcessState.ExitCode()
}

// requireNothingLeft requires that no process and no file is left.
func (d *demonstration) requireNothingLeft() {
	d.t.Helper()
	left, err := os.ReadDir(d.tmp)
	require.NoError(d.t, err)
	require.Empty(d.t, left, d.output.String())
	require.Empty(d.t, d.processes(), d.output.String())
}

// processes are those whose command line or environment names the directory of
// this run.
func (d *demonstration) processes() []int {
	d.t.Helper()
	if runtime.GOOS != "linux" {
		d.t.Skip("there is no /proc to look into")
	}
	entries, err := os.ReadDir("/proc")
	require.NoError(d.t, err)
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, name := range []string{"cmdline", "environ"} {
			raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), name))
			if err == nil && bytes.Contains(raw, []byte(d.tmp)) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// watched keeps what is written, and wakes who waits for it.
type watched struct {
	mu      sync.Mutex
	kept    bytes.Buffer
	changed chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return w.kept.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept.String()
}

// await waits until a text has been printed.
func (d *demonstration) await(text string) {
	d.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !strings.Contains(d.output.String(), text) {
		select {
		case <-d.output.changed:
		case <-deadline.C:
			require.Failf(d.t, "it was not printed", "%q in:\n%s", text, d.output.String())
		}
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	d := startDemo(t, small...)
	code := d.finish()
	text := d.output.String()
	require.Zero(t, code, text)
	for _, want := range []string{
		"bird strikes", "topology epoch 2", "curl -i -X POST", "202 Accepted", "kill -9", "takes task", "as attempt 2",
		"equal       yes", "nothing deleted", "left behind", "All processes have been stopped", "together",
	} {
		require.Contains(t, text, want, text)
	}
	require.NotContains(t, text, "differences", text)
	d.requireNothingLeft()
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			d := startDemo(t, small...)
			d.await("X-Operation-Id")
			require.NoError(t, d.Process.Signal(signal))
			require.Equal(t, 1, d.finish(), d.output.String())
			require.Contains(t, d.output.String(), "demo: interrupted\n")
			d.requireNothingLeft()
		})
	}
}

// TestDemoFails runs it with programs that end at once.
func TestDemoFails(t *testing.T) {
	t.Parallel()
	broken := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(broken, "api"), []byte("#!/bin/sh\necho broken >&2\nexit 3\n"), 0o700))
	d := startDemo(t, append([]string{"-bin", broken}, small...)...)
	require.Equal(t, 1, d.finish())
	require.Contains(t, d.output.String(), "demo: a cluster of two backends: starting api: it ended: exit status 3")
	require.Contains(t, d.output.String(), "broken")
	d.requireNothingLeft()
}

func TestDemoKeeps(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "-keep", "-measurements", "4", "-points", "100")
	require.Zero(t, d.finish(), d.output.String())
	text := d.output.String()
	dir, pids := after(t, text, "data     "), strings.Fields(after(t, text, "to stop  kill "))
	t.Cleanup(func() {
		for _, pid := range d.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	})
	// Three servers, the api, and the workers that were not killed.
	require.Contains(t, []int{5, 6}, len(pids))
	require.Len(t, d.processes(), len(pids))
	require.DirExists(t, dir)

	// The two lines it prints end everything.
	for _, pid := range pids {
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(n, syscall.SIGTERM))
	}
	require.Eventually(t, func() bool { return len(d.processes()) == 0 }, patience, 50*time.Millisecond)
	require.NoError(t, os.RemoveAll(dir))
	d.requireNothingLeft()
}

// after returns the rest of the line after a text.
func after(t *testing.T, text, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, mark)
	require.True(t, ok, text)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func TestOptions(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	o, err := parseOptions(nil, none)
	require.NoError(t, err)
	require.Equal(t, options{measurements: 60, points: 50_000, lease: 3 * time.Second}, o)

	o, err = parseOptions(nil, func(name string) string { return map[string]string{"KEEP": "1"}[name] })
	require.NoError(t, err)
	require.True(t, o.keep)

	_, err = parseOptions(nil, func(string) string { return "perhaps" })
	require.EqualError(t, err, `KEEP="perhaps": use 1 or 0`)
	_, err = parseOptions([]string{"-points", "0"}, none)
	require.ErrorContains(t, err, "positive")
	_, err = parseOptions([]string{"more"}, none)
	require.EqualError(t, err, `"more" is not a flag; -help lists them`)
	require.Error(t, run(t.Context(), []string{"more"}, none, io.Discard))
}
