package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// asyncAPI returns the contract as an AsyncAPI 3.0 document. It is composed as
// JSON, which keeps the order of schema properties, and then written as YAML.
func (c *contract) asyncAPI() ([]byte, error) {
	channels, err := c.channels()
	if err != nil {
		return nil, err
	}
	operations, err := channels.operations()
	if err != nil {
		return nil, err
	}
	payloads := object{}
	messages := object{}
	for _, m := range c.messages {
		schema := m.schema.CloneSchemas()
		schema.ID, schema.Schema = "", ""
		payloads[m.Type] = schema
		messages[m.Type] = object{
			"name": m.Type, "title": m.schema.Title, "summary": m.schema.Description,
			"contentType": "application/cloudevents+json",
			"payload": object{"allOf": []any{
				reference("schemas", "envelope"),
				object{"type": "object", "properties": object{
					"type": object{"const": m.Type},
					"data": reference("schemas", m.Type),
				}},
			}},
			"examples": []any{object{"payload": m.example}},
		}
	}
	envelope := c.envelope.CloneSchemas()
	envelope.ID, envelope.Schema = "", ""
	payloads["envelope"] = envelope
	return toYAML(object{
		"asyncapi": "3.0.0",
		"info": object{
			"title": "Ringmaster", "version": "1.0.0",
			"description": "What Ringmaster's processes tell each other over NATS JetStream. The record is the truth, a message is a nudge, an event is history: " +
				"any message may be lost, doubled or late. Within v1 fields may be added to events; readers ignore what they do not know.",
			"license": object{"name": "Apache-2.0"},
		},
		"defaultContentType": events.ContentType,
		"channels":           channels.document(),
		"operations":         operations,
		"components":         object{"messages": messages, "schemas": payloads},
		"x-streams":          streamDocument(),
		"x-buckets":          bucketDocument(),
		"x-object-stores":    objectStoreDocument(),
		"x-consumers":        consumerDocument(),
	})
}

// object is a JSON object, written with sorted keys.
type object = map[string]any

func reference(path ...string) object {
	return object{"$ref": "#/components/" + strings.Join(path, "/")}
}

// channel is one pattern of subjects.
type channel struct {
	name, address string
	stream        events.StreamSpec
	messages      []message
}

type channelList []*channel

// channels groups the messages by the subjects that they are published on.
func (c *contract) channels() (channelList, error) {
	var list channelList
	for _, m := range c.messages {
		address := template(events.Address(m.payload))
		at := slices.IndexFunc(list, func(ch *channel) bool { return ch.address == address })
		if at < 0 {
			stream, err := streamOf(address)
			if err != nil {
				return nil, fmt.Errorf("describing %s: %w", m.Type, err)
			}
			at = len(list)
			list = append(list, &channel{name: channelName(address), address: address, stream: stream})
		}
		list[at].messages = append(list[at].messages, m)
	}
	return list, nil
}

// template replaces what the examples have in common by parameters.
func template(address string) string {
	if _, ok := events.ParseScopeSubject(address); ok {
		return strings.TrimSuffix(events.AllScopes, ">") + "{scope}"
	}
	tokens := strings.Split(address, ".")
	for i, token := range tokens {
		text, ok := events.UnescapeToken(token)
		switch {
		case !ok:
		case text == exampleOperation:
			tokens[i] = "{operation_id}"
		case text == exampleTask:
			tokens[i] = "{task_id}"
		case text == events.StreamTasks, strings.HasPrefix(text, events.StreamHintsPrefix):
			tokens[i] = "{stream}"
		case operation.Kind(text).Valid():
			tokens[i] = "{kind}"
		}
	}
	return strings.Join(tokens, ".")
}

// channelName joins the words of an address: ringmaster.event.{id}.task is
// event-task.
func channelName(address string) string {
	words := slices.DeleteFunc(strings.Split(address, ".")[1:], func(t string) bool { return strings.HasPrefix(t, "{") })
	return strings.Join(words, "-")
}

func streamOf(address string) (events.StreamSpec, error) {
	for _, s := range events.Streams() {
		for _, subject := range s.Subjects {
			if strings.HasPrefix(address, strings.TrimSuffix(subject, ">")) {
				return s, nil
			}
		}
	}
	return events.StreamSpec{}, fmt.Errorf("no stream takes %s", address)
}

func (l channelList) document() object {
	channels := object{}
	for _, c := range l {
		messages := object{}
		for _, m := range c.messages {
			messages[m.Type] = reference("messages", m.Type)
		}
		entry := object{
			"address": c.address, "messages": messages,
			"description": "In stream " + c.stream.Name + ". " + c.stream.Reason,
			"x-stream":    c.stream.Name,
		}
		if p := parameters(c.address); len(p) > 0 {
			entry["parameters"] = p
		}
		channels[c.name] = entry
	}
	return channels
}

// parameterDocs says what each parameter of an address is. All of them are
// escaped as events.EscapeToken does.
func parameterDocs() map[string]string {
	return map[string]string{
		"kind":         "The kind of the operation.",
		"operation_id": "The id of the operation, a UUIDv7.",
		"task_id":      "The id of the task.",
		"scope":        "The scope; each segment of its path is a token of its own.",
		"stream":       "The stream that the message lay in.",
	}
}

func parameters(address string) object {
	found := object{}
	for name, doc := range parameterDocs() {
		if strings.Contains(address, "{"+name+"}") {
			found[name] = object{"description": doc}
		}
	}
	return found
}

// role says who sends to a channel and who receives from it.
type role struct{ send, receive string }

func roles() map[string]role {
	views := "Every API process, for its projection and its feeds."
	return map[string]role{
		"command":             {"An API process, with the record written and in one batch with the operation's scopes, before it answers 202.", "The controllers, which list open operations by it."},
		"scope":               {"An API process, in one atomic batch for all scopes of an operation.", "Whoever is refused a scope, to name its holder."},
		"task":                {"The controller of the operation, and its sweep for lost nudges.", "One worker, which then claims the task's record."},
		"event-operation":     {"Whoever has written the operation's record.", views},
		"event-progress":      {"The controller of the operation, at most once a second.", views},
		"event-removal":       {"The `api` that looks after the history.", views},
		"event-task":          {"Whoever has written the task's record.", views},
		"event-stall":         {"The controller of the operation, when it stalls and when it goes on.", views},
		"event-task-progress": {"The worker that holds the task, at most once a second.", views},
		"audit":               {"Whoever has carried out what someone asked for.", "The API, for an operation's audit trail."},
		"deadletter":          {"Whoever was to carry out a message and cannot read it; whoever replays points that their backend refuses.", "Nobody but people."},
	}
}

func (l channelList) operations() (object, error) {
	operations := object{}
	known := roles()
	for _, c := range l {
		r, ok := known[c.name]
		if !ok {
			return nil, fmt.Errorf("nothing says who sends to %s", c.address)
		}
		channel := object{"$ref": "#/channels/" + c.name}
		operations["send-"+c.name] = object{"action": "send", "channel": channel, "summary": r.send}
		operations["receive-"+c.name] = object{"action": "receive", "channel": channel, "summary": r.receive}
	}
	return operations, nil
}

func streamDocument() object {
	streams := object{}
	for _, s := range events.Streams() {
		streams[s.Name] = object{
			"subjects": s.Subjects, "retention": s.Retention.String(),
			"max_messages_per_subject": s.MaxMessagesPerSubject,
			"discard_new":              s.DiscardNew, "discard_new_per_subject": s.DiscardNewPerSubject,
			"max_age_seconds": s.MaxAge.Seconds(), "max_bytes": s.MaxBytes,
			"duplicate_window_seconds": s.DuplicateWindow.Seconds(),
			"atomic_publish":           s.AtomicPublish, "reason": s.Reason,
		}
	}
	return streams
}

func bucketDocument() object {
	buckets := object{}
	for _, b := range events.Buckets() {
		buckets[b.Name] = object{"history": b.History, "ttl_seconds": b.TTL.Seconds(), "reason": b.Reason}
	}
	return buckets
}

func objectStoreDocument() object {
	stores := object{}
	for _, o := range events.ObjectStores() {
		stores[o.Name] = object{"max_bytes": o.MaxBytes, "reason": o.Reason}
	}
	return stores
}

func consumerDocument() object {
	consumers := object{}
	for _, c := range events.Consumers() {
		consumers[c.Name] = object{"stream": c.Stream, "max_ack_pending": c.MaxAckPending, "reason": c.Reason}
	}
	return consumers
}

// toYAML writes a JSON document as YAML in block style, in the same order.
func toYAML(doc object) ([]byte, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing asyncapi.yaml: %w", err)
	}
	var node yaml.Node
	// JSON is YAML, and a node keeps the order of keys.
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, fmt.Errorf("writing asyncapi.yaml: %w", err)
	}
	restyle(&node)
	var b bytes.Buffer
	b.WriteString("# Generated by `go generate ./events`; change the Go source instead.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return nil, fmt.Errorf("writing asyncapi.yaml: %w", err)
	}
	return b.Bytes(), e.Close()
}

func restyle(n *yaml.Node) {
	empty := n.Kind != yaml.ScalarNode && len(n.Content) == 0
	if !empty {
		n.Style = 0
	}
	for _, child := range n.Content {
		restyle(child)
	}
}
