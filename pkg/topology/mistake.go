package topology

import "strings"

// Mistake is one thing that is wrong in a configuration, or, among the warnings,
// one that works but is better changed.
type Mistake struct {
	// Path names the place, like circles[0].backends[1].url; it is empty for the
	// file as a whole.
	Path string
	// Problem completes the sentence that the path begins.
	Problem string
	// Remedy says what to do about it; it can be empty.
	Remedy string
}

// String returns the mistake in one line. Values of the configuration are quoted in
// it only where they cannot be secret.
func (m Mistake) String() string {
	var b strings.Builder

	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}

	b.WriteString(m.Problem)

	if m.Remedy != "" {
		b.WriteString("; " + m.Remedy)
	}

	return b.String()
}

// ConfigError lists everything that is wrong in a configuration.
type ConfigError struct {
	// Name is the name that Parse was given.
	Name     string
	Mistakes []Mistake
}

// Error returns all mistakes, one a line, each behind the name of the file.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Mistakes))
	for i, m := range e.Mistakes {
		lines[i] = m.String()
		if e.Name != "" {
			lines[i] = e.Name + ": " + lines[i]
		}
	}

	return strings.Join(lines, "\n")
}
