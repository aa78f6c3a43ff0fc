package events

import (
	"encoding/json"
	"fmt"

	"ringmaster/pkg/operation"
)

// Command is what the commands of all kinds have in common. It repeats what
// the operation's record says, for readers of the stream; whoever carries the
// command out reads the record.
type Command struct {
	// OperationID is the id of the operation's record, which exists before its
	// command does.
	OperationID string `json:"operation_id"`
	// Kind is the kind of the operation.
	Kind operation.Kind `json:"kind"`
	// Scope names what the operation holds exclusively while it is open, such
	// as "circle/0"; it is empty for a dry run.
	Scope []string `json:"scope"`
	// RequestedBy is the principal that asked for it.
	RequestedBy string `json:"requested_by"`
}

// About returns the operation's id.
func (c Command) About() string { return c.OperationID }

func (c Command) checkKind(want operation.Kind) error {
	if err := missing("operation_id", c.OperationID); err != nil {
		return err
	}
	if c.Kind != want {
		return fmt.Errorf("kind is %q, not %q", c.Kind, want)
	}
	return nil
}

// RequestFor returns the command that asks for op, by its kind. Credentials in
// the record's parameters, sealed or not, stay behind.
func RequestFor(op operation.Operation) (Payload, error) {
	op = op.Public()
	head := Command{OperationID: op.ID, Kind: op.Kind, Scope: op.Scope, RequestedBy: op.RequestedBy}
	if head.Scope == nil {
		head.Scope = []string{}
	}
	var (
		p   Payload
		err error
	)
	switch op.Kind {
	case operation.KindRebalance:
		r := RebalanceRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindRecovery:
		r := RecoveryRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindResync:
		r := ResyncRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindClear:
		r := ClearRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindVerify:
		r := VerifyRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindReindex:
		r := ReindexRequest{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	case operation.KindDeleteMissingSegments:
		r := MissingSegmentsDelete{Command: head}
		err = json.Unmarshal(op.Parameters, &r.Parameters)
		p = r
	default:
		return nil, fmt.Errorf("making the command of %s: kind %q has none", op.ID, op.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("making the command of %s: reading its parameters: %w", op.ID, err)
	}
	return p, nil
}
