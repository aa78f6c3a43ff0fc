package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Formats of the output.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// show prints what the server has answered: as it is, or as a table.
func (a *app) show(document []byte, table func(w io.Writer) error) error {
	switch a.options.Output {
	case outputJSON:
		var b bytes.Buffer
		if err := json.Indent(&b, document, "", "  "); err != nil {
			return notJSON(err)
		}
		fmt.Fprintln(a.out, strings.TrimRight(b.String(), "\n"))
		return nil
	case outputYAML:
		text, err := toYAML(document)
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	default:
		w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
		if err := table(w); err != nil {
			return err
		}
		return w.Flush()
	}
}

// showValue is show for what this program has put together itself.
func (a *app) showValue(v any, table func(w io.Writer) error) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return a.show(raw, table)
}

func notJSON(err error) error { return fmt.Errorf("the server's answer is not JSON: %w", err) }

// decode reads a document of the server; keys that this release does not know are
// no mistake.
func decode(document []byte, into any) error {
	if err := json.Unmarshal(document, into); err != nil {
		return notJSON(err)
	}
	return nil
}

// toYAML writes a JSON document as YAML, its keys in their order.
func toYAML(document []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	node, err := yamlNode(d)
	if err != nil {
		return nil, notJSON(err)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(node), e.Close()); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return b.Bytes(), nil
}

// yamlNode reads the next value.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, text string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}, nil
	}
	switch v := token.(type) {
	case string:
		return scalar("!!str", v)
	case bool:
		return scalar("!!bool", fmt.Sprint(v))
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return scalar("!!float", v.String())
		}
		return scalar("!!int", v.String())
	case json.Delim:
		node := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if v == '{' {
			node.Kind, node.Tag = yaml.MappingNode, "!!map"
		}
		for d.More() {
			// A key and its value, or an element, are one value after the other.
			child, err := yamlNode(d)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle
		}
		_, err := d.Token()
		return node, err
	default:
		return scalar("!!null", "null")
	}
}

// row prints one line of a table.
func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = cell(c)
	}
	fmt.Fprintln(w, strings.TrimRight(strings.Join(texts, "\t"), "\t"))
}

// cell is a value as a table shows it: on one line, and never empty.
func cell(v any) string {
	text := strings.Join(strings.Fields(strings.Map(printable, fmt.Sprint(v))), " ")
	if text == "" {
		return "-"
	}
	return text
}

// printable keeps what comes from elsewhere from steering the terminal.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return ' '
	}
	return r
}

// title prints a heading between tables.
func title(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "\n"+format+"\n", args...)
}
