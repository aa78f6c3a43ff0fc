// Gen writes the generated files of package events: a JSON Schema and an
// example for every message, and the AsyncAPI document. It is run in the
// directory of package events, by `go generate ./events`.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run writes every document below root, the directory of package events, and
// removes generated files that are no longer part of the contract.
func run(root string) error {
	documents, err := generate(root)
	if err != nil {
		return err
	}
	stale, err := leftovers(root, documents)
	if err != nil {
		return err
	}
	for _, path := range stale {
		if err := os.Remove(filepath.Join(root, path)); err != nil {
			return fmt.Errorf("removing what is no longer generated: %w", err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		if err := os.WriteFile(filepath.Join(root, path), documents[path], 0o644); err != nil { //nolint:gosec // part of the source, for everyone to read
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}

// generate returns every generated file by its path below root. It depends on
// nothing but the source, so the same source gives the same bytes.
func generate(root string) (map[string][]byte, error) {
	comments, err := readComments(root, filepath.Join(root, "..", "pkg", "operation"))
	if err != nil {
		return nil, err
	}
	contract, err := newContract(comments)
	if err != nil {
		return nil, err
	}
	documents := map[string][]byte{}
	if documents["schemas/envelope.json"], err = indented(contract.envelope); err != nil {
		return nil, err
	}
	for _, m := range contract.messages {
		if documents["schemas/"+m.Type+".json"], err = indented(m.schema); err != nil {
			return nil, err
		}
		if documents["examples/"+m.Type+".json"], err = indented(m.example); err != nil {
			return nil, err
		}
	}
	if documents["asyncapi.yaml"], err = contract.asyncAPI(); err != nil {
		return nil, err
	}
	return documents, nil
}

// leftovers lists the files in the generated directories that are not among
// the documents.
func leftovers(root string, documents map[string][]byte) ([]string, error) {
	var stale []string
	for _, dir := range []string{"schemas", "examples"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			return nil, fmt.Errorf("looking for what is no longer generated: %w", err)
		}
		for _, e := range entries {
			if path := dir + "/" + e.Name(); documents[path] == nil {
				stale = append(stale, path)
			}
		}
	}
	return stale, nil
}
