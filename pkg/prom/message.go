package prom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The wire types of protocol buffers.
const (
	wireVarint = iota
	wireFixed64
	wireBytes
	wireGroup
	wireGroupEnd
	wireFixed32
)

// maxGroups bounds how deep groups may be nested in fields that nobody knows.
const maxGroups = 64

// Errors in InfluxDB's words.
var (
	errLength   = errors.New("proto: negative length found during unmarshaling")
	errOverflow = errors.New("proto: integer overflow")
	errGroups   = errors.New("proto: groups are nested too deep")
)

// message reads the fields of one message.
//
//	for m.next() {
//		switch m.field {
//		case 1:
//			v := m.bytes("Value")
//		default:
//			m.skip()
//		}
//	}
//	return m.err
//
// After an error there are no more fields.
type message struct {
	name string // of the message's type
	data string
	err  error

	field int32
	wire  int
}

// next goes to the next field, which must then be read or skipped.
func (m *message) next() bool {
	if m.err != nil || m.data == "" {
		return false
	}
	tag := m.uvarint()
	if m.err != nil {
		return false
	}
	m.field, m.wire = int32(tag>>3), int(tag&7)
	switch {
	case m.wire == wireGroupEnd:
		m.err = fmt.Errorf("proto: %s: wiretype end group for non-group", m.name)
	case m.field <= 0:
		m.err = fmt.Errorf("proto: %s: illegal tag %d (wire type %d)", m.name, m.field, tag)
	}
	return m.err == nil
}

// is checks the wire type of the field, which is called name.
func (m *message) is(wire int, name string) bool {
	if m.err == nil && m.wire != wire {
		m.err = fmt.Errorf("proto: wrong wireType = %d for field %s", m.wire, name)
	}
	return m.err == nil
}

// integer reads a field of that type.
func (m *message) integer(name string) int64 {
	if !m.is(wireVarint, name) {
		return 0
	}
	return int64(m.uvarint())
}

// float reads a field of that type.
func (m *message) float(name string) float64 {
	if !m.is(wireFixed64, name) {
		return 0
	}
	raw := m.take(8)
	if m.err != nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64([]byte(raw)))
}

// bytes reads a string or a message.
func (m *message) bytes(name string) string {
	if !m.is(wireBytes, name) {
		return ""
	}
	return m.sized()
}

func (m *message) sized() string {
	n := m.uvarint()
	if m.err == nil && n > math.MaxInt64 {
		m.err = errLength
	}
	return m.take(n)
}

// skip passes a field that nobody knows.
func (m *message) skip() {
	wire := m.wire
	for open := 0; m.err == nil; {
		switch wire {
		case wireVarint:
			m.uvarint()
		case wireFixed64:
			m.take(8)
		case wireBytes:
			m.sized()
		case wireGroup:
			if open++; open > maxGroups {
				m.err = errGroups
			}
		case wireGroupEnd:
			open--
		case wireFixed32:
			m.take(4)
		default:
			m.err = fmt.Errorf("proto: illegal wireType %d", wire)
		}
		if open == 0 {
			return
		}
		wire = int(m.uvarint() & 7)
	}
}

func (m *message) take(n uint64) string {
	if m.err == nil && n > uint64(len(m.data)) {
		m.err = io.ErrUnexpectedEOF
	}
	if m.err != nil {
		return ""
	}
	taken := m.data[:n]
	m.data = m.data[n:]
	return taken
}

// uvarint reads a number of up to ten bytes.
func (m *message) uvarint() (n uint64) {
	if m.err != nil {
		return 0
	}
	for i := range binary.MaxVarintLen64 {
		if i == len(m.data) {
			m.err = io.ErrUnexpectedEOF
			return 0
		}
		c := m.data[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			m.data = m.data[i+1:]
			return n
		}
	}
	m.err = errOverflow
	return 0
}

// appendBytes appends a field that is a string or a message.
func appendBytes(dst []byte, field int, value string) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3+wireBytes)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// appendInteger appends a field of that type.
func appendInteger(dst []byte, field int, value uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3+wireVarint)
	return binary.AppendUvarint(dst, value)
}
