package result

import "time"

// divisor is what times in nanoseconds are divided by for an epoch. An epoch that
// is not known means nanoseconds.
func divisor(epoch string) int64 {
	switch epoch {
	case "u":
		return int64(time.Microsecond)
	case "ms":
		return int64(time.Millisecond)
	case "s":
		return int64(time.Second)
	case "m":
		return int64(time.Minute)
	case "h":
		return int64(time.Hour)
	default:
		return 1
	}
}

// toEpoch turns the times of rows into numbers: those of the first column, others
// stay as they are.
func toEpoch(rows [][]Value, div int64) {
	for _, row := range rows {
		if len(row) > 0 && row[0].Kind == Time {
			row[0] = IntegerValue(int64(row[0].Num) / div)
		}
	}
}
