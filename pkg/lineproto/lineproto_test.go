package lineproto_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/lineproto"
)

// normal sorts tags and leaves out those without a value.
func normal(s lineproto.Series) lineproto.Series {
	s.Tags = slices.DeleteFunc(slices.Clone(s.Tags), func(t lineproto.Tag) bool { return t.Value == "" })
	slices.SortFunc(s.Tags, func(a, b lineproto.Tag) int { return strings.Compare(a.Key, b.Key) })
	if len(s.Tags) == 0 {
		s.Tags = nil
	}
	return s
}

func TestKindNames(t *testing.T) {
	t.Parallel()
	for _, k := range []lineproto.Kind{lineproto.Float, lineproto.Integer, lineproto.Unsigned, lineproto.Boolean, lineproto.String} {
		got, ok := lineproto.ParseKind(k.String())
		require.True(t, ok)
		require.Equal(t, k, got)
	}
	for _, name := range []string{"", "null", "kind(9)", "Float"} {
		_, ok := lineproto.ParseKind(name)
		require.False(t, ok, name)
	}
	require.Equal(t, "null", lineproto.Null.String())
	require.Equal(t, "kind(9)", lineproto.Kind(9).String())
}

func TestValueEqualIsExact(t *testing.T) {
	t.Parallel()
	values := []lineproto.Value{
		{},
		lineproto.FloatValue(0), lineproto.FloatValue(math.Copysign(0, -1)), lineproto.FloatValue(1),
		lineproto.IntegerValue(0), lineproto.IntegerValue(1), lineproto.UnsignedValue(1), lineproto.BooleanValue(false),
		lineproto.BooleanValue(true), lineproto.StringValue(""), lineproto.StringValue("1"),
	}
	for i, v := range values {
		for j, w := range values {
			require.Equal(t, i == j, v.Equal(w), "%v and %v", v, w)
		}
	}
}

func TestValueCloneOutlivesItsProducer(t *testing.T) {
	t.Parallel()
	arena := []byte("text")
	kept := lineproto.Value{Kind: lineproto.String, Str: arena}.Clone()
	copy(arena, "xxxx")
	require.Equal(t, `"text"`, kept.String())
}

func TestSeriesKeyIsUnambiguous(t *testing.T) {
	t.Parallel()
	short := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00\x01,=")), 0, 3, -1)
	series := rapid.Custom(func(t *rapid.T) lineproto.Series {
		s := lineproto.Series{Measurement: short.Draw(t, "measurement")}
		for k, v := range rapid.MapOfN(short, short, 0, 2).Draw(t, "tags") {
			s.Tags = append(s.Tags, lineproto.Tag{Key: k, Value: v})
		}
		return normal(s)
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := series.Draw(t, "a"), series.Draw(t, "b")
		same := string(a.AppendKey(nil)) == string(b.AppendKey(nil))
		require.Equal(t, a.Equal(&b), same, "%q and %q", a, b)
	})
}

func TestSeriesCloneSharesNothing(t *testing.T) {
	t.Parallel()
	s := lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{"a", "b"}}}
	kept := s.Clone()
	s.Tags[0].Value = "changed"
	require.Equal(t, "m,a=b", kept.String())
}
