package program

import (
	"flag"
	"fmt"
	"time"
)

// Bound is what a flag for a duration accepts. A zero Most is no bound.
type Bound struct {
	Flag        string
	Least, Most time.Duration
}

// DurationMistakes says which of the durations that were given, as flags or in the
// environment, are out of their bounds. One that was not given is its user's
// default.
func DurationMistakes(fs *flag.FlagSet, bounds ...Bound) []string {
	given := map[string]time.Duration{}
	fs.Visit(func(f *flag.Flag) {
		if getter, ok := f.Value.(flag.Getter); ok {
			if d, ok := getter.Get().(time.Duration); ok {
				given[f.Name] = d
			}
		}
	})
	var mistakes []string
	for _, b := range bounds {
		d, ok := given[b.Flag]
		switch {
		case !ok:
		case b.Most == 0 && d < b.Least:
			mistakes = append(mistakes, fmt.Sprintf("-%s %s: use %s or more", b.Flag, d, b.Least))
		case b.Most != 0 && (d < b.Least || d > b.Most):
			mistakes = append(mistakes, fmt.Sprintf("-%s %s: use %s to %s", b.Flag, d, b.Least, b.Most))
		}
	}
	return mistakes
}

// BackendBounds are those of the flags that both servers have for backends.
func BackendBounds() []Bound {
	return []Bound{{Flag: "patience", Least: time.Second}, {Flag: "backend-timeout", Least: time.Second}, {Flag: "error-limit", Least: time.Second}}
}

// ErrorLimitHelp says what the flag error-limit of both servers is for.
const ErrorLimitHelp = "for how long attempts at a task may end with the same error before it fails, as a `DURATION` (default 10m)"
