package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/operation"
)

func TestGroup(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 12345: "12,345", 1234567: "1,234,567", -1000: "-1,000", -12: "-12",
	} {
		require.Equal(t, want, group(n))
	}
}

func TestChart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rows []holding
		want []string
	}{
		"before": {
			[]holding{{name: "a", owned: 1600, measurements: 3}, {name: "b", owned: 3200, measurements: 12}},
			[]string{
				"a              ████████████████                           1,600 in 3",
				"b              ████████████████████████████████          3,200 in 12",
			},
		},
		"after": {
			[]holding{{name: "a", owned: 800, left: 800, measurements: 2, kept: 1}, {name: "b", owned: 3200, measurements: 12}},
			[]string{
				"a              ████████░░░░░░░░                             800 in 2             800 in 1",
				"b              ████████████████████████████████          3,200 in 12",
			},
		},
		"the least is seen": {
			[]holding{{name: "a", owned: 1, measurements: 1}, {name: "b", owned: 1_000_000, measurements: 1}, {name: "c"}},
			[]string{
				"a              █                                              1 in 1",
				"b              ████████████████████████████████       1,000,000 in 1",
				"c",
			},
		},
		"empty": {[]holding{{name: "a"}}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := chart(c.rows)
			require.Equal(t, "points in      measurements                                  █ owned        ░ left behind", got[0])
			require.Equal(t, c.want, got[1:], strings.Join(got, "\n"))
		})
	}
}

// at is an operation in a phase.
func at(phase operation.Phase, change func(*operation.Operation)) *operation.Operation {
	op := &operation.Operation{Plan: &operation.PlanRef{}, Progress: operation.Progress{
		Phase: phase, Points: operation.PointCounts{Estimated: 1000}, Tasks: operation.TaskCounts{Total: 10},
	}}
	if change != nil {
		change(op)
	}
	return op
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	eta := 4.4
	for name, c := range map[string]struct {
		op   *operation.Operation
		want string
	}{
		"at the start": {
			at(operation.PhaseCopy, nil),
			"  1.5 s  copy    0 copied (0 %), 0 verified (0 %)  0 of 10 tasks, 0 running  0 points/s",
		},
		"copying": {
			at(operation.PhaseCopy, func(op *operation.Operation) {
				op.Progress.Points.Copied, op.Progress.Tasks.Done, op.Progress.Tasks.Running = 250, 2, 4
				op.Progress.PointsPerSecond, op.Progress.ETASeconds = 12345.6, &eta
			}),
			"  1.5 s  copy    250 copied (25 %), 0 verified (0 %)  2 of 10 tasks, 4 running  12,345 points/s, 4 s to go",
		},
		"more than estimated": {
			at(operation.PhaseCopy, func(op *operation.Operation) { op.Progress.Points.Copied = 1200 }),
			"  1.5 s  copy    1,200 copied (100 %), 0 verified (0 %)  0 of 10 tasks, 0 running  0 points/s",
		},
		"verified of what was copied": {
			at(operation.PhaseVerify, func(op *operation.Operation) { op.Progress.Points.Copied, op.Progress.Points.Verified = 800, 400 }),
			"  1.5 s  verify  800 copied (100 %), 400 verified (50 %)  0 of 10 tasks, 0 running  0 points/s",
		},
		"failed and waiting": {
			at(operation.PhaseCopy, func(op *operation.Operation) {
				op.Progress.Tasks.Failed = 1
				op.Waits = []operation.Wait{{Gate: "backend", Backend: "http://a", Measured: "503", Limit: "2m0s"}}
			}),
			"  1.5 s  copy    0 copied (0 %), 0 verified (0 %)  0 of 10 tasks, 0 running, 1 failed  0 points/s" +
				"  waits for backend http://a: 503, limit 2m0s",
		},
		"done": {
			at(operation.PhaseDone, func(op *operation.Operation) {
				op.Progress.Points.Copied, op.Progress.Points.Verified, op.Progress.Tasks.Done = 990, 990, 10
				op.Progress.PointsPerSecond = 5
			}),
			"  1.5 s  done    990 copied (100 %), 990 verified (100 %)  10 of 10 tasks, 0 running",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, progressLine(1500*time.Millisecond, c.op))
		})
	}
}

// TestLines shows that plain lines come every two seconds and when the phase
// changes, and not before there is a plan.
func TestLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Unix(0, 0)
	l := &lines{out: &out, now: func() time.Time { return now }}
	printed := func(after time.Duration, op *operation.Operation) string {
		now = now.Add(after)
		out.Reset()
		l.update(op)
		return out.String()
	}
	unplanned := at(operation.PhasePlan, func(op *operation.Operation) { op.Plan = nil })
	copying, verifying := at(operation.PhaseCopy, nil), at(operation.PhaseVerify, nil)
	require.Empty(t, printed(0, unplanned))
	require.Empty(t, printed(3*time.Second, unplanned))
	require.Contains(t, printed(0, copying), "  3.0 s  copy ")
	require.Empty(t, printed(time.Second, copying))
	require.Contains(t, printed(time.Second, copying), "  5.0 s  copy ")
	require.Contains(t, printed(time.Millisecond, verifying), "  5.0 s  verify ")
	require.Empty(t, printed(time.Millisecond, verifying))
	out.Reset()
	l.say("hello %d", 1)
	require.Equal(t, "   hello 1\n", out.String())
	l.close()
}

// TestBarsEnd shows that bars end whatever they were last told.
func TestBarsEnd(t *testing.T) {
	t.Parallel()
	for name, ops := range map[string][]*operation.Operation{
		"nothing":   nil,
		"unplanned": {at(operation.PhasePlan, func(op *operation.Operation) { op.Plan = nil })},
		"half-way":  {at(operation.PhaseCopy, func(op *operation.Operation) { op.Progress.Points.Copied = 500 })},
		"beyond the estimate": {
			at(operation.PhaseCopy, func(op *operation.Operation) { op.Progress.Points.Copied = 5000 }),
			at(operation.PhaseDone, func(op *operation.Operation) {
				op.Progress.Points.Copied, op.Progress.Points.Verified, op.Progress.Tasks.Done = 900, 900, 10
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBars(io.Discard)
			for _, op := range ops {
				b.update(op)
				b.say("between")
			}
			b.close()
		})
	}
}

func TestReportLines(t *testing.T) {
	t.Parallel()
	good := reportLines(&operation.Report{
		Equal: true, Slices: operation.SliceTotals{Total: 1200, Equal: 1200, ByCount: 1199, ByPoints: 1},
		Points: operation.ReportPoints{Source: 50_000, Destination: 50_000},
	})
	require.Equal(t, []string{
		"equal       yes",
		"slices      1,200 of 1,200 proven: 1,199 by counts per series and field, 1 by comparing points",
		"points      50,000 at the sources, 50,000 at their owners",
		"missing     0", "different   0", "extra       0", "expired     0",
	}, good)

	bad := operation.Report{Missing: 3, Unreported: 4}
	for range 7 {
		bad.Problems = append(bad.Problems, operation.Problem{
			Slice: operation.Slice{Database: "d", RetentionPolicy: "p", Measurement: "m"}, Code: operation.CodeUnequal, Detail: "why",
		})
	}
	lines := reportLines(&bad)
	require.Equal(t, "equal       no", lines[0])
	require.Equal(t, "missing     3", lines[3])
	require.Len(t, lines, 7+5+1)
	require.Equal(t, "problem     d.p.m: unequal why", lines[7])
	require.Equal(t, "            and 6 more", lines[12])
}

func TestReadyID(t *testing.T) {
	t.Parallel()
	require.Equal(t, "worker-1a2b", readyID("{\"level\":\"INFO\"}\nringmaster worker worker-1a2b ready with 2 slots\nmore\n"))
	require.Equal(t, "worker", readyID("ringmaster api ready on http://x\n"))
	require.Equal(t, "worker", readyID(""))
}
