package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/segment"
)

func begun(t testing.TB, out io.Writer, w segment.Window) *segment.Writer {
	t.Helper()
	writer, err := segment.NewWriter()
	require.NoError(t, err)
	require.NoError(t, writer.Reset(source(), w))
	require.NoError(t, writer.Begin(out))
	return writer
}

func host(name string) *lineproto.Series {
	return &lineproto.Series{Measurement: "m", Tags: []lineproto.Tag{{Key: "host", Value: name}}}
}

// What is out of order or does not belong there is refused, and leaves the file as if it
// had never been given.
func TestWhatTheWriterRefuses(t *testing.T) {
	t.Parallel()
	one := []lineproto.Value{lineproto.IntegerValue(1)}
	var file, clean bytes.Buffer
	w, plain := begun(t, &file, segment.Window{From: 10, To: 20}), begun(t, &clean, segment.Window{From: 10, To: 20})
	good := func(ns int64) {
		require.NoError(t, w.Row(ns, one))
		require.NoError(t, plain.Row(ns, one))
	}
	series := func(s *lineproto.Series, fields ...string) {
		require.NoError(t, w.SetSeries(s, fields))
		require.NoError(t, plain.SetSeries(s, fields))
	}
	require.Error(t, w.Row(10, one), "no series")
	require.ErrorIs(t, w.SetSeries(&lineproto.Series{Measurement: "other"}, nil), segment.ErrOutside)
	require.ErrorIs(t, w.SetSeries(host("a"), []string{`f\`}), lineproto.ErrUnrepresentable)
	require.Error(t, w.Row(10, one), "no series")
	series(host("b"), "f")
	require.ErrorIs(t, w.Row(9, one), segment.ErrOutside)
	require.ErrorIs(t, w.Row(20, one), segment.ErrOutside)
	require.NoError(t, w.Row(10, []lineproto.Value{{}}), "no point")
	good(10)
	require.ErrorIs(t, w.Row(10, one), segment.ErrOrder)
	good(15)
	require.ErrorIs(t, w.Row(14, one), segment.ErrOrder)
	require.ErrorIs(t, w.Row(16, []lineproto.Value{lineproto.FloatValue(1)}), segment.ErrTypes)
	require.ErrorIs(t, w.Row(16, []lineproto.Value{lineproto.FloatValue(math.NaN())}), lineproto.ErrUnrepresentable)
	require.ErrorIs(t, w.Row(16, nil), lineproto.ErrUnrepresentable)
	series(host("b"), "g") // the same one with other fields
	require.ErrorIs(t, w.Row(15, one), segment.ErrOrder)
	good(16)
	series(host("c"), "f")
	series(host("a"), "f") // c has no points
	good(10)
	series(host("c"), "f")
	good(10)
	for _, again := range []string{"a", "b"} {
		require.NoError(t, w.SetSeries(host(again), []string{"f"}))
		require.ErrorIs(t, w.Row(19, one), segment.ErrOrder)
	}
	require.NoError(t, w.SetSeries(host("d"), []string{"f"}))
	require.ErrorIs(t, w.Row(10, []lineproto.Value{{Kind: lineproto.String, Str: make([]byte, segment.MaxFrame)}}), segment.ErrTypes)
	require.NoError(t, w.SetSeries(host("d"), []string{"text"}))
	require.ErrorIs(t, w.Row(10, []lineproto.Value{{Kind: lineproto.String, Str: make([]byte, segment.MaxFrame)}}), segment.ErrTooLarge)
	series(host("d"), "f")
	good(10)

	got, err := w.End(true)
	require.NoError(t, err)
	want, err := plain.End(true)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, clean.Bytes(), file.Bytes())
	require.EqualValues(t, 6, got.Points)
	require.EqualValues(t, 4, got.Series)
	_, err = w.End(true)
	require.Error(t, err, "twice")
	require.Error(t, w.Row(10, one))
}

func TestWhatIsNoWindow(t *testing.T) {
	t.Parallel()
	w, err := segment.NewWriter()
	require.NoError(t, err)
	require.Error(t, w.Begin(io.Discard))
	require.Error(t, w.Reset(segment.Datasource{Database: "d", RetentionPolicy: "r"}, allTime()))
	require.Error(t, w.Reset(source(), segment.Window{From: 5, To: 5}))
	require.NoError(t, w.Reset(source(), segment.Window{From: 5, To: 5, Last: true}))
	require.NoError(t, w.Reset(segment.Datasource{Database: strings.Repeat("x", segment.MaxFoot), RetentionPolicy: "r", Measurement: "m"}, allTime()))
	require.ErrorIs(t, w.Begin(io.Discard), segment.ErrTooLarge)
}

type failing struct{ left int }

var errFull = errors.New("disk full")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestAnErrorOfTheFileEndsTheWindow(t *testing.T) {
	t.Parallel()
	w, err := segment.NewWriter()
	require.NoError(t, err)
	for left := range 60 {
		require.NoError(t, w.Reset(source(), allTime()))
		err := w.Begin(&failing{left: left})
		if err == nil {
			require.NoError(t, w.SetSeries(host("a"), []string{"f"}))
			require.NoError(t, w.Row(1, []lineproto.Value{lineproto.IntegerValue(1)}))
			_, err = w.End(true)
		}
		require.ErrorIs(t, err, errFull)
	}
	// And the next one is as if nothing had been.
	var a, b bytes.Buffer
	require.NoError(t, w.Reset(source(), allTime()))
	require.NoError(t, w.Begin(&a))
	_, err = w.End(true)
	require.NoError(t, err)
	_, err = begun(t, &b, allTime()).End(true)
	require.NoError(t, err)
	require.Equal(t, b.Bytes(), a.Bytes())
}

// An error of reading says nothing about the file.
func TestAnErrorOfReadingIsNoDamage(t *testing.T) {
	t.Parallel()
	file := small(t)
	for i := range file {
		for _, cause := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF} {
			_, err := segment.Verify(io.MultiReader(bytes.NewReader(file[:i]), iotest.ErrReader(cause)), nil)
			require.ErrorIs(t, err, cause)
			require.NotErrorIs(t, err, segment.ErrDamaged, "after %d bytes", i)
		}
	}
	_, err := segment.Verify(iotest.OneByteReader(bytes.NewReader(file)), nil)
	require.NoError(t, err)
	_, err = segment.Verify(iotest.DataErrReader(bytes.NewReader(file)), nil)
	require.NoError(t, err)
	mine := errors.New("no more")
	_, err = segment.Verify(bytes.NewReader(file), func([]byte) error { return mine })
	require.ErrorIs(t, err, mine)
	_, err = segment.Open(failingAt{}, int64(len(file)))
	require.ErrorIs(t, err, errFull)
	require.NotErrorIs(t, err, segment.ErrDamaged)
	_, err = segment.Open(bytes.NewReader(file), int64(len(file))+1)
	require.ErrorIs(t, err, segment.ErrDamaged)
}

type failingAt struct{}

func (failingAt) ReadAt([]byte, int64) (int, error) { return 0, errFull }

func TestAnotherVersion(t *testing.T) {
	t.Parallel()
	file := small(t)
	file[11] = 2
	_, err := segment.Verify(bytes.NewReader(file), nil)
	require.ErrorIs(t, err, segment.ErrVersion)
	require.ErrorIs(t, err, segment.ErrDamaged)
	file = small(t)
	file[len(file)-1] = 2
	_, err = segment.Open(bytes.NewReader(file), int64(len(file)))
	require.ErrorIs(t, err, segment.ErrVersion)
}

// seal makes a file of frames and a body whose checksums are right.
func seal(body []byte, frames ...[]byte) []byte {
	file := []byte("\x5D\x2A\x4D\x18\x04\x00\x00\x00RMS\x01")
	for _, f := range frames {
		file = append(file, f...)
	}
	from := len(file)
	file = append(file, "\x5D\x2A\x4D\x18"...)
	file = binary.LittleEndian.AppendUint32(file, uint32(len(body)+12))
	file = append(file, body...)
	file = binary.LittleEndian.AppendUint32(file, uint32(len(body)))
	sum := crc32.Checksum(append(bytes.Clone(file[:12]), file[from:]...), crc32.MakeTable(crc32.Castagnoli))
	file = binary.LittleEndian.AppendUint32(file, sum)
	return append(file, "RMS\x01"...)
}

// bodyOf is the body of a file's foot, and framesOf what stands before the foot.
func bodyOf(file []byte) []byte {
	n := int(binary.LittleEndian.Uint32(file[len(file)-12:]))
	return file[len(file)-12-n : len(file)-12]
}

func framesOf(file []byte) []byte { return file[12 : len(file)-20-len(bodyOf(file))] }

// Who makes a file with right checksums can still not make one that says what is not
// true, or one that takes more memory than a reader grants.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	file := small(t)
	require.Equal(t, file, seal(bodyOf(file), framesOf(file)))
	body, frames := bodyOf(file), framesOf(file)
	for i := range body {
		for _, b := range []byte{0, 1, 0x7f, 0xff, body[i] + 1, body[i] ^ 0x80} {
			if b == body[i] {
				continue
			}
			wrong := bytes.Clone(body)
			wrong[i] = b
			s, err := segment.Verify(bytes.NewReader(seal(wrong, frames)), nil)
			if err == nil {
				// Only what the points do not show can differ: the names of database and
				// policy, the window, the part and its flags.
				want, err := segment.Verify(bytes.NewReader(file), nil)
				require.NoError(t, err)
				s.Datasource, s.Window, s.Part, s.Final, s.ID, s.Digest = want.Datasource, want.Window, want.Part, want.Final, want.ID, want.Digest
				require.Equal(t, want, s)
				continue
			}
			require.ErrorIs(t, err, segment.ErrDamaged)
			_ = readAll(seal(wrong, frames))
		}
	}

	e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true))
	require.NoError(t, err)
	pack := func(lines string) []byte { return e.EncodeAll([]byte(lines), nil) }
	for name, frames := range map[string][][]byte{
		"32 MiB of one letter":  {pack(strings.Repeat("x", segment.MaxFrame))},
		"more than a frame has": {pack(strings.Repeat("x", segment.MaxFrame+1))},
		"no lines":              {pack("\n")},
		"a line without an end": {pack("m f=1i 1")},
		"no time":               {pack("m f=1i\n")},
		"no field":              {pack("m  1\n")},
		"no value":              {pack("m f= 1\n")},
		"a field twice":         {pack("m f=1i,f=1i 1\n")},
		"a float too large":     {pack("m f=1e999 1\n")},
		"no number":             {pack("m f=0x1p-2,g=1_0 1\n")},
		"NaN":                   {pack("m f=NaN 1\n")},
		"two types":             {pack("m f=1i 1\nm f=1 2\n")},
		"the same time":         {pack("m f=1i 1\nm f=1i 1\n")},
		"a series again":        {pack("m,a=1 f=1i 1\nm,a=2 f=1i 1\nm,a=1 f=1i 2\n")},
		"two measurements":      {pack("m f=1i 1\nn f=1i 1\n")},
		"no end of a string":    {pack("m f=\"1 1\n")},
		"a long name":           {pack(strings.Repeat("n", 70_000) + " f=1i 1\n")},
		"a frame cut short":     {pack("m f=1i 1\n")[:12]},
		"a size that is not so": {{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0xff, 0xff, 0xff, 0x01, 1, 0, 0, 1, 2, 3, 4}},
		"a dictionary":          {{0x28, 0xb5, 0x2f, 0xfd, 0x25, 1, 1, 1, 0, 0, 1, 2, 3, 4}},
		"no checksum":           {{0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 9, 0, 0, 'x'}},
		"many empty blocks":     {append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0, 0, 1, 0}, make([]byte, 1<<20)...)},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := segment.Verify(bytes.NewReader(seal(body, frames...)), nil)
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, segment.ErrDamaged, name)
		require.Less(t, len(err.Error()), 1000, name)
		require.NoError(t, mayTake(after.TotalAlloc-before.TotalAlloc), name)
	}
	// Lengths that are not there.
	for _, n := range []uint32{segment.MaxFoot, segment.MaxFoot + 1, math.MaxUint32} {
		head := append([]byte("\x5D\x2A\x4D\x18\x04\x00\x00\x00RMS\x01\x5D\x2A\x4D\x18"), 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(head[16:], n)
		_, err := segment.Verify(bytes.NewReader(head), nil)
		require.ErrorIs(t, err, segment.ErrDamaged)
	}
}

// mayTake is the bound of what reading a small hostile file allocates. Tests beside this
// one allocate, too.
func mayTake(n uint64) error {
	if n > 1<<30 {
		return errors.New("too much memory")
	}
	return nil
}

func FuzzSegment(f *testing.F) {
	file := small(f)
	f.Add(framesOf(file), bodyOf(file), true)
	f.Add(file, []byte{}, false)
	golden, _ := write(f, source(), allTime(), nil)
	f.Add(golden[0], []byte{}, false)
	f.Add([]byte("\x28\xb5\x2f\xfd\xa4\xff\xff\xff\x01\x01\x00\x00"), bodyOf(file), true)
	f.Fuzz(func(t *testing.T, frames, body []byte, sealed bool) {
		data := frames
		if sealed {
			data = seal(body, frames)
		}
		s, err := segment.Verify(bytes.NewReader(data), nil)
		all := readAll(data)
		if err != nil {
			require.ErrorIs(t, err, segment.ErrDamaged)
			return
		}
		require.NoError(t, all)
		plain, err := decodePlain(data)
		require.NoError(t, err)
		require.EqualValues(t, s.Points, plain.points)
	})
}

// FuzzRows gives lines that no checksum vouches for to the reader of lines.
func FuzzRows(f *testing.F) {
	_, blocks := awkwardBlocks()
	f.Add([]byte(lines(f, blocks[1:])))
	f.Add([]byte("m,a=b f=1i,g=\"x\\\"\",h=-0,i=true,j=1u 5\nm,a=b f=2i 6\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		rows := segment.NewRows(nil, body)
		var read []byte
		for rows.Next() {
			read = append(read, rows.Line()...)
			require.Len(t, rows.Values(), len(rows.Fields()))
			require.NotEmpty(t, rows.Present())
		}
		require.True(t, bytes.HasPrefix(body, read))
		require.Equal(t, rows.Err() == nil, len(read) == len(body))
	})
}

// One frame can be read and checked alone, whatever has become of the others.
func TestFramesStandAlone(t *testing.T) {
	t.Parallel()
	w, err := segment.NewWriter()
	require.NoError(t, err)
	var out bytes.Buffer
	sum := archive(t, w, randomFloats(60_000), func() io.Writer { return &out })
	file := out.Bytes()
	r, err := segment.Open(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	defer r.Close()
	frames := r.Frames()
	require.Greater(t, len(frames), 3)
	points, first := int64(0), make([]string, len(frames))
	for i, f := range frames {
		rows := r.FrameRows(i)
		n := int64(0)
		for rows.Next() {
			if n == 0 {
				require.Equal(t, "measurement"+f.FirstTags, string(rows.Key()))
				first[i] = string(rows.Line())
			}
			n++
			require.GreaterOrEqual(t, rows.Time(), f.MinTime)
			require.LessOrEqual(t, rows.Time(), f.MaxTime)
		}
		require.NoError(t, rows.Err())
		require.Equal(t, f.Points, n)
		points += n
	}
	require.Equal(t, sum.Points, points)

	for at := frames[1].Offset; at < frames[1].Offset+frames[1].Length; at += 997 {
		file[at] ^= 1
		_, err := r.Lines(1)
		var damage *segment.DamagedError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, "frame 1", damage.Part)
		require.Equal(t, frames[1].Offset, damage.Offset)
		file[at] ^= 1
	}
	file[frames[1].Offset+5] ^= 4
	for _, i := range []int{0, 2} {
		got, err := r.Lines(i)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(got, []byte(first[i])))
	}
	_, err = segment.Verify(bytes.NewReader(file), nil)
	require.ErrorIs(t, err, segment.ErrDamaged)
}

// A Writer takes a point without allocating.
func TestRowsCostNoAllocation(t *testing.T) {
	w := begun(t, io.Discard, allTime())
	require.NoError(t, w.SetSeries(host("a"), []string{"a", "b", "c"}))
	values := []lineproto.Value{lineproto.FloatValue(0.25), lineproto.IntegerValue(5), lineproto.StringValue("text")}
	ns := int64(0)
	row := func() {
		ns++
		values[0].Num += 1 << 30
		if err := w.Row(ns, values); err != nil {
			t.Fatal(err)
		}
	}
	for range 100_000 {
		row()
	}
	require.Less(t, testing.AllocsPerRun(20_000, row), 0.01)
}
