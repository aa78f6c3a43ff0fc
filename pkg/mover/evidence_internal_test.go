package mover

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// row is a point of a series with fields a, b and so on.
type row struct {
	tags   []lineproto.Tag
	ns     int64
	values []lineproto.Value
}

var fieldNames = []string{"a", "b", "c"}

func anyRow(t *rapid.T) row {
	r := row{ns: rapid.Int64Range(-3, 3).Draw(t, "ns")}
	if v := rapid.SampledFrom([]string{"", "x", "y", "xy"}).Draw(t, "tag"); v != "" {
		r.tags = []lineproto.Tag{{Key: rapid.SampledFrom([]string{"k", "l"}).Draw(t, "key"), Value: v}}
	}
	for range fieldNames {
		r.values = append(r.values, rapid.SampledFrom([]lineproto.Value{
			{},
			lineproto.FloatValue(0), lineproto.FloatValue(math.Copysign(0, -1)), lineproto.FloatValue(1),
			lineproto.IntegerValue(0), lineproto.IntegerValue(1), lineproto.UnsignedValue(0), lineproto.UnsignedValue(1),
			lineproto.BooleanValue(false), lineproto.BooleanValue(true), lineproto.StringValue(""), lineproto.StringValue("1"),
		}).Draw(t, "value"))
	}
	return r
}

func evidenceOf(rows []row) operation.Evidence {
	var h hasher
	var e operation.Evidence
	for _, r := range rows {
		h.setSeries(&lineproto.Series{Measurement: "m", Tags: r.tags}, fieldNames)
		h.row(&e, r.ns, r.values)
	}
	return e
}

// TestEvidenceDoesNotDependOnOrder: two ends may answer in any order.
func TestEvidenceDoesNotDependOnOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.Custom(anyRow), 0, 30).Draw(t, "rows")
		want := evidenceOf(rows)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		require.Equal(t, want, evidenceOf(rows))
	})
}

// TestEvidenceSeesEveryChange: of a series, field, time, kind or value.
func TestEvidenceSeesEveryChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.Custom(anyRow), 1, 10).Draw(t, "rows")
		before := evidenceOf(rows)
		r := &rows[rapid.IntRange(0, len(rows)-1).Draw(t, "at")]
		was := *r
		*r = anyRow(t)
		after := evidenceOf(rows)
		sameSeries, sameFields, same := true, true, r.ns == was.ns
		if len(r.tags) != len(was.tags) || len(r.tags) > 0 && r.tags[0] != was.tags[0] {
			sameSeries = false
		}
		filled, differ := false, false
		for i := range r.values {
			filled = filled || r.values[i].Kind != lineproto.Null || was.values[i].Kind != lineproto.Null
			sameFields = sameFields && (r.values[i].Kind == lineproto.Null) == (was.values[i].Kind == lineproto.Null)
			differ = differ || !r.values[i].Equal(was.values[i])
		}
		if !filled {
			return
		}
		require.Equal(t, sameSeries && sameFields, before.Counts == after.Counts, "counts per series and field")
		require.Equal(t, sameSeries && same && !differ, before.Digest == after.Digest, "%v and %v", was, *r)
	})
}

// TestDigestSeesTheKind is a fault that was there: the bits of the kind fell on
// bits that were set in any case.
func TestDigestSeesTheKind(t *testing.T) {
	t.Parallel()
	seen := map[uint64]lineproto.Kind{}
	for _, v := range []lineproto.Value{
		lineproto.FloatValue(0), lineproto.IntegerValue(0), lineproto.UnsignedValue(0), lineproto.BooleanValue(false),
	} {
		d := evidenceOf([]row{{ns: 1, values: []lineproto.Value{v, {}, {}}}}).Digest
		require.NotContains(t, seen, d, "%v", v.Kind)
		seen[d] = v.Kind
	}
}

// TestSeriesAreToldApart although their names run together.
func TestSeriesAreToldApart(t *testing.T) {
	t.Parallel()
	var h hasher
	seen := map[uint64]bool{}
	for _, tags := range [][]lineproto.Tag{
		nil,
		{{Key: "a", Value: "bc"}},
		{{Key: "ab", Value: "c"}},
		{{Key: "a", Value: "b"}, {Key: "c", Value: "d"}},
		{{Key: "a", Value: "b\x00c\x00d"}},
		{{Key: "a", Value: "bcd"}},
	} {
		s := h.series(&lineproto.Series{Measurement: "m", Tags: tags})
		require.False(t, seen[s], "%v", tags)
		seen[s] = true
		require.NotEqual(t, fieldHash(s, "x"), fieldHash(s, "y"))
	}
}
