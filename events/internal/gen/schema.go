package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

const draft = "https://json-schema.org/draft/2020-12/schema"

// contract is everything that is generated, before it is written.
type contract struct {
	envelope *jsonschema.Schema
	messages []message
}

// message is one type of the contract, with its documents.
type message struct {
	events.Message
	schema  *jsonschema.Schema
	payload events.Payload
	example events.Envelope
}

func newContract(c comments) (*contract, error) {
	envelope, err := inferSchema(reflect.TypeFor[events.Envelope](), c, false)
	if err != nil {
		return nil, err
	}
	envelope.ID = "urn:ringmaster:envelope"
	envelope.Properties["specversion"].Const = jsonschema.Ptr[any](events.SpecVersion)
	envelope.Properties["datacontenttype"].Const = jsonschema.Ptr[any](events.ContentType)
	all := &contract{envelope: envelope}
	payloads := examples()
	for i, m := range events.Messages() {
		schema, err := inferSchema(m.Payload, c, m.Command)
		if err != nil {
			return nil, err
		}
		schema.ID = "urn:ringmaster:" + m.Type
		payload, ok := payloads[m.Type]
		if !ok {
			return nil, fmt.Errorf("there is no example of %s", m.Type)
		}
		delete(payloads, m.Type)
		if err := fixKind(schema, payload); err != nil {
			return nil, err
		}
		example, err := events.New(exampleID(i), "api/7f3c", exampleTime, payload)
		if err != nil {
			return nil, fmt.Errorf("making the example of %s: %w", m.Type, err)
		}
		all.messages = append(all.messages, message{m, schema, payload, example})
	}
	for left := range payloads {
		return nil, fmt.Errorf("there is an example of %s, which is no message", left)
	}
	return all, nil
}

// fixKind narrows the kind of an operation's command to the only one that the
// command's type admits.
func fixKind(s *jsonschema.Schema, p events.Payload) error {
	if _, ok := reflect.TypeOf(p).FieldByName(reflect.TypeFor[events.Command]().Name()); !ok {
		return nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("reading the kind of %s: %w", p.EventType(), err)
	}
	var head events.Command
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("reading the kind of %s: %w", p.EventType(), err)
	}
	s.Properties["kind"].Enum = nil
	s.Properties["kind"].Const = jsonschema.Ptr[any](string(head.Kind))
	return nil
}

// inferSchema makes the schema of a struct. A closed one admits no property
// that the struct does not have.
func inferSchema(t reflect.Type, c comments, closed bool) (*jsonschema.Schema, error) {
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: typeSchemas()})
	if err != nil {
		return nil, fmt.Errorf("making the schema of %s: %w", t, err)
	}
	s.Schema = draft
	s.Title = t.Name()
	s.Description = c.ofType(t)
	d := describer{comments: c, closed: closed}
	d.describe(t, s)
	return s, nil
}

// typeSchemas are the schemas of types that reflection alone says too little
// about.
func typeSchemas() map[reflect.Type]*jsonschema.Schema {
	return map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[time.Time]():               {Type: "string", Format: "date-time"},
		reflect.TypeFor[[]byte]():                  {Type: "string", ContentEncoding: "base64"},
		reflect.TypeFor[json.RawMessage]():         {Type: "object"},
		reflect.TypeFor[operation.Kind]():          enum(operation.Kinds()...),
		reflect.TypeFor[operation.State]():         enum(operation.States()...),
		reflect.TypeFor[operation.Phase]():         enum(operation.PhasePlan, operation.PhaseCopy, operation.PhaseDrop, operation.PhaseCompare, operation.PhaseVerify, operation.PhaseDone),
		reflect.TypeFor[operation.TaskState]():     enum(operation.TaskWaiting, operation.TaskRunning, operation.TaskDone, operation.TaskFailed),
		reflect.TypeFor[operation.Depth]():         enum(operation.DepthCount, operation.DepthDigest),
		reflect.TypeFor[operation.Side]():          enum(operation.SideCircle, operation.SideAgainst),
		reflect.TypeFor[operation.RebalanceMode](): enum(operation.RebalanceAdd, operation.RebalanceRemove),
		reflect.TypeFor[events.ReindexOption]():    enum(events.ReindexDocuments, events.ReindexMappingOnly),
	}
}

func enum[T ~string](values ...T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

// describer walks a schema beside the type that it was made from.
type describer struct {
	comments comments
	closed   bool
}

func (d describer) describe(t reflect.Type, s *jsonschema.Schema) {
	switch t.Kind() {
	case reflect.Pointer:
		d.describe(t.Elem(), s)
	case reflect.Slice, reflect.Array:
		if s.Items != nil {
			d.describe(t.Elem(), s.Items)
		}
	case reflect.Map:
		if s.AdditionalProperties != nil {
			d.describe(t.Elem(), s.AdditionalProperties)
		}
	case reflect.Struct:
		d.describeStruct(t, s)
	default: // has no parts
	}
}

func (d describer) describeStruct(t reflect.Type, s *jsonschema.Schema) {
	if s.Properties == nil {
		return
	}
	if !d.closed {
		s.AdditionalProperties = nil
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		property, ok := s.Properties[name]
		if f.Anonymous || !ok {
			continue
		}
		d.describe(f.Type, property)
		if strings.Contains(options, "omit") {
			notNull(property)
		}
		owner := t
		if len(f.Index) > 1 {
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
		}
		property.Description = d.comments.ofField(owner, f.Name)
	}
	if t == reflect.TypeFor[operation.Progress]() {
		// An operation has no phase before it is planned.
		s.Properties["phase"].Enum = append(s.Properties["phase"].Enum, "")
	}
}

// notNull takes null out of the types: a property that is left out when empty
// is never written as null.
func notNull(s *jsonschema.Schema) {
	s.Types = slices.DeleteFunc(s.Types, func(t string) bool { return t == "null" })
	if len(s.Types) == 1 {
		s.Type, s.Types = s.Types[0], nil
	}
}

// indented writes a JSON document as it is committed.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing a document: %w", err)
	}
	return b.Bytes(), nil
}
