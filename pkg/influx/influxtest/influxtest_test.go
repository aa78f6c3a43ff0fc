package influxtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx/influxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerKeepsItsDataOverStopAndKill(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	url := s.URL()
	s.Exec(`CREATE DATABASE d`)
	s.WriteLines("d", "", "m,t=1 v=1i 1\n")
	s.Stop()
	s.Restart()
	s.WriteLines("d", "autogen", "m,t=1 v=2i 2\n")
	s.Kill()
	s.Restart()
	require.Equal(t, url, s.URL())
	res := s.Query(`SELECT * FROM d.autogen.m`)
	require.Len(t, res, 1)
	require.Len(t, res[0].Series[0].Values, 2)
}

func TestServersRunSideBySide(t *testing.T) {
	t.Parallel()
	a, b := influxtest.Start(t), influxtest.Start(t, influxtest.WithIndex("tsi1"))
	require.NotEqual(t, a.URL(), b.URL())
	a.Exec(`CREATE DATABASE onlyhere`)
	require.Len(t, b.Query(`SHOW DATABASES`)[0].Series, 1)
	require.NotContains(t, b.Query(`SHOW DATABASES`)[0].Series[0].Values, []any{"onlyhere"})
}

func TestLaunchSaysWhyAServerDidNotStart(t *testing.T) {
	t.Parallel()
	_, err := influxtest.Launch(t.Context(), influxtest.Config{Dir: t.TempDir(), Args: []string{"-index", "none"}})
	require.ErrorContains(t, err, "none")
	_, err = influxtest.Launch(t.Context(), influxtest.Config{})
	require.ErrorContains(t, err, "no directory")

	s := influxtest.Start(t)
	_, err = influxtest.Launch(t.Context(), influxtest.Config{Dir: t.TempDir(), HTTP: s.Process().Addr()})
	require.ErrorContains(t, err, "address already in use")
}

func TestRestartOfARunningServerIsRefused(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t)
	_, err := s.Process().Restart(t.Context())
	require.ErrorContains(t, err, "running")
}

func TestServerStopsWithItsParent(t *testing.T) {
	t.Parallel()
	// The runner watches its standard input, which ends with whoever started
	// it. /dev/null stands for a parent that is gone.
	binary, err := influxtest.Build(t.Context())
	require.NoError(t, err)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	attr := &os.ProcAttr{Files: []*os.File{null, nil, nil}}
	p, err := os.StartProcess(binary, []string{"influxd", "-dir", t.TempDir(), "-stop-with-stdin"}, attr)
	require.NoError(t, err)
	state, err := p.Wait()
	require.NoError(t, err)
	require.True(t, state.Success())
}

func TestBuildIsKept(t *testing.T) {
	t.Parallel()
	first, err := influxtest.Build(t.Context())
	require.NoError(t, err)
	before, err := os.Stat(first)
	require.NoError(t, err)
	second, err := influxtest.Build(t.Context())
	require.NoError(t, err)
	require.Equal(t, first, second)
	after, err := os.Stat(second)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime())
	require.True(t, strings.HasPrefix(filepath.Base(filepath.Dir(first)), "influxd-"))
}
