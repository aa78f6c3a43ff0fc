// Package events is the wire contract: every message that Ringmaster's
// processes send each other, one file a message, found by its type string
// "ringmaster.<noun>.<verb>.v1". A message is an Envelope (CloudEvents 1.0 in
// JSON) around one Payload.
//
// Every type has a JSON Schema (Schema) and an example (Example), and all of
// them together make an AsyncAPI document (AsyncAPI). These files are
// generated from the structs and their comments: run `go generate ./events`
// after changing one.
//
// Within v1 fields may be added to events, and readers ignore what they do not
// know. A command is refused when it has a field its reader does not know, so
// that nothing is carried out half understood. Any other change is a v2 beside
// the v1.
package events

//go:generate go run ./internal/gen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// SpecVersion is the version of CloudEvents that an Envelope follows.
const SpecVersion = "1.0"

// ContentType is the only content type of an Envelope's data.
const ContentType = "application/json"

// ErrMalformed is wrapped by every error of Decode about a message that cannot
// be read, whatever is tried: a dead letter.
var ErrMalformed = errors.New("malformed message")

// ErrUnknownType is wrapped by the error of Decode about a well-formed message
// of a type that this release does not know.
var ErrUnknownType = errors.New("unknown message type")

// ErrUnknownField is wrapped, beside ErrMalformed, by the error of Decode about a
// command that a later release has more to say in: this one must not carry it out, but
// another may.
var ErrUnknownField = errors.New("a field that this release does not know")

// Envelope is a message as it lies in a stream: the attributes of CloudEvents
// 1.0, with the payload as data.
type Envelope struct {
	// ID is unique for this message; a message sent again keeps it.
	ID string `json:"id"`
	// Source is the process that made the message, such as "api/7f3c" or
	// "worker/2b81".
	Source string `json:"source"`
	// Type is the message's type string; it selects the schema of Data.
	Type string `json:"type"`
	// SpecVersion is "1.0", the version of CloudEvents.
	SpecVersion string `json:"specversion"`
	// Time is when the message was made, in UTC.
	Time time.Time `json:"time"`
	// Subject is what the message is about: an operation's id, or an
	// operation's and a task's id with a slash between them.
	Subject string `json:"subject,omitempty"`
	// DataContentType is "application/json".
	DataContentType string `json:"datacontenttype"`
	// Data is the payload.
	Data json.RawMessage `json:"data"`
}

// Payload is the data of one message. The types of this package are the only
// ones there are.
type Payload interface {
	// EventType returns the message's type string.
	EventType() string
	// About returns the CloudEvents subject; see Envelope.
	About() string
	// check reports the first thing without which the message means nothing.
	check() error
}

// New wraps a payload. The id and the time are the caller's, so that a message
// sent again after a crash can be the same message. The error says what the
// payload lacks.
func New(id, source string, at time.Time, p Payload) (Envelope, error) {
	if err := p.check(); err != nil {
		return Envelope{}, fmt.Errorf("making %s: %w", p.EventType(), err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return Envelope{}, fmt.Errorf("making %s: %w", p.EventType(), err)
	}
	e := Envelope{
		ID: id, Source: source, Type: p.EventType(), SpecVersion: SpecVersion, Time: at.UTC(),
		Subject: p.About(), DataContentType: ContentType, Data: data,
	}
	if err := e.check(); err != nil {
		return Envelope{}, fmt.Errorf("making %s: %w", e.Type, err)
	}
	return e, nil
}

// Decode reads a message. The payload is one of this package's structs, by
// value. An error wraps ErrMalformed or ErrUnknownType; with ErrUnknownType the
// envelope is valid.
func Decode(raw []byte) (Envelope, Payload, error) {
	var e Envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return Envelope{}, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := e.check(); err != nil {
		return Envelope{}, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	p, err := e.Payload()
	if errors.Is(err, ErrMalformed) {
		return Envelope{}, nil, err
	}
	return e, p, err
}

// Payload reads the envelope's data by its type; errors are those of Decode.
func (e Envelope) Payload() (Payload, error) {
	m, ok := lookup(e.Type)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownType, e.Type)
	}
	p, err := m.decode(e.Data, m.Command)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, e.Type, err)
	}
	return p, nil
}

func (e Envelope) check() error {
	switch {
	case e.ID == "":
		return errors.New("id is missing")
	case e.Source == "":
		return errors.New("source is missing")
	case e.Type == "":
		return errors.New("type is missing")
	case e.SpecVersion != SpecVersion:
		return fmt.Errorf("specversion is %q, not %q", e.SpecVersion, SpecVersion)
	case e.DataContentType != ContentType:
		return fmt.Errorf("datacontenttype is %q, not %q", e.DataContentType, ContentType)
	case e.Time.IsZero():
		return errors.New("time is missing")
	case e.Time.UTC().Year() < 1, e.Time.UTC().Year() > 9999:
		return errors.New("time is out of range")
	case len(e.Data) == 0:
		return errors.New("data is missing")
	}
	return nil
}

// decodeAs reads data as a T; strict refuses fields that T does not have.
func decodeAs[T Payload](data []byte, strict bool) (Payload, error) {
	var p T
	dec := json.NewDecoder(bytes.NewReader(data))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(&p); err != nil {
		if strict {
			if _, lenient := decodeAs[T](data, false); lenient == nil {
				err = fmt.Errorf("%w: %w", ErrUnknownField, err)
			}
		}
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data is followed by more")
	}
	return p, nil
}

// missing names the first empty string of pairs of name and value.
func missing(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return errors.New(pairs[i] + " is missing")
		}
	}
	return nil
}
