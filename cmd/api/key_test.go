package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
)

// A key is made at the first start, which the log says. From then on it is the
// cluster's: a start with another one, or with a path at which there is none, is
// refused, and leaves nothing at that path.
func TestTheKeyFileIsTheClusters(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	args := []string{"-config", write(t, "proxy.json", proxyJSON), "-data", dir, "-listen", "127.0.0.1:0", "-slots", "0"}
	key := filepath.Join(dir, "key")
	s := start(t, args...)
	s.stop()
	require.Equal(t, 1, strings.Count(s.log.String(), "key file made"))
	require.Contains(t, s.log.String(), key)

	other, misspelt := filepath.Join(elsewhere, "other"), filepath.Join(elsewhere, "misspelt")
	_, err := secrets.Create(other)
	require.NoError(t, err)
	refused := func(path string) {
		t.Helper()
		err := run(t.Context(), append(slices.Clip(args), "-key-file", path), nil, io.Discard, io.Discard)
		var usage *program.UsageError
		require.ErrorAs(t, err, &usage)
		require.Equal(t, program.ExitUsage, program.Exit("api", err, io.Discard))
		require.ErrorContains(t, err, "key file "+path)
		require.ErrorContains(t, err, "give the right -key-file (the default is "+key+")")
	}
	refused(other)
	refused(misspelt)
	require.NoFileExists(t, misspelt)
	aside := filepath.Join(elsewhere, "aside")
	require.NoError(t, os.Rename(key, aside))
	refused(key)
	require.NoFileExists(t, key)

	s = start(t, append(args, "-key-file", aside)...)
	s.stop()
	require.NotContains(t, s.log.String(), "key file made")
}

// Several processes start at once on one NATS, each about to make a key of its own:
// one makes the cluster's, and the others leave none.
func TestOneOfManyMakesTheKey(t *testing.T) {
	t.Parallel()
	b, _ := bustest.Start(t)
	dir := t.TempDir()
	const processes = 8
	begin := make(chan struct{})
	var all sync.WaitGroup
	failed := make([]error, processes)
	for i := range processes {
		s := &system{bus: b, logger: program.Logger(io.Discard, 0, "api"), options: &options{
			data: dir, keyFile: filepath.Join(dir, "key-"+string(rune('a'+i))),
		}}
		all.Go(func() {
			<-begin
			_, failed[i] = s.openKey(t.Context())
		})
	}
	close(begin)
	all.Wait()
	made := 0
	for _, err := range failed {
		if err == nil {
			made++
			continue
		}
		require.Equal(t, program.ExitUsage, program.Exit("api", err, io.Discard), err)
	}
	require.Equal(t, 1, made)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	keys, err := secrets.Open(filepath.Join(dir, files[0].Name()))
	require.NoError(t, err)
	l, err := ledger.New(t.Context(), b, ledger.Options{})
	require.NoError(t, err)
	require.NoError(t, l.VerifyKey(t.Context(), keys))
}

// An api that waits for its NATS stops at a word, and has made no key meanwhile.
func TestStoppedWhileWaitingForNATS(t *testing.T) {
	t.Parallel()
	stopped, stop := context.WithCancel(t.Context())
	dir := t.TempDir()
	log := &stopping{word: "waiting for NATS", stop: stop}
	args := []string{"-config", write(t, "proxy.json", proxyJSON), "-data", dir, "-listen", "127.0.0.1:0", "-nats", "nats://never-shown@127.0.0.1:1"}
	require.NoError(t, run(stopped, args, nil, io.Discard, log))
	require.Contains(t, log.String(), `"url":"nats://127.0.0.1:1"`)
	require.Contains(t, log.String(), `"msg":"stopped"`)
	require.NotContains(t, log.String(), "never-shown")
	require.NoFileExists(t, filepath.Join(dir, "key"))
	_, err := bus.ReadNATSFile(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// stopping is a log that stops the program at the first line with a word.
type stopping struct {
	bytes.Buffer

	word string
	stop func()
}

func (s *stopping) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.word)) {
		s.stop()
	}
	return s.Buffer.Write(p)
}
