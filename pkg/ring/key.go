package ring

import (
	"errors"
	"strconv"
	"strings"
)

// DefaultShardKey is the template of the key that places a measurement, and
// DefaultHashKey the choice of the key that places a backend, when the
// configuration names none.
const (
	DefaultShardKey = "%db,%mm"
	DefaultHashKey  = "idx"
)

// Errors of the two templates.
var (
	ErrShardKey = errors.New("shard key contains neither %db nor %mm")
	ErrHashKey  = errors.New("hash key is none of idx, exi, name, url and contains no %idx")
)

const (
	varDatabase    = "%db"
	varMeasurement = "%mm"
	varIndex       = "%idx"
)

// ShardKey is a parsed template of the text by which a measurement is placed. The
// zero value has the empty text for every measurement; use ParseShardKey.
type ShardKey struct {
	parts []part
}

// part is a piece of a template: a variable, or text that stands for itself.
type part struct {
	kind partKind
	text string
}

type partKind uint8

const (
	literal partKind = iota
	database
	measurementName
)

// ParseShardKey reads a template in which %db stands for the database and %mm for
// the measurement, both by their unescaped names. The template is read once from
// left to right: a %mm that comes out of a database's name stays as it is. It
// returns ErrShardKey for a template that contains neither variable, which would
// place everything on one backend.
func ParseShardKey(template string) (ShardKey, error) {
	var key ShardKey

	start, variables := 0, 0
	flush := func(end int) {
		if end > start {
			key.parts = append(key.parts, part{literal, template[start:end]})
		}
	}

	for i := 0; i < len(template); {
		var kind partKind

		switch {
		case strings.HasPrefix(template[i:], varDatabase):
			kind = database
		case strings.HasPrefix(template[i:], varMeasurement):
			kind = measurementName
		default:
			i++

			continue
		}

		flush(i)

		key.parts = append(key.parts, part{kind: kind})
		i += len(varDatabase) // both variables have this length
		start = i
		variables++
	}

	flush(len(template))

	if variables == 0 {
		return ShardKey{}, ErrShardKey
	}

	return key, nil
}

// Of returns the shard key of a measurement, given by its unescaped names.
func (k ShardKey) Of(db, measurement string) string {
	var b strings.Builder

	for _, p := range k.parts {
		b.WriteString(p.of(db, measurement))
	}

	return b.String()
}

// sum is the CRC-32 of Of(db, measurement).
func (k ShardKey) sum(db, measurement string) uint32 {
	var sum uint32
	for _, p := range k.parts {
		sum = checksum(sum, p.of(db, measurement))
	}

	return sum
}

func (p part) of(db, measurement string) string {
	switch p.kind {
	case database:
		return db
	case measurementName:
		return measurement
	default:
		return p.text
	}
}

// HashKey chooses the text by which a backend is placed on the ring. The zero
// value is idx.
type HashKey struct {
	choice string
}

// ParseHashKey reads the hash_key of a configuration: idx (the backend's index in
// its circle), exi (the same behind a bar, which keeps points from coinciding),
// name, url, or a template in which %idx stands for the index. It returns
// ErrHashKey for anything else.
func ParseHashKey(s string) (HashKey, error) {
	switch s {
	case "idx", "exi", "name", "url":
		return HashKey{s}, nil
	}

	if strings.Contains(s, varIndex) {
		return HashKey{s}, nil
	}

	return HashKey{}, ErrHashKey
}

// Key returns the key of the backend with this index in its circle, name and URL
// (both as the configuration writes them).
func (h HashKey) Key(index int, name, url string) string {
	switch h.choice {
	case "", "idx":
		return strconv.Itoa(index)
	case "exi":
		return "|" + strconv.Itoa(index)
	case "name":
		return name
	case "url":
		return url
	default:
		return strings.ReplaceAll(h.choice, varIndex, strconv.Itoa(index))
	}
}
