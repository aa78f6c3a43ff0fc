package program_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/cmd/internal/program"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/secrets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		args     []string
		environ  []string
		text     string
		number   int
		on       bool
		mistakes []string
	}{
		{name: "defaults", text: "default", number: 3},
		{name: "environment", environ: []string{"RINGMASTER_TEXT_OF=a=b", "RINGMASTER_NUMBER=5", "RINGMASTER_ON=true", "TEXT_OF=no", "OTHER"}, text: "a=b", number: 5, on: true},
		{name: "flags win", args: []string{"-text-of", "f", "--number=6", "-on"}, environ: []string{"RINGMASTER_TEXT_OF=e", "RINGMASTER_NUMBER=5"}, text: "f", number: 6, on: true},
		{name: "empty variables", environ: []string{"RINGMASTER_TEXT_OF=", "RINGMASTER_NUMBER=", "RINGMASTER_ON="}, text: "default", number: 3},
		{name: "every mistake", args: []string{"-nope", "1", "-number", "x", "stray", "-no", "-text-of", "f", "-number=y"}, environ: []string{"RINGMASTER_ON=perhaps"}, text: "f", mistakes: []string{
			"environment variable RINGMASTER_ON:", "-nope", `invalid value "x" for flag -number`, `"stray" is not a flag`, "-no", `invalid value "y"`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fs := flag.NewFlagSet("p", flag.ContinueOnError)
			text, number, on := fs.String("text-of", "default", "some `TEXT`"), fs.Int("number", 3, "a number"), fs.Bool("on", false, "a switch")
			var out bytes.Buffer
			mistakes, err := program.Parse(fs, "help", c.args, c.environ, &out)
			require.NoError(t, err)
			require.Empty(t, out.String())
			require.Equal(t, c.text, *text)
			if c.mistakes == nil {
				require.Equal(t, c.number, *number)
				require.Equal(t, c.on, *on)
			}
			require.Len(t, mistakes, len(c.mistakes), "%q", mistakes)
			for i, m := range c.mistakes {
				require.Contains(t, mistakes[i], m)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	fs := flag.NewFlagSet("p", flag.ContinueOnError)
	fs.String("text-of", "default", "some `TEXT`")
	var out bytes.Buffer
	_, err := program.Parse(fs, "what it is for\n", []string{"-help"}, nil, &out)
	require.ErrorIs(t, err, program.ErrDone)
	require.Contains(t, out.String(), "what it is for")
	require.Contains(t, out.String(), "-text-of TEXT")
	require.Contains(t, out.String(), "RINGMASTER_<FLAG>")
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	usage := &program.UsageError{Mistakes: []string{"one", "two"}}
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{program.ErrDone, 0, ""},
		{fmt.Errorf("starting: %w", usage), 2, "p: one\np: two\n"},
		{errors.New("no disk"), 1, "p: no disk\n"},
	} {
		var out bytes.Buffer
		require.Equal(t, c.code, program.Exit("p", c.err, &out))
		require.Equal(t, c.text, out.String())
	}
	require.Equal(t, "one\ntwo", usage.Error())
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, good := range []string{":7076", "127.0.0.1:0", "[::1]:80", "host:http"} {
		require.Empty(t, program.ListenMistake(good), good)
	}
	for _, bad := range []string{"7076", "host", "host:", ":70760", ":-1", "::1:80", ""} {
		require.NotEmpty(t, program.ListenMistake(bad), bad)
	}
	for _, good := range []string{"nats://n1:4222", "n1:4222,n2:4222", "tls://n1, nats://u:p@n2:1", "wss://x", "127.0.0.1"} {
		require.Empty(t, program.NATSMistake(good), good)
	}
	for _, bad := range []string{"", "nats://", "http://n1:4222", "n1,,n2", "nats://secret-of-mine@:4222", "://x"} {
		m := program.NATSMistake(bad)
		require.NotEmpty(t, m, bad)
		require.NotContains(t, m, "secret-of-mine")
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	bounds := append(program.BackendBounds(), program.Bound{Flag: "lease", Least: time.Second, Most: time.Hour})
	for _, c := range []struct {
		args    []string
		environ []string
		names   []string
	}{
		{},
		{args: []string{"-lease", "1s", "-patience", "1s", "-backend-timeout", "1s"}},
		{args: []string{"-lease", "1h", "-patience", "100h", "-backend-timeout", "100h"}},
		{args: []string{"-lease", "0", "-patience", "0s", "-backend-timeout=0"}, names: []string{"-patience 0s", "-backend-timeout 0s", "-lease 0s"}},
		{args: []string{"-lease", "999ms", "-patience", "999ms", "-backend-timeout=-1s"}, names: []string{"-patience 999ms", "-backend-timeout -1s", "-lease 999ms"}},
		{args: []string{"-lease", "1h1s"}, names: []string{"-lease 1h0m1s: use 1s to 1h"}},
		{environ: []string{"RINGMASTER_PATIENCE=1ms"}, names: []string{"-patience 1ms: use 1s or more"}},
		{args: []string{"-patience", "1s"}, environ: []string{"RINGMASTER_PATIENCE=1ms"}},
	} {
		fs := flag.NewFlagSet("p", flag.ContinueOnError)
		fs.Duration("lease", 0, "")
		fs.Duration("patience", 0, "")
		fs.Duration("backend-timeout", 0, "")
		fs.String("other", "", "")
		mistakes, err := program.Parse(fs, "", append(c.args, "-other", "x"), c.environ, io.Discard)
		require.NoError(t, err)
		require.Empty(t, mistakes)
		mistakes = program.DurationMistakes(fs, bounds...)
		require.Len(t, mistakes, len(c.names), "%q", mistakes)
		for i, name := range c.names {
			require.Contains(t, mistakes[i], name)
		}
	}
}

func TestAddressesOfTheEmbeddedJetStream(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"127.0.0.1:0", "127.0.0.2:4222", "[::1]:4222", "localhost:4222"} {
		require.Empty(t, program.NATSListenMistake(good), good)
	}
	for bad, says := range map[string]string{
		"0.0.0.0:4222": "needs TLS", ":4222": "needs TLS", "[::]:4222": "needs TLS", "192.0.2.1:4222": "needs TLS", "n1:4222": "needs TLS",
		"127.0.0.1:http": "as a number", "4222": "not an address",
	} {
		require.Contains(t, program.NATSListenMistake(bad), says, bad)
	}
}

func TestNATSIsShownWithoutCredentials(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"nats://n1:4222": "nats://n1:4222",
		"n1, tls://secret@n2:4222,ws://u:secret@n3/x?secret": "nats://n1,tls://n2:4222,ws://n3",
		"nats://secret:%zz@n1:4222":                          "",
	} {
		require.Equal(t, want, program.NATSShown(list))
	}
}

// While NATS is not there, the log says so once, and a stop is a clean one.
func TestConnectSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	stopped, stop := context.WithCancel(t.Context())
	log := &stopping{word: "waiting for NATS", stop: stop}
	logger := program.Logger(log, slog.LevelInfo, "p")
	_, err := program.Connect(stopped, bus.Options{URL: "nats://u:secret@127.0.0.1:1"}, logger)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, program.Ended(stopped, err, logger))
	require.Equal(t, 1, strings.Count(log.String(), "waiting for NATS"))
	require.Contains(t, log.String(), `"url":"nats://127.0.0.1:1"`)
	require.Contains(t, log.String(), `"msg":"stopped"`)
	require.NotContains(t, log.String(), "secret")
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

func TestEnded(t *testing.T) {
	t.Parallel()
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	failed := errors.New("no disk")
	waited := program.Interrupted(stopped, fmt.Errorf("connecting: %w", bus.ErrUnavailable))
	for _, c := range []struct {
		stopped   bool
		err, want error
	}{
		{false, nil, nil},
		{false, failed, failed},
		{false, context.Canceled, context.Canceled},
		{false, program.Interrupted(t.Context(), bus.ErrUnavailable), bus.ErrUnavailable},
		{true, nil, nil},
		{true, failed, failed},
		{true, program.Interrupted(stopped, failed), failed},
		{true, waited, nil},
	} {
		var log bytes.Buffer
		ctx := t.Context()
		if c.stopped {
			ctx = stopped
		}
		require.Equal(t, c.want, program.Ended(ctx, c.err, program.Logger(&log, slog.LevelInfo, "p")))
		require.Equal(t, c.want == nil, strings.Contains(log.String(), `"msg":"stopped"`))
	}
}

func TestLoggerWritesJSONLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := program.Logger(&out, slog.LevelWarn, "p")
	log.Info("no")
	log.Warn("yes", "n", 1)
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	require.Contains(t, out.String(), `"msg":"yes"`)
	require.Contains(t, out.String(), `"program":"p"`)
}

func TestAnEngineNeedsAPreparedBus(t *testing.T) {
	t.Parallel()
	keys, err := secrets.OpenOrCreate(t.TempDir() + "/key")
	require.NoError(t, err)
	o := program.EngineOptions{Name: "p", Keys: keys, Logger: slog.New(slog.DiscardHandler)}
	s := bustest.StartServer(t, t.TempDir())
	b := bustest.Connect(t, bus.Options{Server: s})
	_, err = program.NewEngine(t.Context(), b, o)
	require.Error(t, err)
	require.NoError(t, b.Apply(t.Context(), 0))
	one, err := program.NewEngine(t.Context(), b, o)
	require.NoError(t, err)
	other, err := program.NewEngine(t.Context(), b, o)
	require.NoError(t, err)
	require.NotEqual(t, one.ID, other.ID)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, one.Worker(2).Run(stopped))
	require.NotEmpty(t, program.Version())
}
