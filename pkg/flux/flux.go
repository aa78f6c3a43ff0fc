// Package flux finds out what a Flux script reads: its buckets, and the measurements
// that its filters leave of them. It does not know Flux beyond that; where it can't
// tell, it says so, and never that less is read than is. It is pure.
package flux

import "slices"

// Source is what one call in a script reads.
type Source struct {
	// Bucket is the bucket's name, "" if the script does not say it literally.
	Bucket string
	// Measurements are those that can pass the filters, sorted. It is nil if that
	// can't be told, and then may be any.
	Measurements []string
}

// Script is what a script does with data.
type Script struct {
	Sources []Source
	// Writes says that it writes to a bucket, or may.
	Writes bool
}

// Analyse reads a script.
func Analyse(text string) Script {
	tokens := scan(text)
	var s Script
	for i := range tokens {
		switch {
		case tokens.call(i, "from") && tokens.is(i-1, "."):
			// That of another package; a bucket among its arguments is found below.
		case tokens.call(i, "from"):
			s.Sources = append(s.Sources, tokens.source(i))
		case tokens.call(i, "to") && tokens.piped(i), tokens.call(i, "wideTo") && tokens.piped(i):
			s.Writes = true
		case tokens.word(i, "bucket") && tokens.is(i+1, ":") && !tokens.argumentOf(i, "from"):
			// A function that looks for itself what is in a bucket.
			s.Sources = append(s.Sources, Source{Bucket: tokens.literal(i + 2)})
		}
	}
	return s
}

// call reports whether a function of that name is called at i.
func (ts tokens) call(i int, name string) bool {
	return ts.word(i, name) && ts.is(i+1, "(")
}

// piped reports whether the call at i stands behind a pipe, with its package or
// without.
func (ts tokens) piped(i int) bool {
	for i > 1 && ts.is(i-1, ".") {
		i -= 2
	}
	return ts.is(i-1, "|>")
}

// argumentOf reports whether i is inside of the parentheses of a call, of no package.
func (ts tokens) argumentOf(i int, name string) bool {
	depth := 0
	for j := i - 1; j >= 0; j-- {
		switch {
		case ts.is(j, ")"):
			depth++
		case ts.is(j, "(") && depth == 0:
			return ts.word(j-1, name) && !ts.is(j-2, ".")
		case ts.is(j, "("):
			depth--
		}
	}
	return false
}

// literal is the string at i if nothing is added to it, else "".
func (ts tokens) literal(i int) string {
	if i >= len(ts) || ts[i].kind != text || !(ts.is(i+1, ",") || ts.is(i+1, ")")) {
		return ""
	}
	return ts[i].value
}

// source reads what stands behind from at i: its arguments and the pipe up to where
// the next one begins.
func (ts tokens) source(i int) Source {
	end := ts.closing(i + 1)
	var s Source
	for j := i + 2; j < end; j++ {
		if ts.word(j, "bucket") && ts.is(j+1, ":") {
			s.Bucket = ts.literal(j + 2)
		}
	}
	// Only what is piped at once is sure to be about this source.
	for at := end + 1; ts.is(at, "|>"); {
		call := at + 1
		for ts.is(call+1, ".") {
			call += 2
		}
		if !ts.is(call+1, "(") {
			break
		}
		closing := ts.closing(call + 1)
		if ts.word(call, "filter") && call == at+1 {
			if names := ts[:closing].filter(call + 2); names != nil && (s.Measurements == nil || len(names) < len(s.Measurements)) {
				s.Measurements = names
			}
		}
		if changesMeasurement(ts[call].value) {
			break
		}
		at = closing + 1
	}
	return s
}

// changesMeasurement reports whether a filter behind a function may look at other
// names than those that are stored.
func changesMeasurement(function string) bool {
	switch function {
	case "range", "filter", "limit", "first", "last", "sort", "keep", "drop", "group", "window", "aggregateWindow",
		"mean", "sum", "count", "min", "max", "yield", "fill", "tail", "sample", "distinct", "unique":
		return false
	}
	return true
}

// closing is the index of the parenthesis that closes the one at i, the end if none
// does.
func (ts tokens) closing(i int) int {
	depth := 0
	for j := i; j < len(ts); j++ {
		if ts[j].kind == symbol && ts[j].value == "(" {
			depth++
		}
		if ts[j].kind == symbol && ts[j].value == ")" {
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return len(ts)
}

// filter reads the arguments of filter, which begin at i and end with ts: fn: (r) =>
// expression. It returns the measurements that can pass, nil for any.
func (ts tokens) filter(i int) []string {
	if !ts.word(i, "fn") || !ts.is(i+1, ":") || !ts.is(i+2, "(") || !ts.is(i+4, ")") || !ts.is(i+5, "=>") || i+3 >= len(ts) || ts[i+3].kind != name {
		return nil
	}
	p := parser{tokens: ts, at: i + 6, record: ts[i+3].value}
	names := p.either()
	// Anything else, such as onEmpty, does not let more through.
	if p.at < len(ts) && !ts.is(p.at, ",") {
		return nil
	}
	return names
}

// parser reads a condition. Each of its methods returns the measurements that can
// pass what it has read, nil for any.
type parser struct {
	tokens

	at     int
	record string
	depth  int
}

// maxDepth bounds how deep conditions are nested.
const maxDepth = 100

func (p *parser) either() []string {
	names := p.both()
	for p.word(p.at, "or") {
		p.at++
		more := p.both()
		if names == nil || more == nil {
			names = nil
			continue
		}
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names
}

func (p *parser) both() []string {
	names := p.one()
	for p.word(p.at, "and") {
		p.at++
		more := p.one()
		if names == nil || more != nil && len(more) < len(names) {
			names = more
		}
	}
	return names
}

func (p *parser) one() []string {
	if p.is(p.at, "(") && p.depth < maxDepth {
		closing := p.closing(p.at)
		inner := parser{tokens: p.tokens[:min(closing, len(p.tokens))], at: p.at + 1, record: p.record, depth: p.depth + 1}
		names := inner.either()
		if inner.at == closing && p.ends(closing+1) {
			p.at = closing + 1
			return names
		}
		p.skip()
		return nil
	}
	start := p.at
	if next, ok := p.measurement(start); ok && p.is(next, "==") && p.stringAt(next+1) && p.ends(next+2) {
		p.at = next + 2
		return []string{p.tokens[next+1].value}
	}
	if p.stringAt(start) && p.is(start+1, "==") {
		if next, ok := p.measurement(start + 2); ok && p.ends(next) {
			p.at = next
			return []string{p.tokens[start].value}
		}
	}
	p.skip()
	return nil
}

func (p *parser) stringAt(i int) bool { return i < len(p.tokens) && p.tokens[i].kind == text }

// measurement reads r._measurement or r["_measurement"].
func (p *parser) measurement(i int) (next int, ok bool) {
	switch {
	case !p.word(i, p.record):
		return i, false
	case p.is(i+1, ".") && p.word(i+2, "_measurement"):
		return i + 3, true
	case p.is(i+1, "[") && p.stringAt(i+2) && p.tokens[i+2].value == "_measurement" && p.is(i+3, "]"):
		return i + 4, true
	}
	return i, false
}

// ends reports whether an operand ends before i.
func (p *parser) ends(i int) bool {
	return i >= len(p.tokens) || p.word(i, "and") || p.word(i, "or") || p.is(i, ")") || p.is(i, ",")
}

// skip passes over an operand that says nothing of measurements.
func (p *parser) skip() {
	depth := 0
	for ; p.at < len(p.tokens); p.at++ {
		switch {
		case p.is(p.at, "("), p.is(p.at, "["), p.is(p.at, "{"):
			depth++
		case p.is(p.at, ")"), p.is(p.at, "]"), p.is(p.at, "}"):
			if depth == 0 {
				return
			}
			depth--
		case depth == 0 && p.ends(p.at):
			return
		}
	}
}
