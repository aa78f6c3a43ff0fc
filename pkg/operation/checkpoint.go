package operation

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// SliceState is what became of one slice of a copy task.
type SliceState uint8

const (
	// SlicePending has not been finished.
	SlicePending SliceState = iota
	// SliceCopied has every batch acknowledged by its destination.
	SliceCopied
	// SliceFailed was refused for good; the task's Problems say why.
	SliceFailed
	// SliceHandedOver was too large and belongs to the task's children now.
	SliceHandedOver
	// SliceCompared has been compared and is about to be copied; Replaced counts
	// what it disagreed about.
	SliceCompared
	// SliceUnchanged needed nothing: the ends were compared point by point, and
	// neither lacked anything it was to get.
	SliceUnchanged
	// SliceSameCounts had the same counts at both ends and was not copied,
	// because the operation asked for no more than counts.
	SliceSameCounts
	// SliceProven is held by its owner, point by point, and is about to be
	// dropped.
	SliceProven
	// SliceDropped is gone, or there was nothing.
	SliceDropped
	// SliceKept was not dropped; the task's Problems say why.
	SliceKept
	// SliceDiffers has been compared, and its ends hold different things.
	SliceDiffers
)

const lastSliceState = SliceDiffers

// Finished reports whether nothing is left to do for a slice in this state.
func (s SliceState) Finished() bool {
	return s != SlicePending && s != SliceCompared && s != SliceProven
}

// Evidence is what copying a slice has seen, for the verification to compare.
type Evidence struct {
	State SliceState
	// DestinationEmpty: nothing was there before the copy, so that counts
	// alone can prove it.
	DestinationEmpty bool
	// Rows and Values are the points and field values read at the source.
	Rows, Values int64
	// Written counts the points sent to the destination.
	Written int64
	// Kept counts the points of which the destination held another value; a
	// copy never replaces it.
	Kept int64
	// Replaced counts the points of which the destination held another value
	// that gave way to the source's.
	Replaced int64
	// Returned counts the points sent to the source, which lacked them.
	Returned int64
	// Extra counts the points of which the destination held more.
	Extra int64
	// Expired counts the points that retention no longer admits.
	Expired int64
	// Counts is the sum over all values of a hash of (series, field): equal
	// sums mean equal counts per series and field. Digest is the same over
	// (series, field, time, type, value).
	Counts, Digest uint64
}

// Checkpoint is the evidence of a task's slices, by index. Its JSON form is
// base64 of a packed encoding, since a task may have thousands of slices.
type Checkpoint []Evidence

// Settled is the checkpoint that another copy of some slices begins with: what was
// settled between their ends by this one is not seen again, and still counts.
func (c Checkpoint) Settled(which []int) Checkpoint {
	out := make(Checkpoint, len(which))
	for n, i := range which {
		if i >= 0 && i < len(c) {
			out[n] = Evidence{State: SliceCompared, Replaced: c[i].Replaced, Returned: c[i].Returned}
		}
	}
	return out
}

// state is what became of a slice; one without an entry is pending.
func (c Checkpoint) state(i int) SliceState {
	if i >= len(c) {
		return SlicePending
	}
	return c[i].State
}

// repaired reports whether a verification has copied, or has tried to copy, points of
// a slice.
func (c Checkpoint) repaired(i int) bool { return i < len(c) && c[i].Repaired() }

// Repaired reports whether a verification has copied, or has tried to copy, points of
// the slice.
func (e *Evidence) Repaired() bool { return e.State.Finished() && e.Written > 0 }

const checkpointVersion = 2

// MarshalJSON packs the checkpoint.
func (c Checkpoint) MarshalJSON() ([]byte, error) {
	packed := []byte{checkpointVersion}
	packed = binary.AppendUvarint(packed, uint64(len(c)))
	for _, e := range c {
		flags := byte(e.State) << 1
		if e.DestinationEmpty {
			flags |= 1
		}
		packed = append(packed, flags)
		if e.State == SlicePending {
			continue
		}
		for _, n := range []int64{e.Rows, e.Values, e.Written, e.Kept, e.Replaced, e.Returned, e.Extra, e.Expired} {
			packed = binary.AppendVarint(packed, n)
		}
		packed = binary.LittleEndian.AppendUint64(packed, e.Counts)
		packed = binary.LittleEndian.AppendUint64(packed, e.Digest)
	}
	return json.Marshal(base64.RawStdEncoding.EncodeToString(packed))
}

// UnmarshalJSON unpacks what MarshalJSON made; null is no checkpoint.
func (c *Checkpoint) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*c = nil
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("reading checkpoint: %w", err)
	}
	packed, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("reading checkpoint: %w", err)
	}
	*c, err = unpackCheckpoint(packed)
	return err
}

var errCheckpoint = errors.New("reading checkpoint: torn or of another version")

func unpackCheckpoint(b []byte) (Checkpoint, error) {
	if len(b) == 0 || b[0] != checkpointVersion {
		return nil, errCheckpoint
	}
	b = b[1:]
	n, used := binary.Uvarint(b)
	// Every entry takes at least one byte, so n cannot exceed what is left.
	if used <= 0 || n > uint64(len(b)) {
		return nil, errCheckpoint
	}
	b = b[used:]
	c := make(Checkpoint, n)
	for i := range c {
		if len(b) == 0 {
			return nil, errCheckpoint
		}
		e := &c[i]
		e.DestinationEmpty = b[0]&1 == 1
		e.State = SliceState(b[0] >> 1)
		if e.State > lastSliceState {
			return nil, errCheckpoint
		}
		b = b[1:]
		if e.State == SlicePending {
			continue
		}
		for _, into := range []*int64{&e.Rows, &e.Values, &e.Written, &e.Kept, &e.Replaced, &e.Returned, &e.Extra, &e.Expired} {
			v, used := binary.Varint(b)
			if used <= 0 {
				return nil, errCheckpoint
			}
			*into, b = v, b[used:]
		}
		if len(b) < 16 {
			return nil, errCheckpoint
		}
		e.Counts = binary.LittleEndian.Uint64(b)
		e.Digest = binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
	}
	if len(b) != 0 {
		return nil, errCheckpoint
	}
	return c, nil
}
