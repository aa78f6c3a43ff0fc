package segment_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/segment"
)

// The page's example, and the body that its curl examples really send.
const (
	pageIDs  = `FWEClWu82dW46QqpOWFrGcUO SknGDKCcOScTxvkEEAMsgCvX KYneZu6juzjdsHbfH3YWn7YS`
	pageLine = pageIDs + ` 'developer' '@host=test_host@source=test_source@type=kv@' 1451606400000 1451606400000`
)

// scanned is a line or what is wrong with it.
type scanned struct {
	line segment.MissingLine
	err  error
}

func scan(t require.TestingT, in io.Reader) (all []scanned) {
	s := segment.NewMissingScanner(in)
	for {
		m, err := s.Next()
		if errors.Is(err, io.EOF) {
			_, err = s.Next()
			require.ErrorIs(t, err, io.EOF)
			return all
		}
		all = append(all, scanned{m, err})
		var wrong *segment.LineError
		if err != nil && !errors.As(err, &wrong) {
			return all
		}
		require.EqualValues(t, len(all), s.Line())
	}
}

func TestThePagesLine(t *testing.T) {
	t.Parallel()
	m, err := segment.ParseMissingLine(pageLine)
	require.NoError(t, err)
	require.Equal(t, "FWEClWu82dW46QqpOWFrGcUO", m.Segment.String())
	require.Equal(t, "SknGDKCcOScTxvkEEAMsgCvX", m.Datasource.String())
	require.Equal(t, "KYneZu6juzjdsHbfH3YWn7YS", m.Dataspace.String())
	require.Equal(t, "developer", m.Repository)
	require.Equal(t, "@host=test_host@source=test_source@type=kv@", m.Tags)
	require.EqualValues(t, 1451606400000, m.Start)
	require.EqualValues(t, 1451606400000, m.End)
	require.Equal(t, pageLine+"\n", string(m.Append(nil)))
	tags, err := segment.ParseTagString(m.Tags)
	require.NoError(t, err)
	require.Equal(t, []segment.Tag{{"host", "test_host"}, {"source", "test_source"}, {"type", "kv"}}, tags)
	require.Equal(t, m.Tags, segment.TagString(tags[2], tags[0], tags[1]))
}

func TestMissingLines(t *testing.T) {
	t.Parallel()
	const fused = "--data-binary"
	for name, c := range map[string]struct {
		body string
		want []string // what is said of each line, "" if it is read
	}{
		"nothing":                     {"", nil},
		"one":                         {pageLine, []string{""}},
		"one with an end":             {pageLine + "\n", []string{""}},
		"two":                         {pageLine + "\n" + pageLine + "\n", []string{"", ""}},
		"CRLF":                        {pageLine + "\r\n" + pageIDs + "\r\n", []string{"", ""}},
		"CRLF and no end":             {pageIDs + "\r\n" + pageIDs + "\r", []string{"", ""}},
		"ids only, as the page sends": {pageIDs, []string{""}},
		"with a name":                 {pageIDs + " 'developer'", []string{""}},
		"without the end":             {pageIDs + " 'developer' '@a=b@' 1", []string{""}},
		"spaces":                      {pageIDs + "  'a b'   '@a=b c@'\t-1 2 ", []string{""}},
		"empty line":                  {pageIDs + "\n\n" + pageIDs + "\n", []string{"", "line 2: is empty", ""}},
		"two ends":                    {pageIDs + "\n\n", []string{"", "line 2: is empty"}},
		"two CRLF":                    {pageIDs + "\r\n\r\n", []string{"", "line 2: is empty"}},
		"only an end":                 {"\n", []string{"line 1: is empty"}},
		"only spaces":                 {"  \n", []string{"line 1: is empty"}},
		"first empty":                 {"\n" + pageIDs, []string{"line 1: is empty", ""}},
		"one id":                      {"FWEClWu82dW46QqpOWFrGcUO", []string{"1 of the three ids"}},
		"two ids":                     {"FWEClWu82dW46QqpOWFrGcUO SknGDKCcOScTxvkEEAMsgCvX", []string{"2 of the three ids"}},
		"short id":                    {"FWEClWu82dW46QqpOWFrGcU SknGDKCcOScTxvkEEAMsgCvX KYneZu6juzjdsHbfH3YWn7YS", []string{"segment id"}},
		"odd id":                      {strings.Replace(pageIDs, "Skn", "S-n", 1), []string{"datasource id"}},
		"quoted id":                   {"'FWEClWu82dW46QqpOWFrGcUO' SknGDKCcOScTxvkEEAMsgCvX KYneZu6juzjdsHbfH3YWn7YS", []string{"segment id"}},
		"fused":                       {pageLine + pageLine, []string{fused}},
		"fused with a space":          {pageLine + " " + pageLine, []string{fused}},
		"fused ids":                   {pageIDs + pageIDs, []string{fused}},
		"fused ids with a space":      {pageIDs + " " + pageIDs, []string{fused}},
		"fused after the name":        {pageIDs + " 'developer'" + pageIDs, []string{fused}},
		"fused in a quote":            {pageIDs + " 'developer" + pageIDs, []string{fused}},
		"eight fields":                {pageLine + " x", []string{fused}},
		"no quotes":                   {pageIDs + " developer '@a=b@' 1 2", []string{fused}},
		"no number":                   {pageIDs + " 'developer' '@a=b@' one 2", []string{fused}},
		"quoted number":               {pageIDs + " 'developer' '@a=b@' '1' 2", []string{fused}},
		"too long":                    {pageIDs + "\n" + strings.Repeat("x", 3*segment.MaxMissingLine) + "\n" + pageIDs, []string{"", "longer", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, in := range []io.Reader{strings.NewReader(c.body), iotest.OneByteReader(strings.NewReader(c.body)), iotest.DataErrReader(strings.NewReader(c.body))} {
				got := scan(t, in)
				require.Len(t, got, len(c.want))
				for i, says := range c.want {
					if says == "" {
						require.NoError(t, got[i].err)
						require.Equal(t, pageIDs, got[i].line.Segment.String()+" "+got[i].line.Datasource.String()+" "+got[i].line.Dataspace.String())
						continue
					}
					var wrong *segment.LineError
					require.ErrorAs(t, got[i].err, &wrong)
					require.ErrorContains(t, wrong, says)
					require.EqualValues(t, i+1, wrong.Line)
				}
			}
		})
	}
}

func TestALineAsLongAsItMayBe(t *testing.T) {
	t.Parallel()
	long := pageIDs + " '" + strings.Repeat("x", segment.MaxMissingLine-len(pageIDs)-3) + "'"
	for _, end := range []string{"", "\n", "\r\n"} {
		got := scan(t, strings.NewReader(long+end+pageIDs[:0]))
		require.Len(t, got, 1)
		require.NoError(t, got[0].err)
	}
}

func TestAnErrorOfReadingIsNoLine(t *testing.T) {
	t.Parallel()
	cause := errors.New("cut off")
	got := scan(t, io.MultiReader(strings.NewReader(pageIDs+"\n"+pageIDs), iotest.ErrReader(cause)))
	require.Len(t, got, 2)
	require.NoError(t, got[0].err)
	require.ErrorIs(t, got[1].err, cause)
}

// Every line that is rendered is seven words, and says what it was made of.
func TestMissingLineRoundTrip(t *testing.T) {
	t.Parallel()
	name := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.SampledFrom([]rune("'\"`\\@=% \n\r\t\x00a\u2028é🎪"))),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		d := segment.Datasource{Database: name.Draw(t, "db"), RetentionPolicy: name.Draw(t, "rp"), Measurement: name.Draw(t, "measurement")}
		first, last := rapid.Int64().Draw(t, "first"), rapid.Int64().Draw(t, "last")
		line := segment.AppendMissing(nil, d.ID(), d, first, last)
		require.Len(t, strings.Fields(string(line)), 7)
		require.Equal(t, 1, bytes.Count(line, []byte("\n")))
		require.Len(t, bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte(" ")), 7)
		got := scan(t, bytes.NewReader(line))
		require.Len(t, got, 1)
		require.NoError(t, got[0].err)
		m := got[0].line
		require.Equal(t, line, m.Append(nil))
		require.Equal(t, d.ID(), m.Segment)
		require.Equal(t, d.ID(), m.Datasource)
		require.Equal(t, d.DataspaceID(), m.Dataspace)
		database, err := segment.Unescape(m.Repository)
		require.NoError(t, err)
		back, err := segment.ParseDatasource(database, m.Tags)
		require.NoError(t, err)
		require.Equal(t, d, back)
	})
}

func TestTimesAreRoundedDown(t *testing.T) {
	t.Parallel()
	for ns, ms := range map[int64]string{0: "0", 999_999: "0", 1_000_000: "1", -1: "-1", -1_000_000: "-1", -1_000_001: "-2", math.MinInt64: "-9223372036855", math.MaxInt64: "9223372036854"} {
		line := segment.AppendMissing(nil, source().ID(), source(), ns, ns)
		require.True(t, strings.HasSuffix(string(line), " "+ms+" "+ms+"\n"), "%d: %s", ns, line)
	}
}

func TestWhatIsNoTagString(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "@a", "@a=b", "@@", "@a@", "@a=b=c@", "@a=%@", "@a=%4@", "@a=%zz@", "@%4=b@"} {
		_, err := segment.ParseTagString(text)
		require.Error(t, err, text)
	}
	tags, err := segment.ParseTagString("@")
	require.NoError(t, err)
	require.Empty(t, tags)
	_, err = segment.ParseDatasource("db", "@measurement=m@")
	require.Error(t, err)
}

func TestIDs(t *testing.T) {
	t.Parallel()
	// From a reckoning with Python's integers.
	require.Equal(t, "KfzGZig3msyacs6t9mXQkVM7", segment.DataspaceID("db").String())
	require.Equal(t, "aeF1OckLukapQb86FKUt14CD", source().ID().String())
	id, err := segment.ParseID("FWEClWu82dW46QqpOWFrGcUO")
	require.NoError(t, err)
	text, err := id.MarshalText()
	require.NoError(t, err)
	var back segment.ID
	require.NoError(t, back.UnmarshalText(text))
	require.Equal(t, id, back)
	require.NoError(t, back.UnmarshalText(nil))
	require.True(t, back.IsZero())
	require.Empty(t, back.String())
	for _, wrong := range []string{"", "x", "FWEClWu82dW46QqpOWFrGcU-", "FWEClWu82dW46QqpOWFrGcUOx"} {
		_, err := segment.ParseID(wrong)
		require.Error(t, err)
	}
	// Names that read alike when they are put together have other ids.
	a := segment.Datasource{Database: "a", RetentionPolicy: "bc", Measurement: "d"}
	b := segment.Datasource{Database: "ab", RetentionPolicy: "c", Measurement: "d"}
	require.NotEqual(t, a.ID(), b.ID())
	require.Equal(t, "segments/"+a.DataspaceID().String()+"/"+a.ID().String()+"/"+id.String()+".seg", a.ObjectKey(id))
}

func FuzzMissingLine(f *testing.F) {
	f.Add([]byte(pageLine + "\n" + pageIDs))
	f.Add([]byte(pageLine + pageLine))
	f.Add([]byte(pageIDs + " 'a' '@b=c@' 1 2\r\n\r\n"))
	f.Add([]byte("'''' ' "))
	f.Fuzz(func(t *testing.T, body []byte) {
		lines := bytes.Split(body, []byte("\n"))
		if len(lines[len(lines)-1]) == 0 {
			lines = lines[:len(lines)-1]
		}
		got := scan(t, bytes.NewReader(body))
		require.Len(t, got, len(lines))
		for i, g := range got {
			if g.err != nil {
				continue
			}
			ids := strings.FieldsFunc(strings.TrimSuffix(string(lines[i]), "\r"), func(r rune) bool { return r == ' ' || r == '\t' })
			require.GreaterOrEqual(t, len(ids), 3)
			require.Equal(t, ids[0], g.line.Segment.String())
			require.Equal(t, ids[1], g.line.Datasource.String())
			require.Equal(t, ids[2], g.line.Dataspace.String())
		}
	})
}
