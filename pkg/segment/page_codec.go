package segment

import (
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/tinylib/msgp/msgp"
)

// pageVersion is the version of a stored page.
const pageVersion = 1

// maxPage is how large a page is unpacked at most.
const maxPage = 4 << 20

// ErrPage says that what is stored is no page that this release can read.
var ErrPage = errors.New("unreadable catalog page")

// PageCodec packs pages for storing and unpacks them: msgpack in one Zstandard frame.
// Names that come again and again stand once, and times as the difference to what they
// are near to, so that little more is left than the digests. It is for one goroutine.
type PageCodec struct {
	packer   *zstd.Encoder
	unpacker *zstd.Decoder
	raw      []byte
}

// NewPageCodec returns a codec.
func NewPageCodec() (*PageCodec, error) {
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("preparing compression: %w", err)
	}
	unpacker, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxPage))
	if err != nil {
		return nil, fmt.Errorf("preparing decompression: %w", err)
	}
	return &PageCodec{packer: packer, unpacker: unpacker}, nil
}

// Close frees what the codec holds.
func (c *PageCodec) Close() { c.unpacker.Close() }

// entryFields is how many elements an entry is packed into.
const entryFields = 24

// Append packs a page, which must be in order, to the end of dst.
func (c *PageCodec) Append(dst []byte, p *Page) ([]byte, error) {
	if err := p.Check(); err != nil {
		return dst, fmt.Errorf("packing a page of the catalog: %w", err)
	}
	names := &nameTable{index: map[string]int{}}
	for i := range p.Entries {
		e := &p.Entries[i]
		for _, n := range e.Holders {
			names.add(n)
		}
		for _, n := range []string{e.ArchivedBy, e.OperationID, e.Damage, e.DeletedBy} {
			names.add(n)
		}
	}
	b := msgp.AppendArrayHeader(c.raw[:0], 7)
	b = msgp.AppendInt(b, pageVersion)
	b = msgp.AppendInt(b, p.Number)
	for _, name := range []string{p.Datasource.Database, p.Datasource.RetentionPolicy, p.Datasource.Measurement} {
		b = msgp.AppendString(b, name)
	}
	b = msgp.AppendArrayHeader(b, uint32(len(names.names)))
	for _, n := range names.names {
		b = msgp.AppendString(b, n)
	}
	b = msgp.AppendArrayHeader(b, uint32(len(p.Entries)))
	before := &Entry{}
	for i := range p.Entries {
		b = appendEntry(b, &p.Entries[i], before, names)
		before = &p.Entries[i]
	}
	c.raw = b
	if len(b) > maxPage {
		return dst, fmt.Errorf("packing a page of the catalog: %w: %d bytes", ErrTooLarge, len(b))
	}
	return c.packer.EncodeAll(b, dst), nil
}

// nameTable numbers names in the order in which they come.
type nameTable struct {
	names []string
	index map[string]int
}

func (t *nameTable) add(name string) {
	if _, known := t.index[name]; !known {
		t.index[name] = len(t.names)
		t.names = append(t.names, name)
	}
}

func states() [4]State { return [4]State{Live, Damaged, Tombstoned, Superseded} }

func appendEntry(b []byte, e, before *Entry, names *nameTable) []byte {
	b = msgp.AppendArrayHeader(b, entryFields)
	b = msgp.AppendBytes(b, e.Digest[:])
	b = msgp.AppendInt64(b, e.Window.From-before.Window.From)
	b = msgp.AppendInt64(b, e.Window.To-e.Window.From)
	b = msgp.AppendBool(b, e.Window.Last)
	for _, n := range []int64{
		int64(e.Part), int64(e.Parts), e.Points, e.Values, e.Series, e.MinTime - e.Window.From, e.Window.To - e.MaxTime, e.Size, e.Raw,
	} {
		b = msgp.AppendInt64(b, n)
	}
	state := 0
	for i, s := range states() {
		if s == e.State {
			state = i
		}
	}
	b = msgp.AppendInt(b, state)
	b = msgp.AppendArrayHeader(b, uint32(len(e.Holders)))
	for _, h := range e.Holders {
		b = msgp.AppendInt(b, names.index[h])
	}
	b = appendTime(b, e.ArchivedAt, before.ArchivedAt)
	b = msgp.AppendInt(b, names.index[e.ArchivedBy])
	b = msgp.AppendInt(b, names.index[e.OperationID])
	b = appendTime(b, e.DamagedAt, e.ArchivedAt)
	b = msgp.AppendInt(b, names.index[e.Damage])
	b = appendTime(b, e.DeletedAt, e.ArchivedAt)
	b = msgp.AppendInt(b, names.index[e.DeletedBy])
	b = appendTime(b, e.SupersededAt, e.ArchivedAt)
	if e.SupersededBy.IsZero() {
		return msgp.AppendBytes(b, nil)
	}
	return msgp.AppendBytes(b, e.SupersededBy[:])
}

// appendTime appends a time as nanoseconds since another one, nil if there is none.
func appendTime(b []byte, t, since time.Time) []byte {
	if t.IsZero() {
		return msgp.AppendNil(b)
	}
	return msgp.AppendInt64(b, nanoseconds(t)-nanoseconds(since))
}

// nanoseconds is a time as a number, 0 for none.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Decode unpacks what Append has packed. The error wraps [ErrPage] if it is something
// else.
func (c *PageCodec) Decode(packed []byte) (*Page, error) {
	raw, err := c.unpacker.DecodeAll(packed, c.raw[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPage, err)
	}
	c.raw = raw
	r := &pageReader{rest: raw}
	p, err := r.page()
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPage, err)
	}
	return p, nil
}

// pageReader reads msgpack. After its first error it gives zeros.
type pageReader struct {
	rest  []byte
	err   error
	names []string
}

func (r *pageReader) page() (*Page, error) {
	if n := r.length(); n != 7 && r.err == nil {
		return nil, fmt.Errorf("%d elements", n)
	}
	if v := r.int(); v != pageVersion && r.err == nil {
		return nil, fmt.Errorf("version %d, this release knows %d", v, pageVersion)
	}
	p := &Page{Number: int(r.int())}
	p.Datasource = Datasource{Database: r.text(), RetentionPolicy: r.text(), Measurement: r.text()}
	for range r.length() {
		r.names = append(r.names, r.text())
	}
	n := r.length()
	if r.err == nil && n > MaxEntries {
		return nil, fmt.Errorf("%d entries", n)
	}
	p.Entries = make([]Entry, n)
	before := &Entry{}
	for i := range p.Entries {
		r.entry(&p.Entries[i], before)
		before = &p.Entries[i]
	}
	if r.err == nil && len(r.rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow it", len(r.rest))
	}
	return p, r.err
}

func (r *pageReader) entry(e, before *Entry) {
	if n := r.length(); n != entryFields {
		r.fail(fmt.Errorf("an entry of %d elements", n))
	}
	if copy(e.Digest[:], r.bytes()) != len(e.Digest) {
		r.fail(errors.New("no digest"))
	}
	e.ID = IDOf(e.Digest)
	e.Window.From = before.Window.From + r.int()
	e.Window.To = e.Window.From + r.int()
	e.Window.Last = r.bool()
	e.Part, e.Parts = int(r.int()), int(r.int())
	e.Points, e.Values, e.Series = r.int(), r.int(), r.int()
	e.MinTime = e.Window.From + r.int()
	e.MaxTime = e.Window.To - r.int()
	e.Size, e.Raw = r.int(), r.int()
	state := r.int()
	for i, s := range states() {
		if state == int64(i) {
			e.State = s
		}
	}
	holders := r.length()
	for range holders {
		e.Holders = append(e.Holders, r.name())
	}
	e.ArchivedAt = r.time(before.ArchivedAt)
	e.ArchivedBy, e.OperationID = r.name(), r.name()
	e.DamagedAt, e.Damage = r.time(e.ArchivedAt), r.name()
	e.DeletedAt, e.DeletedBy = r.time(e.ArchivedAt), r.name()
	e.SupersededAt = r.time(e.ArchivedAt)
	copy(e.SupersededBy[:], r.bytes())
}

func (r *pageReader) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
	if err != nil {
		r.rest = nil
	}
}

func (r *pageReader) next(rest []byte, err error) {
	r.rest = rest
	r.fail(err)
}

// length is that of an array; no array has more elements than there are bytes.
func (r *pageReader) length() int {
	n, rest, err := msgp.ReadArrayHeaderBytes(r.rest)
	if err == nil && int64(n) > int64(len(rest)) {
		err = fmt.Errorf("%d elements in %d bytes", n, len(rest))
	}
	if r.next(rest, err); err != nil {
		return 0
	}
	return int(n)
}

func (r *pageReader) int() int64 {
	n, rest, err := msgp.ReadInt64Bytes(r.rest)
	r.next(rest, err)
	return n
}

func (r *pageReader) bool() bool {
	b, rest, err := msgp.ReadBoolBytes(r.rest)
	r.next(rest, err)
	return b
}

func (r *pageReader) text() string {
	s, rest, err := msgp.ReadStringBytes(r.rest)
	r.next(rest, err)
	return s
}

func (r *pageReader) bytes() []byte {
	b, rest, err := msgp.ReadBytesZC(r.rest)
	r.next(rest, err)
	return b
}

func (r *pageReader) name() string {
	n := r.int()
	if r.err == nil && (n < 0 || n >= int64(len(r.names))) {
		r.fail(fmt.Errorf("name %d of %d", n, len(r.names)))
	}
	if r.err != nil {
		return ""
	}
	return r.names[n]
}

func (r *pageReader) time(since time.Time) time.Time {
	if msgp.IsNil(r.rest) {
		r.next(msgp.ReadNilBytes(r.rest))
		return time.Time{}
	}
	n := r.int()
	if r.err != nil {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds(since)+n).UTC()
}
