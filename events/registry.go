package events

import (
	"reflect"
	"slices"
	"strings"
)

// Message describes one type of the contract.
type Message struct {
	// Type is the type string.
	Type string
	// Command is true for what asks for something to be done, false for what
	// tells that something has happened.
	Command bool
	// Payload is the struct of the message's data.
	Payload reflect.Type

	decode func(data []byte, strict bool) (Payload, error)
}

// Messages lists every message of the contract, by type string.
func Messages() []Message {
	all := []Message{
		command[RebalanceRequest](),
		command[RecoveryRequest](),
		command[ResyncRequest](),
		command[ClearRequest](),
		command[VerifyRequest](),
		command[ReindexRequest](),
		command[MissingSegmentsDelete](),
		command[ScopeTake](),
		command[TaskRun](),
		event[OperationChange](),
		event[OperationProgress](),
		event[OperationRemove](),
		event[OperationStall](),
		event[TaskChange](),
		event[TaskProgress](),
		event[AuditRecord](),
		event[MessageReject](),
		event[PointsRefuse](),
	}
	slices.SortFunc(all, func(a, b Message) int { return strings.Compare(a.Type, b.Type) })
	return all
}

func command[T Payload]() Message {
	m := event[T]()
	m.Command = true
	return m
}

func event[T Payload]() Message {
	var zero T
	return Message{Type: zero.EventType(), Payload: reflect.TypeFor[T](), decode: decodeAs[T]}
}

// byType is the compiled form of Messages.
var byType = func() map[string]Message {
	table := map[string]Message{}
	for _, m := range Messages() {
		table[m.Type] = m
	}
	return table
}()

func lookup(eventType string) (Message, bool) {
	m, ok := byType[eventType]
	return m, ok
}
