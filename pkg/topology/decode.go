package topology

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder reads the generic form of a configuration strictly and keeps every
// mistake with its place. It never puts a value into a message: any of them could
// be a password in the wrong place.
type decoder struct {
	mistakes []Mistake
}

func (d *decoder) mistake(path, problem, remedy string) {
	d.mistakes = append(d.mistakes, Mistake{Path: path, Problem: problem, Remedy: remedy})
}

// object is one mapping of the configuration.
type object struct {
	*decoder

	path   string
	fields map[string]any
	known  []string
}

// at returns the path of a key.
func (o *object) at(key string) string {
	if !isPlainKey(key) {
		key = strconv.Quote(key)
	}

	if o.path == "" {
		return key
	}

	return o.path + "." + key
}

func isPlainKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// take returns the value of a key and marks the key as known. A null counts as
// absent, as it does for influx-proxy.
func (o *object) take(key string) (any, bool) {
	o.known = append(o.known, key)
	value := o.fields[key]

	return value, value != nil
}

// text reads a text; an absent or empty one is fallback.
func (o *object) text(key, fallback string) string {
	value, ok := o.take(key)
	if !ok {
		return fallback
	}

	s, ok := value.(string)
	if !ok {
		o.wrongType(o.at(key), value, "a text")

		return fallback
	}

	if s == "" {
		return fallback
	}

	return s
}

// flag reads a truth value and reports whether the key is there.
func (o *object) flag(key string) (value, given bool) {
	raw, ok := o.take(key)
	if !ok {
		return false, false
	}

	b, ok := raw.(bool)
	if !ok {
		o.wrongType(o.at(key), raw, "true or false")
	}

	return b, true
}

// enabled reads a truth value that is false when absent.
func (o *object) enabled(key string) bool {
	value, _ := o.flag(key)

	return value
}

// count reads a whole number between 1 and most. Absent and 0 are fallback: a 0 has
// always asked influx-proxy for its default.
func (o *object) count(key string, fallback, most int) int {
	n, ok := o.whole(key, most)
	if !ok || n == 0 {
		return fallback
	}

	return n
}

// whole reads a whole number between 0 and most.
func (o *object) whole(key string, most int) (int, bool) {
	value, ok := o.take(key)
	if !ok {
		return 0, false
	}

	n, isNumber := number(value)

	switch {
	case !isNumber:
		o.wrongType(o.at(key), value, "a whole number")
	case n != math.Trunc(n):
		o.mistake(o.at(key), "is not a whole number", "write it without a fraction")
	case n < 0:
		o.mistake(o.at(key), "is negative", "leave it out for the default")
	case n > float64(most):
		o.mistake(o.at(key), fmt.Sprintf("is larger than %d", most), "")
	default:
		return int(n), true
	}

	return 0, false
}

// seconds reads a duration, which configurations give in whole seconds.
func (o *object) seconds(key string, fallback int) time.Duration {
	const most = 366 * 24 * 60 * 60

	return time.Duration(o.count(key, fallback, most)) * time.Second
}

// span reads a duration between least and most, a number of seconds or a text like
// 5m; 0 when it is absent.
func (o *object) span(key string, least, most time.Duration) time.Duration {
	value, ok := o.take(key)
	if !ok {
		return 0
	}

	const remedy = "write a number of seconds, or a text like 5m"

	var d time.Duration

	if text, isText := value.(string); isText {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			o.mistake(o.at(key), "is not a duration", remedy)

			return 0
		}
	} else {
		seconds, isNumber := number(value)
		if !isNumber {
			o.wrongType(o.at(key), value, "a duration")

			return 0
		}

		// What is out of its bounds is only to stay out of them.
		d = time.Duration(max(-1, min(seconds, 2*most.Seconds())) * float64(time.Second))
	}

	if d < least || d > most {
		o.mistake(o.at(key), fmt.Sprintf("is not between %s and %s", least, most), remedy)

		return 0
	}

	return d
}

// number returns the value of any of the types that the three parsers give numbers.
// The exactness of a float64 is enough: every number allowed here is far below 2^53.
func number(value any) (float64, bool) {
	switch n := value.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	default:
		return 0, false
	}
}

// required reads a text that has to be there.
func (o *object) required(key, remedy string) string {
	value, ok := o.take(key)
	if !ok {
		o.mistake(o.at(key), "is missing", remedy)

		return ""
	}

	s, ok := value.(string)
	if !ok {
		o.wrongType(o.at(key), value, "a text")
	} else if s == "" {
		o.mistake(o.at(key), "is empty", remedy)
	}

	return s
}

// texts reads a list of texts, none of them empty.
func (o *object) texts(key, remedy string) []string {
	value, ok := o.take(key)
	if !ok {
		return []string{}
	}

	items, ok := value.([]any)
	if !ok {
		o.wrongType(o.at(key), value, "a list")
	}

	texts := make([]string, len(items))

	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", o.at(key), i)

		if texts[i], ok = item.(string); !ok {
			o.wrongType(at, item, "a text")
		} else if texts[i] == "" {
			o.mistake(at, "is empty", remedy)
		}
	}

	return texts
}

// objects reads a list of at least one mapping and yields the mappings with their
// indexes.
func (o *object) objects(key, remedy string) iter.Seq2[int, *object] {
	value, ok := o.take(key)
	items, isList := value.([]any)

	switch {
	case !ok:
		o.mistake(o.at(key), "is missing", remedy)
	case !isList:
		o.wrongType(o.at(key), value, "a list")
	case len(items) == 0:
		o.mistake(o.at(key), "is empty", remedy)
	}

	return func(yield func(int, *object) bool) {
		for i, item := range items {
			if child := o.child(fmt.Sprintf("%s[%d]", o.at(key), i), item); child != nil && !yield(i, child) {
				return
			}
		}
	}
}

// object reads a mapping; nil when it is absent or something else.
func (o *object) object(key string) *object {
	value, ok := o.take(key)
	if !ok {
		return nil
	}

	return o.child(o.at(key), value)
}

func (o *object) child(path string, value any) *object {
	switch fields := value.(type) {
	case map[string]any:
		return &object{decoder: o.decoder, path: path, fields: fields}
	case map[any]any:
		o.mistake(path, "has a key that is not a text", "write the key in quotes")
	default:
		o.wrongType(path, value, "a mapping")
	}

	return nil
}

// finish reports the keys that nobody asked for.
func (o *object) finish() {
	for _, key := range slices.Sorted(maps.Keys(o.fields)) {
		if slices.Contains(o.known, key) {
			continue
		}

		o.mistake(o.at(key), "is not a known key", o.suggestion(key))
	}
}

// suggestion guesses what an unknown key was meant to be.
func (o *object) suggestion(key string) string {
	switch key {
	case "token", "dbrp":
		return "it belongs to influx-proxy 3, which speaks to InfluxDB 2; Ringmaster moves InfluxDB 1"
	}

	best, distance := "", 3 // more than two edits apart is no typing error

	for _, known := range o.known {
		if n := edits(normalKey(key), normalKey(known)); n < distance {
			best, distance = known, n
		}
	}

	if best == "" {
		return "remove it"
	}

	return "did you mean " + best + "?"
}

// normalKey takes out what only tells writing styles apart.
func normalKey(key string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))
}

// edits is the Levenshtein distance of two keys, by bytes.
func edits(a, b string) int {
	const tooLong = 64
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}

	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}

	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1

		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}

			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}

	return row[len(b)]
}

// wrongType reports a value of another type than the key has.
func (d *decoder) wrongType(path string, value any, want string) {
	is, scalar := "a date or time", true

	switch value.(type) {
	case nil:
		is, scalar = "nothing", false
	case string:
		is = "a text"
	case bool:
		is = "true or false"
	case int, int64, uint64, float64:
		is = "a number"
	case []any:
		is, scalar = "a list", false
	case map[string]any, map[any]any:
		is, scalar = "a mapping", false
	}

	remedy := ""

	switch {
	case !scalar:
	case want == "a text":
		remedy = "write it in quotes"
	case want == "a whole number":
		remedy = "write digits only, without quotes or unit"
	case want == "true or false":
		remedy = "write true or false, without quotes"
	}

	d.mistake(path, "is "+is+" where "+want+" belongs", remedy)
}
