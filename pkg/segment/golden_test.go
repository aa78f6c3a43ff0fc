package segment_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/segment"
)

// What follows reads segments by docs/format/segment.md alone. It shares nothing with
// the package but the names in which the test compares what both have read.

// plainSegment is a segment as the page describes it.
type plainSegment struct {
	database, policy, measurement string
	endIncluded, lastPart         bool
	part                          uint64
	begin, end, first, last       int64
	points, values, series        uint64
	digest                        []byte
	fields                        map[string]byte
	lines                         []byte
	read                          []plainPoint
}

type plainPoint struct {
	measurement string
	tags        [][2]string
	fields      map[string]any // float64, int64, uint64, bool, string
	time        int64
}

// decodePlain reads a file.
func decodePlain(file []byte) (s *plainSegment, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("beyond the end: %v", r)
		}
	}()
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	u32 := binary.LittleEndian.Uint32
	head, tail := file[:12], file[len(file)-12:]
	if !bytes.Equal(head, []byte("\x5D\x2A\x4D\x18\x04\x00\x00\x00RMS\x01")) || string(tail[8:]) != "RMS\x01" {
		return nil, errors.New("marks")
	}
	length := int(u32(tail))
	foot := file[len(file)-12-length-8:]
	if !bytes.Equal(foot[:4], head[:4]) || int(u32(foot[4:])) != length+12 {
		return nil, errors.New("foot")
	}
	if crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, foot[:len(foot)-8]) != u32(tail[4:]) {
		return nil, errors.New("checksum of the foot")
	}
	body := foot[8 : 8+length]
	uvarint := func() uint64 {
		n, size := binary.Uvarint(body)
		body = body[size:]
		return n
	}
	take := func(n int) []byte {
		b := body[:n]
		body = body[n:]
		return b
	}
	text := func() string { return string(take(int(uvarint()))) }

	s = &plainSegment{database: text(), policy: text(), measurement: text(), fields: map[string]byte{}}
	flags := take(1)[0]
	s.endIncluded, s.lastPart = flags&1 != 0, flags&2 != 0
	s.part = uvarint()
	zigzag := uvarint()
	s.begin = int64(zigzag >> 1)
	if zigzag&1 != 0 {
		s.begin = -s.begin - 1
	}
	s.end = int64(uint64(s.begin) + uvarint())
	s.first = int64(uint64(s.begin) + uvarint())
	s.last = int64(uint64(s.first) + uvarint())
	s.points, s.values, s.series = uvarint(), uvarint(), uvarint()
	s.digest = take(16)
	for range uvarint() {
		kind := take(1)[0]
		s.fields[text()] = kind
	}
	at := 12
	escaped := strings.ReplaceAll(strings.ReplaceAll(s.measurement, ",", `\,`), " ", `\ `)
	for range uvarint() {
		packed := file[at : at+int(uvarint())]
		at += len(packed)
		raw, points := int(uvarint()), uvarint()
		first := int64(uint64(s.begin) + uvarint())
		last := int64(uint64(first) + uvarint())
		key := text()
		if crc32.Checksum(packed, castagnoli) != u32(take(4)) {
			return nil, errors.New("checksum of a frame")
		}
		d, err := zstd.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		var lines bytes.Buffer
		_, err = lines.ReadFrom(d)
		d.Close()
		if err != nil || lines.Len() != raw || !strings.HasPrefix(lines.String(), escaped+key+" ") {
			return nil, fmt.Errorf("frame of %d bytes: %w", lines.Len(), err)
		}
		s.lines = append(s.lines, lines.Bytes()...)
		before := len(s.read)
		least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
		for rest := lines.String(); rest != ""; {
			var p plainPoint
			if p, rest, err = decodeLine(rest); err != nil {
				return nil, err
			}
			s.read = append(s.read, p)
			least, greatest = min(least, p.time), max(greatest, p.time)
		}
		if uint64(len(s.read)-before) != points || least != first || greatest != last {
			return nil, errors.New("the index is wrong about a frame")
		}
	}
	if at != len(file)-len(foot) || len(body) != 0 {
		return nil, errors.New("lengths")
	}
	sum := sha256.Sum256(s.lines)
	if !bytes.Equal(sum[:16], s.digest) {
		return nil, errors.New("digest of the lines")
	}
	return s, nil
}

// until cuts s before the first of stops that has no backslash before it.
func until(s, stops string) (before, from string) {
	for i := range len(s) {
		if strings.IndexByte(stops, s[i]) >= 0 && (i == 0 || s[i-1] != '\\') {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// untilPaired cuts s before the first stop that is not the second byte of a pair.
func untilPaired(s string, stop byte) (before, from string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case stop:
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// plain takes the backslashes away that stand before special bytes.
func plain(s, special string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(special, s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func decodeLine(s string) (p plainPoint, rest string, err error) {
	name, s := until(s, ", ")
	p.measurement, p.fields = plain(name, ", "), map[string]any{}
	for s[0] == ',' {
		var key, value string
		key, s = until(s[1:], "=")
		value, s = until(s[1:], ", ")
		p.tags = append(p.tags, [2]string{plain(key, ", ="), plain(value, ", =")})
	}
	for s[0] == ' ' && len(p.fields) == 0 || s[0] == ',' {
		var key string
		key, s = untilPaired(s[1:], '=')
		key, s = plain(key, `, ="`), s[1:]
		if s[0] == '"' {
			var value string
			value, s = untilPaired(s[1:], '"')
			p.fields[key], s = plain(value, `"\`), s[1:]
			continue
		}
		end := strings.IndexAny(s, ", ")
		value := s[:end]
		s = s[end:]
		switch value[len(value)-1] {
		case 'e':
			p.fields[key], err = strconv.ParseBool(value)
		case 'i':
			p.fields[key], err = strconv.ParseInt(value[:len(value)-1], 10, 64)
		case 'u':
			p.fields[key], err = strconv.ParseUint(value[:len(value)-1], 10, 64)
		default:
			p.fields[key], err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return p, "", err
		}
	}
	end := strings.IndexByte(s, '\n')
	p.time, err = strconv.ParseInt(s[1:end], 10, 64)
	return p, s[end+1:], err
}

// plainID makes an id with large numbers.
func plainID(digest []byte) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	n, base, digit := new(big.Int).SetBytes(digest), big.NewInt(62), new(big.Int)
	id := ""
	for range 24 {
		n.DivMod(n, base, digit)
		id = digits[digit.Int64():digit.Int64()+1] + id
	}
	return id
}

// requirePlain holds what the plain decoder reads against what was written.
func requirePlain(t require.TestingT, file []byte, want segment.Summary, blocks []block) {
	s, err := decodePlain(file)
	require.NoError(t, err)
	sum := sha256.Sum256(file)
	require.Equal(t, want.ID.String(), plainID(sum[:]))
	require.Equal(t, want.Datasource, segment.Datasource{Database: s.database, RetentionPolicy: s.policy, Measurement: s.measurement})
	require.Equal(t, want.Window, segment.Window{From: s.begin, To: s.end, Last: s.endIncluded})
	require.Equal(t, []any{want.Part, want.Final, want.Points, want.Values, want.Series, want.MinTime, want.MaxTime},
		[]any{int(s.part), s.lastPart, int64(s.points), int64(s.values), int64(s.series), s.first, s.last})
	require.Len(t, s.fields, len(want.Fields))
	for _, f := range want.Fields {
		require.EqualValues(t, f.Kind, s.fields[f.Name])
	}
	n, values := 0, 0
	for _, b := range blocks {
		for i, row := range b.rows {
			if nulls(row) {
				continue
			}
			p := s.read[n]
			n++
			values += len(p.fields)
			require.Equal(t, b.times[i], p.time)
			got := lineproto.Series{Measurement: p.measurement}
			for _, tag := range p.tags {
				got.Tags = append(got.Tags, lineproto.Tag{Key: tag[0], Value: tag[1]})
			}
			require.Equal(t, withoutEmpty(b.series), got)
			for j, v := range row {
				if v.Kind == lineproto.Null {
					continue
				}
				var same bool
				switch x := p.fields[b.fields[j]].(type) {
				case float64:
					same = v.Equal(lineproto.FloatValue(x))
				case int64:
					same = v.Equal(lineproto.IntegerValue(x))
				case uint64:
					same = v.Equal(lineproto.UnsignedValue(x))
				case bool:
					same = v.Equal(lineproto.BooleanValue(x))
				case string:
					same = v.Equal(lineproto.StringValue(x))
				}
				require.True(t, same, "field %q", b.fields[j])
			}
		}
	}
	require.Len(t, s.read, n)
	require.EqualValues(t, s.points, n)
	require.EqualValues(t, s.values, values)
}

var update = flag.Bool("update", false, "write the golden file anew")

// The golden file is what this release writes, and what every later one must read. When
// another release of the compressor makes other bytes of the same points, the file
// stays and is only read, and a new one joins it.
func TestGolden(t *testing.T) {
	t.Parallel()
	d, blocks := awkwardBlocks()
	files, parts := write(t, d, allTime(), blocks)
	name := filepath.Join("testdata", "awkward-v1.seg")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(name, files[0], 0o600))
	}
	golden, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "OjZGqMjz4t8JOnBZupIgG0yX", parts[0].ID.String())
	require.True(t, bytes.Equal(golden, files[0]), "the bytes of a segment have changed")
	requireSame(t, golden, parts[0], blocks)
	requirePlain(t, golden, parts[0], blocks)
	require.Equal(t, "KfzGZig3msyacs6t9mXQkVM7", source().DataspaceID().String(), "as the page says")
	require.Equal(t, "aeF1OckLukapQb86FKUt14CD", source().ID().String(), "as the page says")
}
