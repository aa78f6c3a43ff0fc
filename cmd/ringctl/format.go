package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// amount is a number of points as a person reads it: 950, 12.3k, 4.56M.
func amount(n int64) string { return scaled(float64(n), 1000, "", "k", "M", "G", "T") }

// size is a number of bytes as a person reads it.
func size(n int64) string { return scaled(float64(n), 1024, "B", "KiB", "MiB", "GiB", "TiB") }

func scaled(v, step float64, units ...string) string {
	unit := 0
	// What would be shown as 1000 is 1 of the next unit.
	for math.Abs(v) >= step-0.5 && unit < len(units)-1 {
		v /= step
		unit++
	}
	gap := ""
	if len(units[unit]) > 1 {
		gap = " "
	}
	switch {
	case unit == 0:
		return fmt.Sprintf("%.0f%s%s", v, gap, units[unit])
	case math.Abs(v) < 99.95:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + gap + units[unit]
	default:
		return fmt.Sprintf("%.0f%s%s", v, gap, units[unit])
	}
}

// seconds is a duration as a person reads it: 45s, 3m20s, 2h5m, 3d4h.
func seconds(s float64) string {
	if math.IsNaN(s) || math.IsInf(s, 0) || s < 0 || s > math.MaxInt32 {
		return "-"
	}
	n := int64(math.Round(s))
	const minute, hour, day = 60, 3600, 86400
	two := func(a int64, ua string, b int64, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, ua)
		}
		return fmt.Sprintf("%d%s%d%s", a, ua, b, ub)
	}
	switch {
	case n == 0 && s > 0:
		return "<1s"
	case n < minute:
		return fmt.Sprintf("%ds", n)
	case n < hour:
		return two(n/minute, "m", n%minute, "s")
	case n < day:
		return two(n/hour, "h", n%hour/minute, "m")
	default:
		return two(n/day, "d", n%day/hour, "h")
	}
}

// clock is a moment; nothing when there is none.
func clock(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// ago is how long a moment lies back.
func (a *app) ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return seconds(max(a.now().Sub(*t).Seconds(), 0)) + " ago"
}

// share is a part in percent, between 0 and 100; it says 100 only when it is all.
func share(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	p := min(max(100*float64(part)/float64(whole), 0), 100)
	if part < whole {
		p = min(p, 99)
	}
	return fmt.Sprintf("%.0f%%", p)
}

// bound is a limit, or its absence.
func bound[N int | int64](n *N) string {
	if n == nil {
		return "none"
	}
	return strconv.FormatInt(int64(*n), 10)
}

// list joins words.
func list[S ~string](words []S) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}
