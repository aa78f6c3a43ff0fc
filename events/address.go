package events

// The last tokens of EventSubject: what an operation's events are about.
const (
	NounOperation    = "operation"
	NounRemoval      = "removal"
	NounProgress     = "progress"
	NounStall        = "stall"
	NounTask         = "task"
	NounTaskProgress = "task-progress"
)

// Address returns the subject that a payload is published on.
func Address(p Payload) string {
	switch p := p.(type) {
	case RebalanceRequest:
		return p.address()
	case RecoveryRequest:
		return p.address()
	case ResyncRequest:
		return p.address()
	case VerifyRequest:
		return p.address()
	case ClearRequest:
		return p.address()
	case ReindexRequest:
		return p.address()
	case MissingSegmentsDelete:
		return p.address()
	case ScopeTake:
		return ScopeSubject(p.Scope)
	case TaskRun:
		return TaskSubject(string(p.Kind), p.OperationID, p.TaskID)
	case OperationChange:
		return EventSubject(p.Operation.ID, NounOperation)
	case OperationRemove:
		return EventSubject(p.OperationID, NounRemoval)
	case OperationProgress:
		return EventSubject(p.OperationID, NounProgress)
	case OperationStall:
		return EventSubject(p.OperationID, NounStall)
	case TaskChange:
		return EventSubject(p.OperationID, NounTask)
	case TaskProgress:
		return EventSubject(p.OperationID, NounTaskProgress)
	case AuditRecord:
		return AuditSubject(p.OperationID)
	case MessageReject:
		return DeadLetterSubject(p.Stream)
	case PointsRefuse:
		return DeadLetterSubject(HintStreamName(p.Backend))
	default:
		// Payload is sealed, so this is only a nil or a pointer.
		return ""
	}
}

func (c Command) address() string { return CommandSubject(string(c.Kind), c.OperationID) }
