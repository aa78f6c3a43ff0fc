package result_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/result"
)

// The shapes that encoding/json writes as InfluxDB does.
type (
	whole struct {
		Results []*statementResult `json:"results,omitempty"`
	}
	statementResult struct {
		ID       int       `json:"statement_id"`
		Series   []*series `json:"series,omitempty"`
		Messages []remark  `json:"messages,omitempty"`
		Partial  bool      `json:"partial,omitempty"`
		Error    string    `json:"error,omitempty"`
	}
	series struct {
		Name    string            `json:"name,omitempty"`
		Tags    map[string]string `json:"tags,omitempty"`
		Columns []string          `json:"columns,omitempty"`
		Values  [][]any           `json:"values,omitempty"`
		Partial bool              `json:"partial,omitempty"`
	}
	remark struct {
		Level string `json:"level"`
		Text  string `json:"text"`
	}
)

func values() *rapid.Generator[result.Value] {
	return rapid.Custom(func(t *rapid.T) result.Value {
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return result.Value{}
		case 1:
			f := rapid.Float64().Draw(t, "float")
			if math.IsInf(f, 0) || math.IsNaN(f) {
				f = 0
			}
			return result.FloatValue(f)
		case 2:
			return result.IntegerValue(rapid.Int64().Draw(t, "integer"))
		case 3:
			return result.Value{Kind: result.Unsigned, Num: rapid.Uint64().Draw(t, "unsigned")}
		case 4:
			return result.BooleanValue(rapid.Bool().Draw(t, "boolean"))
		default:
			return result.StringValue(string(rapid.SliceOf(rapid.Byte()).Draw(t, "string")))
		}
	})
}

// parts is an answer, as it leaves InfluxDB's engine.
func parts(t *rapid.T) (all []*result.Result) {
	text := rapid.StringN(0, 8, -1)
	for id := range rapid.IntRange(0, 3).Draw(t, "statements") {
		chunks := rapid.IntRange(1, 4).Draw(t, "chunks")
		for c := range chunks {
			r := &result.Result{StatementID: id, Partial: c+1 < chunks}
			for range rapid.IntRange(0, 2).Draw(t, "series") {
				s := result.Series{Name: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "name"), Columns: []string{"time", "v"}}
				if rapid.Bool().Draw(t, "tagged") {
					s.Tags = []result.Tag{{Key: "k", Value: text.Draw(t, "tag")}}
				}
				for range rapid.IntRange(0, 3).Draw(t, "rows") {
					s.Values = append(s.Values, []result.Value{values().Draw(t, "a"), values().Draw(t, "b")})
				}
				r.Series = append(r.Series, s)
			}
			if rapid.IntRange(0, 9).Draw(t, "remark") == 0 {
				r.Messages = []result.Message{{Level: result.Warning, Text: text.Draw(t, "text")}}
			}
			if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
				r.Series, r.Messages, r.Partial, r.Err = nil, nil, false, "failed"
			}
			all = append(all, r)
		}
	}
	return all
}

// joined puts results together as InfluxDB does before it writes them.
func joined(from []*result.Result) whole {
	var w whole
	for _, r := range from {
		next := &statementResult{ID: r.StatementID, Partial: r.Partial, Error: r.Err}
		for _, m := range r.Messages {
			next.Messages = append(next.Messages, remark(m))
		}
		for _, s := range r.Series {
			one := &series{Name: s.Name, Columns: s.Columns, Partial: s.Partial}
			for _, tag := range s.Tags {
				one.Tags = map[string]string{tag.Key: tag.Value}
			}
			for _, row := range s.Values {
				one.Values = append(one.Values, []any{row[0].Any(), row[1].Any()})
			}
			next.Series = append(next.Series, one)
		}
		n := len(w.Results)
		switch {
		case n == 0 || w.Results[n-1].ID != r.StatementID:
			w.Results = append(w.Results, next)
		case r.Err != "":
			w.Results[n-1] = next
		default:
			last := w.Results[n-1]
			if k := len(last.Series); k > 0 {
				open := last.Series[k-1]
				for len(next.Series) > 0 && next.Series[0].Name == open.Name && next.Series[0].Tags["k"] == open.Tags["k"] && len(next.Series[0].Tags) == len(open.Tags) {
					open.Values = append(open.Values, next.Series[0].Values...)
					open.Partial = next.Series[0].Partial
					next.Series = next.Series[1:]
				}
			}
			last.Series = append(last.Series, next.Series...)
			last.Messages = append(last.Messages, next.Messages...)
			last.Partial = next.Partial
		}
	}
	return w
}

// What is streamed is what would be written of the whole.
func TestStreamedJSONIsThatOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := parts(t)
		pretty := rapid.Bool().Draw(t, "pretty")
		var want []byte
		var err error
		if pretty {
			want, err = json.MarshalIndent(joined(all), "", "    ")
		} else {
			want, err = json.Marshal(joined(all))
		}
		require.NoError(t, err)
		var got bytes.Buffer
		w := result.NewWriter(&got, result.Options{Pretty: pretty})
		for _, r := range all {
			require.NoError(t, w.Write(r))
		}
		require.False(t, w.Began())
		require.NoError(t, w.Close())
		require.Equal(t, string(want)+"\n", got.String())
	})
}

// Once an answer has begun, an error of a statement stands beside what was sent of
// it: every answer is valid JSON.
func TestWhatHasBegunEndsAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := parts(t)
		var got bytes.Buffer
		w := result.NewWriter(&got, result.Options{Hold: 1, Pretty: rapid.Bool().Draw(t, "pretty")})
		failed := false
		for _, r := range all {
			failed = failed || r.Err != ""
			require.NoError(t, w.Write(r))
		}
		require.NoError(t, w.Close())
		require.True(t, json.Valid(got.Bytes()), got.String())
		// A result that comes after the error of its statement does not undo it.
		require.Equal(t, failed, strings.Contains(got.String(), `"error"`), got.String())
	})
}

func TestCSVThatHasBegunCannotFail(t *testing.T) {
	t.Parallel()
	table := func() *result.Result {
		return &result.Result{Series: []result.Series{{Name: "m", Columns: []string{"v"}, Values: [][]result.Value{{result.IntegerValue(1)}}}}}
	}
	var got bytes.Buffer
	w := result.NewWriter(&got, result.Options{Format: result.CSV})
	require.NoError(t, w.Write(table()))
	require.NoError(t, w.Write(&result.Result{Err: "failed"}))
	require.NoError(t, w.Close())
	require.Empty(t, got.String(), "as InfluxDB answers it")
	w = result.NewWriter(&got, result.Options{Format: result.CSV, Hold: 1})
	require.NoError(t, w.Write(table()))
	require.True(t, w.Began())
	require.ErrorIs(t, w.Write(&result.Result{Err: "failed"}), result.ErrUnseen)
	require.ErrorIs(t, w.Close(), result.ErrUnseen)
}

func TestMsgpackOfOnePieceIsBounded(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	w := result.NewWriter(&got, result.Options{Format: result.Msgpack, MaxHeld: 100})
	long := func() *result.Result {
		return &result.Result{Series: []result.Series{{Name: "m", Columns: []string{"v"}, Values: [][]result.Value{{result.StringValue(strings.Repeat("x", 60))}}}}}
	}
	require.NoError(t, w.Write(long()))
	require.ErrorIs(t, w.Write(long()), result.ErrTooLarge)
	require.Empty(t, got.Bytes())
}

var errGone = errors.New("gone")

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errGone }

func TestAClientThatIsGoneEndsTheAnswer(t *testing.T) {
	t.Parallel()
	w := result.NewWriter(gone{}, result.Options{Chunked: true})
	require.ErrorIs(t, w.Write(&result.Result{}), errGone)
	require.ErrorIs(t, w.Write(&result.Result{}), errGone)
	require.ErrorIs(t, w.Close(), errGone)
}
