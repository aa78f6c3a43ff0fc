package operation_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

func TestParseVerify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ raw, field string }{
		{`{}`, "circle_id"},
		{`{"circle_id":null}`, "circle_id"},
		{`{"circle_id":-1}`, "circle_id"},
		{`{"circle_id":0,"against_circle_id":-1}`, "against_circle_id"},
		{`{"circle_id":0,"depth":"deep"}`, "depth"},
		{`{"circle_id":0,"repair":true}`, "repair_from"},
		{`{"circle_id":0,"repair_from":"circle"}`, "repair_from"},
		{`{"circle_id":0,"repair":false,"repair_from":"against"}`, "repair_from"},
		{`{"circle_id":0,"repair":true,"repair_from":"left"}`, "repair_from"},
		{`{"circle_id":0,"since_seconds":1,"since":"2026-01-01T00:00:00Z"}`, "since"},
		{`{"circle_id":0,"databases":[""]}`, "databases[0]"},
		{`{"circle_id":0,"colour":1}`, "colour"},
		{`{"circle_id":0,"workers":-1}`, "workers"},
	} {
		_, err := operation.ParseVerify(json.RawMessage(c.raw))
		var invalid *operation.InvalidError
		require.ErrorAs(t, err, &invalid, c.raw)
		require.Equal(t, c.field, invalid.Field, c.raw)
		require.NotEmpty(t, invalid.Hint)
	}
	p, err := operation.ParseVerify(json.RawMessage(`{"circle_id":2,"since_seconds":60}`))
	require.NoError(t, err)
	require.Equal(t, operation.DepthDigest, p.Depth, "the deepest is what is asked for by asking for none")
}

// TestSidesOfAVerification: whom a circle is compared with, and what is held for it.
func TestSidesOfAVerification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		raw    string
		n      int
		about  []int
		scopes []string
		refuse bool
	}{
		{`{"circle_id":0}`, 1, []int{0}, []string{}, false},
		{`{"circle_id":0}`, 3, []int{0, 1}, []string{}, false},
		{`{"circle_id":2}`, 3, []int{2, 0}, []string{}, false},
		{`{"circle_id":1,"against_circle_id":2}`, 3, []int{1, 2}, []string{}, false},
		{`{"circle_id":1,"against_circle_id":1}`, 3, []int{1}, []string{}, false},
		{`{"circle_id":1,"repair":true,"repair_from":"against"}`, 2, []int{1, 0}, []string{"circle/1", "circle/0"}, false},
		{`{"circle_id":0,"repair":true,"repair_from":"circle"}`, 1, []int{0}, []string{"circle/0"}, true},
		{`{"circle_id":1,"against_circle_id":1,"repair":true,"repair_from":"circle"}`, 2, []int{1}, []string{"circle/1"}, true},
	} {
		m, err := operation.ParseMove(operation.KindVerify, json.RawMessage(c.raw))
		require.NoError(t, err, c.raw)
		require.Equal(t, c.about, m.Circles(c.n), c.raw)
		require.Equal(t, c.about, operation.Surveyed(m, c.n), c.raw)
		require.Equal(t, c.scopes, operation.CircleScopes(m, c.n), c.raw)
		require.Equal(t, c.refuse, m.(operation.Verify).CheckAmong(c.n) != nil, c.raw)
	}
}

// TestVerdictsOfVerificationsAddUp: totals are exact and there is an example of each
// kind, however many problems there are and in whatever order they are joined.
func TestVerdictsOfVerificationsAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var total operation.Verdict
		var want operation.Differences
		parts := make([]operation.Verdict, rapid.IntRange(1, 5).Draw(t, "parts"))
		index := 0
		for n := range rapid.IntRange(0, 300).Draw(t, "slices") {
			v := &parts[n%len(parts)]
			v.Slices.Total++
			d := operation.Differences{}
			p := operation.Problem{}
			switch rapid.IntRange(0, 6).Draw(t, "kind") {
			case 0:
				d.Missing, p.Examples.Missing = 2, &operation.Example{Series: "m"}
			case 1:
				d.Extra, p.Examples.Extra = 3, &operation.Example{Series: "m"}
			case 2:
				d.Different, p.Examples.Different = 1, &operation.Example{Series: "m"}
			default:
				v.Slices.Equal++
				continue
			}
			want.Missing, want.Extra, want.Different = want.Missing+d.Missing, want.Extra+d.Extra, want.Different+d.Different
			v.Reopen(index, operation.Findings{Missing: d.Missing, Extra: d.Extra, Different: d.Different}, p)
			index++
		}
		for i := range parts {
			total.Add(&parts[i])
		}
		r := total.VerifyReport("op", operation.Verify{Tuning: operation.Tuning{Depth: operation.DepthDigest}})
		require.Equal(t, want, operation.Differences{Missing: r.Missing, Extra: r.Extra, Different: r.Different})
		require.Equal(t, !want.Any(), r.Equal)
		require.Equal(t, r.Slices.Total, r.Slices.Equal+r.Slices.Unequal)
		require.Equal(t, r.Slices.Unequal, len(r.Problems)+r.Unreported)
		require.LessOrEqual(t, len(r.Problems), operation.MaxReportProblems)
		require.Equal(t, want.Missing > 0, r.Examples.Missing != nil)
		require.Equal(t, want.Extra > 0, r.Examples.Extra != nil)
		require.Equal(t, want.Different > 0, r.Examples.Different != nil)
		require.Nil(t, r.Repair)
	})
}

// TestSlicesThatNobodyCameTo make a verification unequal.
func TestSlicesThatNobodyCameTo(t *testing.T) {
	t.Parallel()
	task := operation.Task{
		ID: "c", Phase: operation.PhaseCompare, Slices: make([]operation.Slice, 4), Error: &operation.Error{Detail: "the backend is away"},
		Checkpoint: operation.Checkpoint{{State: operation.SliceUnchanged}, {State: operation.SliceCompared, Written: 3}, {State: operation.SliceCopied, Written: 2}},
	}
	var v operation.Verdict
	v.AddUncompared(&task)
	require.Equal(t, operation.SliceTotals{Total: 2, Unequal: 2}, v.Slices)
	require.Contains(t, v.Problems[0].Detail, "the backend is away")
	// What was repaired is judged by the task that proves it.
	v = operation.Verdict{}
	v.AddUnjudged(&operation.Task{}, &task)
	require.Equal(t, 1, v.Slices.Total)
	r := v.VerifyReport("op", operation.Verify{Repair: true, RepairFrom: operation.SideCircle})
	require.False(t, r.Equal)
	require.Equal(t, operation.SideCircle, r.Repair.From)
}
