package lineproto

import "strings"

// CompareTags orders the series of a measurement as InfluxDB answers them: by the
// values of all tag keys in key order, an absent tag counting as empty. The order
// holds also between two servers that know different keys. Both lists are sorted by
// key.
func CompareTags(a, b []Tag) int {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Key < b[0].Key:
			if a[0].Value != "" {
				return 1
			}
			a = a[1:]
		case len(a) == 0 || b[0].Key < a[0].Key:
			if b[0].Value != "" {
				return -1
			}
			b = b[1:]
		default:
			if c := strings.Compare(a[0].Value, b[0].Value); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
	}
	return 0
}
