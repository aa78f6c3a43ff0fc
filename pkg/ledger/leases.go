package ledger

import (
	"strconv"
	"strings"

	"ringmaster/events"
)

// The keys of leases, which say who is alive. A lease fences nothing: that is the
// compare-and-set on the record it is about.

const (
	taskLeases      = "task."
	operationLeases = "operation."
	workerLeases    = "worker."
	processLeases   = "process."
	transitionLease = "transition."
	replayLeases    = "replay."
	webhookLease    = "webhook"
)

// The keys of the leases of the two services of which one process at a time runs
// each: the one that removes old operations, and the one that repairs what does not
// fit together.
const (
	RetentionLease = "history"
	SweeperLease   = "sweeper"
)

// OperationLease is the key of the lease of whoever drives an operation.
func OperationLease(id string) string { return operationLeases + events.EscapeToken(id) }

// TaskLease is the key of the claim of whoever carries a task out; see
// bus.Leases.Claims.
func TaskLease(op, task string) string { return TaskLeases(op) + "." + events.EscapeToken(task) }

// TaskLeases is the prefix of the leases of an operation's tasks.
func TaskLeases(op string) string { return taskLeases + events.EscapeToken(op) }

// TaskOfLease is the inverse of TaskLease for the leases of one operation; ok is
// false for any other key.
func TaskOfLease(op, key string) (task string, ok bool) {
	token, ok := strings.CutPrefix(key, TaskLeases(op)+".")
	if !ok {
		return "", false
	}
	return events.UnescapeToken(token)
}

// SubjectOfLease returns the operation, and the task, that a lease's key is about; both
// are empty for the lease of anything else.
func SubjectOfLease(key string) (op, task string) {
	if token, ok := strings.CutPrefix(key, operationLeases); ok {
		op, _ = events.UnescapeToken(token)
		return op, ""
	}
	tokens, ok := strings.CutPrefix(key, taskLeases)
	if !ok {
		return "", ""
	}
	first, second, _ := strings.Cut(tokens, ".")
	if op, ok = events.UnescapeToken(first); !ok {
		return "", ""
	}
	task, _ = events.UnescapeToken(second)
	return op, task
}

// WorkerLease is the key of the lease that says that a worker is there.
func WorkerLease(id string) string { return workerLeases + events.EscapeToken(id) }

// WorkerLeases is the prefix of the leases of workers.
func WorkerLeases() string { return strings.TrimSuffix(workerLeases, ".") }

// WorkerOfLease is the inverse of WorkerLease; ok is false for any other key.
func WorkerOfLease(key string) (id string, ok bool) {
	token, ok := strings.CutPrefix(key, workerLeases)
	if !ok {
		return "", false
	}
	return events.UnescapeToken(token)
}

// WebhookLease is the key of the lease of whoever tells the webhook.
func WebhookLease() string { return webhookLease }

// ProcessLeases is the prefix of the leases that are the sessions of the processes
// that serve requests: each tells which revision of the topology record it works by.
func ProcessLeases() string { return strings.TrimSuffix(processLeases, ".") }

// ProcessLease is the key of the lease of one such process.
func ProcessLease(id string) string { return processLeases + events.EscapeToken(id) }

// TransitionLease is the key of the lease of whoever takes a circle's transition
// its next step.
func TransitionLease(circle int) string { return transitionLease + strconv.Itoa(circle) }

// ReplayLease is the key of the lease of whoever replays the hints of the backend with
// this URL.
func ReplayLease(backendURL string) string { return replayLeases + events.EscapeToken(backendURL) }
