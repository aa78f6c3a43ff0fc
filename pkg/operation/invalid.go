package operation

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// InvalidError is a parameter that cannot be accepted: which one, why, and what
// to do instead.
type InvalidError struct {
	Field   string
	Problem string
	Hint    string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

const (
	kindsHint = "GET /v1/kinds lists the parameters of each kind"
	// maxKey bounds the unknown keys that are repeated to who sent them.
	maxKey = 100
)

// plainField leaves out of a field's path the structs that are embedded on its way.
func plainField(path string) string {
	var names []string
	for name := range strings.SplitSeq(path, ".") {
		if r, _ := utf8.DecodeRuneInString(name); !unicode.IsUpper(r) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ".")
}

// jsonType names what JSON has for a Go type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		if t == reflect.TypeFor[time.Time]() {
			return "a time such as 2026-01-31T12:00:00Z"
		}
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return jsonType(t.Elem())
	default:
		return "a whole number"
	}
}

func article(noun string) string {
	if strings.HasPrefix(noun, "array") || strings.HasPrefix(noun, "object") {
		return "an " + noun
	}
	return "a " + noun
}

// decodeStrict refuses unknown keys, trailing data and anything but an object,
// and names the field that is wrong.
func decodeStrict(raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return &InvalidError{Field: "parameters", Problem: "is followed by more data", Hint: "send one JSON object"}
		}
		return nil
	}
	if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := plainField(wrongType.Field)
		if field == "" {
			field = "parameters"
		}
		return &InvalidError{Field: field, Problem: "is " + article(wrongType.Value), Hint: "use " + jsonType(wrongType.Type)}
	}
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name, err := strconv.Unquote(quoted)
		if err != nil || name == "" || len(name) > maxKey {
			return &InvalidError{Field: "parameters", Problem: "have a key that is not known", Hint: kindsHint}
		}
		return &InvalidError{Field: name, Problem: "is not known", Hint: kindsHint}
	}
	return &InvalidError{Field: "parameters", Problem: "is not valid JSON", Hint: err.Error()}
}
