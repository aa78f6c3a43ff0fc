package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

// ringctl runs the command line against the installation, as a person beside it would.
func (in *installation) ringctl(args ...string) (code int, stdout, stderr string) {
	in.t.Helper()
	return in.runRingctl(in.context(), args...)
}

func (in *installation) runRingctl(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "ringctl"), append([]string{"-server", in.Client.URL, "-data", in.DataDir()}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), errs.String()
	}
	if err != nil {
		return -1, out.String(), err.Error()
	}
	return 0, out.String(), errs.String()
}

// says requires that a command succeeds and prints these texts.
func (in *installation) says(args string, texts ...string) string {
	in.t.Helper()
	code, out, errs := in.ringctl(strings.Fields(args)...)
	require.Zero(in.t, code, "%s: %s%s", args, out, errs)
	for _, text := range texts {
		require.Contains(in.t, out, text, args)
	}
	return out
}

// An operator plans a rebalance, starts it, looks at everything, pauses, resumes and
// cancels it, and lets it end well: with the program alone, whose exit codes tell how
// it went.
func TestRingctlSteersARebalance(t *testing.T) {
	t.Parallel()
	s := newBusySite(t)
	remove := "--circle-id 0 --operation rm --remove " + s.gone.Name + "=" + s.gone.URL

	plan := s.says("plan rebalance "+remove, "gone (removed)", "6 measurements", "takes ", "BALANCE", "TOP MOVERS", "planned")
	require.Contains(t, plan, "times the mean before")
	s.says("plan clear --circle-id 0", "operation ")

	type ended struct {
		code     int
		out, err string
	}
	// It cannot get on before the gate opens.
	watching := make(chan ended, 1)
	ctx := s.context()
	go func() {
		code, out, errs := s.runRingctl(ctx, strings.Fields("rebalance --watch --reason ticket-4711 "+remove)...)
		watching <- ended{code, out, errs}
	}()
	var id string
	require.Eventually(t, func() bool {
		var list struct{ Items []operation.Operation }
		require.NoError(t, json.Unmarshal([]byte(s.says("ops list --kind rebalance --state running -o json")), &list))
		if len(list.Items) == 1 {
			id = list.Items[0].ID
		}
		return id != ""
	}, patience, 20*time.Millisecond)
	<-s.reads.reached.done

	s.says("ops get "+id, "ticket-4711", "running", "BACKENDS", "gone")
	s.says("ops tasks "+id, "copy", s.gone.URL)
	s.says("ops plan "+id, "gone (removed)")
	s.says("ops list --scope circle/0", id)
	s.says("ops limits "+id, "none")
	s.says("ops limits "+id+" --points 1000000 --slots 2 --reason gently", "1000000", "2")
	s.says("ops get "+id, "points/s 1000000")
	s.says("ops limits "+id+" --points none --slots none", "none")
	s.says("ops audit "+id, "submit", "ticket-4711")
	s.says("where db m0", "one", "two")
	s.says("topology", "CIRCLE 0 one", "held by operation "+id)
	s.says("workers", "worker-")
	s.says("health", "api: nats", "circle 1: b")
	s.says("doctor", "nats sync", "configuration", "disk", "backends", "the key file holds the key")
	s.says("dead-letters --help", "Examples:")

	code, _, errs := s.ringctl(strings.Fields("rebalance " + remove)...)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "scope_held")
	require.Contains(t, errs, "ringctl ops watch "+id)

	s.says("ops pause "+id+" --wait --reason peak-hour", "paused")
	code, _, errs = s.ringctl("ops", "pause", id)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "state_conflict")
	s.says("ops resume "+id, id)
	code, out, errs := s.ringctl("ops", "cancel", id, "--wait")
	require.Equal(t, 5, code, errs)
	require.Contains(t, out, "cancelled")
	watched := <-watching
	require.Equal(t, 5, watched.code, "%s%s", watched.out, watched.err)
	require.Contains(t, watched.out, "operation "+id+" cancelled")

	s.reads.release()
	out = s.says("ops retry "+id+" --watch", "operation "+id+" succeeded")
	require.Contains(t, out, "backends: ")
	s.says("ops report "+id, "everything that was to be proven is proven")
	s.says("ops get "+id, "succeeded", "EARLIER ATTEMPTS", "cancelled")
	s.says("ops audit "+id, "peak-hour", "cancel", "retry", "limits", "gently")
	code, _, errs = s.ringctl("clear", "--circle-id", "0")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--yes")
	code, out, errs = s.ringctl(strings.Fields("verify --circle-id 0 --against 1 --depth count --wait")...)
	require.Equal(t, 3, code, "the other circle holds nothing: %s%s", out, errs)
	s.says("ops list --kind verify", "partially_failed")
}
