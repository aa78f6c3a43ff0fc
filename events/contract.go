package events

import "embed"

//go:embed schemas examples asyncapi.yaml
var generated embed.FS

// Schema returns the JSON Schema (draft 2020-12) of a message's data, by its
// type string.
func Schema(eventType string) ([]byte, bool) { return document("schemas", eventType) }

// Example returns a whole message of the type, envelope included.
func Example(eventType string) ([]byte, bool) { return document("examples", eventType) }

// EnvelopeSchema returns the JSON Schema of an Envelope, its data left open.
func EnvelopeSchema() []byte { return embedded("schemas/envelope.json") }

// AsyncAPI returns the contract as an AsyncAPI 3.0 document in YAML.
func AsyncAPI() []byte { return embedded("asyncapi.yaml") }

func document(dir, eventType string) ([]byte, bool) {
	if _, ok := lookup(eventType); !ok {
		return nil, false
	}
	return embedded(dir + "/" + eventType + ".json"), true
}

// embedded returns a file that is part of the program, so that reading it
// cannot fail: a test reads them all.
func embedded(path string) []byte {
	doc, _ := generated.ReadFile(path)
	return doc
}
