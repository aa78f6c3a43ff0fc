package hint

import (
	"encoding/binary"
	"fmt"
)

// Decoder puts parts, given in their order, together to frames. Its zero value is
// ready. It holds the parts of one frame at most.
type Decoder struct {
	name  id
	count int
	parts int
	body  []byte
}

// Add takes the next part. It returns a frame when the part completes one, and nil
// while parts are missing. An error that wraps ErrDamaged means that what was held
// and the part can't be a frame: both are given up, and the next part may begin
// another one. When only what was held is at fault, because its end is missing, the
// error is an *UnfinishedError and the part has been taken as the first of the
// next frame (whose end it is too if it is the only one: then the frame is there
// beside the error).
func (d *Decoder) Add(part []byte) (*Frame, error) {
	name, index, count, piece, err := parsePart(part)
	if err != nil {
		d.Reset()
		return nil, err
	}
	var unfinished error
	if d.parts > 0 && (name != d.name || index == 0) {
		unfinished = &UnfinishedError{Parts: d.parts, Count: d.count}
		d.Reset()
	}
	switch {
	case d.parts == 0 && index != 0:
		return nil, join(unfinished, fmt.Errorf("%w: it begins with part %d of %d", ErrDamaged, index+1, count))
	case d.parts == 0:
		d.name, d.count = name, count
	case count != d.count || index != d.parts:
		held := d.parts
		of := d.count
		d.Reset()
		return nil, fmt.Errorf("%w: part %d of %d follows part %d of %d", ErrDamaged, index+1, count, held, of)
	}
	d.parts++
	d.body = append(d.body, piece...)
	if d.parts < d.count {
		return nil, unfinished
	}
	body := d.body
	d.Reset()
	if identify(body) != name {
		return nil, join(unfinished, fmt.Errorf("%w: its parts do not belong together", ErrDamaged))
	}
	f, err := decodeBody(body)
	return f, join(unfinished, err)
}

// Pending is how many parts of an unfinished frame are held.
func (d *Decoder) Pending() int { return d.parts }

// Reset gives up what is held.
func (d *Decoder) Reset() {
	d.name, d.count, d.parts, d.body = id{}, 0, 0, nil
}

// UnfinishedError says that a frame ended before its last part; it matches
// ErrDamaged.
type UnfinishedError struct {
	// Parts were there of Count.
	Parts, Count int
}

// Error names both numbers.
func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("%v: it ends after part %d of %d", ErrDamaged, e.Parts, e.Count)
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *UnfinishedError) Is(target error) bool { return target == ErrDamaged }

func join(unfinished, err error) error {
	switch {
	case unfinished == nil:
		return err
	case err == nil:
		return unfinished
	default:
		return fmt.Errorf("%w; then %w", unfinished, err)
	}
}

// parsePart checks a part and takes it apart.
func parsePart(part []byte) (name id, index, count int, piece []byte, err error) {
	if len(part) <= overhead {
		return id{}, 0, 0, nil, fmt.Errorf("%w: a part of %d bytes", ErrDamaged, len(part))
	}
	if string(part[:len(magic)]) != magic {
		return id{}, 0, 0, nil, fmt.Errorf("%w: a part that does not begin with %s", ErrDamaged, magic)
	}
	if v := part[len(magic)]; v != version {
		return id{}, 0, 0, nil, fmt.Errorf("%w: a part of version %d, this release knows %d", ErrDamaged, v, version)
	}
	end := len(part) - checkSize
	if checksum(part[:end]) != binary.BigEndian.Uint32(part[end:]) {
		return id{}, 0, 0, nil, fmt.Errorf("%w: a part with another checksum", ErrDamaged)
	}
	at := len(magic) + 1
	name = id(part[at : at+idSize])
	at += idSize
	index = int(binary.BigEndian.Uint16(part[at:]))
	count = int(binary.BigEndian.Uint16(part[at+2:]))
	if count == 0 || count > MaxParts || index >= count {
		return id{}, 0, 0, nil, fmt.Errorf("%w: part %d of %d", ErrDamaged, index+1, count)
	}
	return name, index, count, part[headSize:end], nil
}
