package events

// TypeMessageReject is the type string of MessageReject.
const TypeMessageReject = "ringmaster.message.reject.v1"

// MaxRejectedPayload is how many bytes of a rejected message a MessageReject
// keeps, so that it stays below the largest message itself.
const MaxRejectedPayload = 64 << 10

// MessageReject is a dead letter: a message that no one can carry out, with
// what is wrong with it.
type MessageReject struct {
	// Reason says what is wrong, for a person.
	Reason string `json:"reason"`
	// Stream is the stream that the message lay in.
	Stream string `json:"stream"`
	// Subject is the subject that it was published on.
	Subject string `json:"subject"`
	// Sequence is its number in the stream; 0 when it is not known.
	Sequence uint64 `json:"sequence,omitempty"`
	// Payload is the message, cut off after 64 KiB.
	Payload []byte `json:"payload"`
	// Truncated is true when the payload was cut off.
	Truncated bool `json:"truncated,omitempty"`
}

// Rejected returns the dead letter for a message; the payload is shared, not
// copied.
func Rejected(reason, stream, subject string, sequence uint64, payload []byte) MessageReject {
	m := MessageReject{Reason: reason, Stream: stream, Subject: subject, Sequence: sequence, Payload: payload}
	if len(payload) > MaxRejectedPayload {
		m.Payload, m.Truncated = payload[:MaxRejectedPayload], true
	}
	if m.Payload == nil {
		m.Payload = []byte{}
	}
	return m
}

// EventType returns TypeMessageReject.
func (MessageReject) EventType() string { return TypeMessageReject }

// About returns an empty string: the message could not be read.
func (MessageReject) About() string { return "" }

func (m MessageReject) check() error {
	return missing("reason", m.Reason, "stream", m.Stream, "subject", m.Subject)
}
