package program_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"

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
