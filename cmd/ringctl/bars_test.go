package main

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/operation"
)

// escapes are what steers a terminal.
func escapes() *regexp.Regexp { return regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]") }

func watched(state operation.State, phase operation.Phase, points operation.PointCounts, backends int) *opView {
	op := &opView{ID: sampleID, Kind: "rebalance", State: state}
	op.Progress.Phase, op.Progress.Points = phase, points
	op.Progress.Tasks = operation.TaskCounts{Total: 8, Done: 2, Running: 2, Waiting: 4}
	op.Progress.Backends = map[string]operation.BackendProgress{}
	for i := range backends {
		op.Progress.Backends[fmt.Sprintf("http://b%d:1", i)] = operation.BackendProgress{
			Name: fmt.Sprintf("influx-%d", i), Points: points, Measurements: operation.Done{Total: 10, Done: 3},
		}
	}
	return op
}

// A bar for each backend, with rate, time left and what is waited for there.
func TestBars(t *testing.T) {
	t.Parallel()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	b := newBars(&app{ctx: t.Context(), out: &out, now: func() time.Time { return now }})
	b.show(nil, watched(operation.Running, operation.PhaseCopy, operation.PointCounts{Estimated: 1000, Copied: 100}, 2))
	now = now.Add(4 * time.Second)
	op := watched(operation.Running, operation.PhaseCopy, operation.PointCounts{Estimated: 1000, Copied: 500}, 2)
	op.Waits = []operation.Wait{
		{Gate: "outage", Backend: "http://b1:1", Measured: "3 tries", Limit: "2m", Since: now},
		{Gate: "slots", Measured: "0 free", Since: now},
	}
	b.show(nil, op)
	b.say("the server does not answer")
	b.close()
	text := escapes().ReplaceAllString(out.String(), "")
	require.Contains(t, text, "rebalance running")
	require.Contains(t, text, "the server does not answer")
	require.Regexp(t, `influx-0 █+░+  50% 500/1k  100/s  5s to go  3/10 meas`, text)
	require.Regexp(t, `influx-1 █+░+  50% 500/1k  100/s  5s to go`, text)
	require.Regexp(t, `all +█+░+  50% 500/1k`, text)
	require.Contains(t, text, "2 of 8 done, 2 running, 4 waiting")
	require.Contains(t, text, "waits for outage at http://b1:1: 3 tries (limit 2m)")
	require.Contains(t, text, "waits for slots: 0 free")

	// What ends is said, and more backends than fit are counted.
	out.Reset()
	b = newBars(&app{ctx: t.Context(), out: &out, now: func() time.Time { return now }})
	b.show(nil, watched(operation.Running, operation.PhaseCopy, operation.PointCounts{Estimated: 1000}, 50))
	require.Len(t, b.backends, maxBars)
	b.show(nil, watched(operation.Succeeded, operation.PhaseDone, operation.PointCounts{Estimated: 1000, Copied: 900}, 50))
	b.close()
	text = escapes().ReplaceAllString(out.String(), "")
	require.Contains(t, text, "operation "+sampleID+" succeeded")
}

func TestSpeedLooksBackAWhile(t *testing.T) {
	t.Parallel()
	var s speed
	at := time.Unix(1000, 0)
	require.Zero(t, s.at(at, "copy", 500))
	require.InDelta(t, 100, s.at(at.Add(time.Second), "copy", 600), 1e-9)
	for i := range 100 {
		s.at(at.Add(time.Duration(2+i)*time.Second), "copy", 600)
	}
	require.Zero(t, s.at(at.Add(200*time.Second), "copy", 600))
	require.Zero(t, s.at(at.Add(201*time.Second), "verify", 10), "a phase begins anew")
}
