package result

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// errNumber is what JSON has no words for. InfluxDB answers with this text in the
// place of the document.
var errNumber = errors.New("json: error calling MarshalJSON for type httpd.Response: json: error calling MarshalJSON for type *query.Result: json: unsupported value")

// numberError is errNumber with the number.
type numberError struct{ number string }

func (e *numberError) Error() string { return errNumber.Error() + ": " + e.number }
func (e *numberError) Unwrap() error { return errNumber }

// appendString appends a JSON string, as encoding/json writes it.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil { // which a string never makes
				return append(dst, `""`...)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendFloat appends a number, as encoding/json writes it.
func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return dst, &numberError{strconv.FormatFloat(f, 'g', -1, 64)}
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' && n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is e-9
		dst = dst[:n-1]
	}
	return dst, nil
}

func appendJSONValue(dst []byte, v *Value, at *time.Location) ([]byte, error) {
	switch v.Kind {
	case Float:
		return appendFloat(dst, math.Float64frombits(v.Num))
	case Integer:
		return strconv.AppendInt(dst, int64(v.Num), 10), nil
	case Unsigned:
		return strconv.AppendUint(dst, v.Num, 10), nil
	case Boolean:
		return strconv.AppendBool(dst, v.Num != 0), nil
	case String:
		return appendString(dst, v.Str), nil
	case Time:
		if at == nil {
			at = time.UTC
		}
		dst = append(dst, '"')
		dst = time.Unix(0, int64(v.Num)).In(at).AppendFormat(dst, time.RFC3339Nano)
		return append(dst, '"'), nil
	default:
		return append(dst, "null"...), nil
	}
}

func appendJSONRow(dst []byte, row []Value, at *time.Location) ([]byte, error) {
	dst = append(dst, '[')
	for i := range row {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendJSONValue(dst, &row[i], at); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// jsonSeries writes a series part by part. Its keys are left out when they have
// nothing to say.
type jsonSeries struct {
	keys int // written
	rows int
}

func (j *jsonSeries) key(dst []byte, name string) []byte {
	if j.keys > 0 {
		dst = append(dst, ',')
	}
	j.keys++
	return append(append(append(dst, '"'), name...), '"', ':')
}

func (j *jsonSeries) open(dst []byte, s *Series) []byte {
	*j = jsonSeries{}
	dst = append(dst, '{')
	if s.Name != "" {
		dst = appendString(j.key(dst, "name"), s.Name)
	}
	if len(s.Tags) > 0 {
		dst = append(j.key(dst, "tags"), '{')
		for i := range s.Tags {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, s.Tags[i].Key), ':')
			dst = appendString(dst, s.Tags[i].Value)
		}
		dst = append(dst, '}')
	}
	if len(s.Columns) > 0 {
		dst = append(j.key(dst, "columns"), '[')
		for i := range s.Columns {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, s.Columns[i])
		}
		dst = append(dst, ']')
	}
	return dst
}

func (j *jsonSeries) values(dst []byte, rows [][]Value, at *time.Location) ([]byte, error) {
	for _, row := range rows {
		if j.rows == 0 {
			dst = append(j.key(dst, "values"), '[')
		} else {
			dst = append(dst, ',')
		}
		j.rows++
		var err error
		if dst, err = appendJSONRow(dst, row, at); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (j *jsonSeries) close(dst []byte, partial bool) []byte {
	if j.rows > 0 {
		dst = append(dst, ']')
	}
	if partial {
		dst = append(j.key(dst, "partial"), "true"...)
	}
	return append(dst, '}')
}

// appendJSONEnd appends what comes behind the series of a result, and closes it.
func appendJSONEnd(dst []byte, messages []Message, partial bool, failure string) []byte {
	for i, m := range messages {
		if i == 0 {
			dst = append(dst, `,"messages":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, `{"level":`...), m.Level)
		dst = append(appendString(append(dst, `,"text":`...), m.Text), '}')
	}
	if len(messages) > 0 {
		dst = append(dst, ']')
	}
	if partial {
		dst = append(dst, `,"partial":true`...)
	}
	if failure != "" {
		dst = appendString(append(dst, `,"error":`...), failure)
	}
	return append(dst, '}')
}

func appendJSONStart(dst []byte, id int) []byte {
	return strconv.AppendInt(append(dst, `{"statement_id":`...), int64(id), 10)
}
