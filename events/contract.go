package events

import "embed"

//go:embed schemas examples asyncapi.yaml
var generated embed.FS

// Schema returns the JSON Schema (draft 2020-12) of a message's data, by its
// type string.
func Schema(eventType string) ([]byte, bool) { return document("schemas", eventType) }

// Example returns a whole message of the type, envelope included.
func Example(eventType string) ([]byte, bool) { return document("examples", eventType) }

// AsyncAPI returns the contract as an AsyncAPI 3.0 document in YAML.
func AsyncAPI() []byte {
	// The file is part of the program, so reading it cannot fail.
	doc, _ := generated.ReadFile("asyncapi.yaml")
	return doc
}

func document(dir, eventType string) ([]byte, bool) {
	if _, ok := lookup(eventType); !ok {
		return nil, false
	}
	doc, err := generated.ReadFile(dir + "/" + eventType + ".json")
	return doc, err == nil
}
