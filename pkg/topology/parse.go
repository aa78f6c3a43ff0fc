package topology

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/knadh/koanf/parsers/json"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/parsers/yaml"
	gotoml "github.com/pelletier/go-toml/v2"
)

// mostBytes bounds a configuration; the largest sensible one is a few hundred
// kilobytes.
const mostBytes = 4 << 20

// parse reads the syntax of a configuration. What it returns is of the types of
// encoding/json, except that whole numbers can also be int, int64 or uint64.
func (d *decoder) parse(name string, data []byte) map[string]any {
	if len(data) > mostBytes {
		d.mistake("", fmt.Sprintf("is larger than %d bytes", mostBytes), "")

		return nil
	}

	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))

	if len(bytes.TrimSpace(data)) == 0 {
		d.mistake("", "is empty", "describe at least one circle of backends")

		return nil
	}

	switch strings.ToLower(path.Ext(name)) {
	case ".json":
		return d.parseJSON(data)
	case ".toml":
		return d.parseTOML(data)
	case ".yaml", ".yml":
		return d.parseYAML(data)
	}

	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return d.parseJSON(data)
	}

	return d.parseYAML(data)
}

func (d *decoder) parseJSON(data []byte) map[string]any {
	fields, err := json.Parser().Unmarshal(data)

	var (
		syntax *stdjson.SyntaxError
		typing *stdjson.UnmarshalTypeError
	)

	switch {
	case errors.As(err, &syntax):
		d.mistake("", fmt.Sprintf("is not JSON: line %d: %v", lineOf(data, syntax.Offset), syntax), "")
	case errors.As(err, &typing):
		d.mistake("", "is no JSON object", "begin it with { and end it with }")
	case err != nil:
		d.mistake("", "is not JSON", "")
	default:
		d.repeatedKeys(data)
	}

	return fields
}

func lineOf(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(int(offset)-1, 0), len(data))], []byte("\n"))
}

// repeatedKeys reports the keys that stand twice in one JSON object, where the
// parser silently takes the last. The other formats refuse them by themselves. data
// is known to be well-formed.
func (d *decoder) repeatedKeys(data []byte) {
	tokens := stdjson.NewDecoder(bytes.NewReader(data))

	var read func(path string)

	readObject := func(path string) {
		seen := map[string]bool{}
		o := &object{path: path}

		for tokens.More() {
			token, _ := tokens.Token()
			key, _ := token.(string)

			if seen[key] {
				d.mistake(o.at(key), "is given twice", "keep one of them")
			}

			seen[key] = true

			read(o.at(key))
		}
	}
	read = func(path string) {
		token, err := tokens.Token()
		if err != nil {
			return
		}

		switch token {
		case stdjson.Delim('{'):
			readObject(path)
		case stdjson.Delim('['):
			for i := 0; tokens.More(); i++ {
				read(fmt.Sprintf("%s[%d]", path, i))
			}
		default:
			return
		}

		_, _ = tokens.Token() // the closing bracket
	}

	read("")
}

func (d *decoder) parseTOML(data []byte) map[string]any {
	fields, err := toml.Parser().Unmarshal(data)

	var syntax *gotoml.DecodeError

	switch {
	case errors.As(err, &syntax):
		line, _ := syntax.Position()
		d.mistake("", fmt.Sprintf("is not TOML: line %d: %s", line, strings.TrimPrefix(syntax.Error(), "toml: ")), "")
	case err != nil:
		d.mistake("", "is not TOML", "")
	}

	return fields
}

// yamlLine finds the place in an error of the YAML parser. The rest of its words is
// left out: they can quote values, and a password that begins with an asterisk or an
// ampersand is a value that YAML stumbles over.
var yamlLine = regexp.MustCompile(`line (\d+)`)

func (d *decoder) parseYAML(data []byte) map[string]any {
	fields, err := yaml.Parser().Unmarshal(data)
	if err == nil {
		return fields
	}

	var (
		text    = err.Error()
		problem = "is not YAML"
		remedy  = "check indentation and quotes"
	)

	switch {
	case strings.Contains(text, "cannot unmarshal"):
		problem, remedy = "is no mapping of keys to values", "begin it with circles:"
	case strings.Contains(text, "already defined"):
		problem, remedy = "gives a key twice", "keep one of them"
	case strings.Contains(text, "unknown anchor"):
		problem, remedy = "refers to an unknown anchor", "write values that begin with * or & in quotes"
	case strings.Contains(text, "cannot start any token"):
		problem += ": a character that cannot stand here"
		remedy = "indent with spaces, not tabs; write values with special characters in quotes"
	}

	if line := yamlLine.FindString(text); line != "" {
		problem += " (" + line + " or what follows)"
	}

	d.mistake("", problem, remedy)

	return nil
}
