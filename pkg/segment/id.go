package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// IDLength is how many characters an id has.
const IDLength = 24

// ID names a segment, a datasource or a dataspace: 24 characters of [0-9A-Za-z].
// The zero ID names nothing.
type ID [IDLength]byte

// Digest is the SHA-256 of a file. As text it is hexadecimal, as sha256sum prints it.
type Digest [sha256.Size]byte

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText is String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (d *Digest) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(d) {
		return fmt.Errorf("%.80q is no SHA-256", text)
	}
	copy(d[:], b)
	return nil
}

// alphabet are the digits of base 62 in their order, which is that of ASCII too.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// IDOf is the id of a digest: the digest as one large number, the first byte being
// the most significant, modulo 62^24, written with 24 digits of base 62.
func IDOf(digest Digest) ID {
	var words [sha256.Size / 4]uint32
	for i := range words {
		words[i] = binary.BigEndian.Uint32(digest[4*i:])
	}
	var id ID
	for i := IDLength - 1; i >= 0; i-- {
		var rest uint64
		for j, w := range words {
			n := rest<<32 | uint64(w)
			words[j], rest = uint32(n/62), n%62
		}
		id[i] = alphabet[rest]
	}
	return id
}

// ParseID reads an id as it is written.
func ParseID(text string) (ID, error) {
	id, ok := parseID([]byte(text))
	if !ok {
		return ID{}, fmt.Errorf("%.64q is no id: one has %d letters and digits", text, IDLength)
	}
	return id, nil
}

func parseID(text []byte) (ID, bool) {
	if len(text) != IDLength {
		return ID{}, false
	}
	for _, c := range text {
		if !alphanumeric(c) {
			return ID{}, false
		}
	}
	return ID(text), true
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// IsZero reports whether the id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String is the id as it is written, empty for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return string(id[:])
}

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// DataspaceID is the id of a database: of the SHA-256 of the word "dataspace" and the
// name, each after its length in four bytes, the most significant first.
func DataspaceID(database string) ID { return nameID("dataspace", database) }

// ID is the id of a datasource: of the SHA-256 of the word "datasource" and the names
// of database, retention policy and measurement, each after its length in four bytes.
func (d Datasource) ID() ID {
	return nameID("datasource", d.Database, d.RetentionPolicy, d.Measurement)
}

// DataspaceID is the id of the datasource's database.
func (d Datasource) DataspaceID() ID { return DataspaceID(d.Database) }

func nameID(names ...string) ID {
	var text []byte
	for _, name := range names {
		text = binary.BigEndian.AppendUint32(text, uint32(len(name)))
		text = append(text, name...)
	}
	return IDOf(sha256.Sum256(text))
}

// ObjectKey is where a segment lies in every store.
func ObjectKey(dataspace, datasource, segment ID) string {
	return "segments/" + dataspace.String() + "/" + datasource.String() + "/" + segment.String() + ".seg"
}

// ObjectKey is where a segment of the datasource lies in every store.
func (d Datasource) ObjectKey(segment ID) string {
	return ObjectKey(d.DataspaceID(), d.ID(), segment)
}
