package events

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file is the whole of what Ringmaster keeps in JetStream: every stream,
// subject, bucket and object store, each with the reason for its settings. It
// is data only; pkg/bus turns it into the server's configuration, creates what
// is missing and refuses what is incompatible.
//
// Names carry a version suffix, because retention cannot be switched to or from
// work queue once a stream exists: an incompatible change is a new name.

// Stream names.
const (
	StreamCommands    = "RINGMASTER_COMMANDS_V1"
	StreamTasks       = "RINGMASTER_TASKS_V1"
	StreamEvents      = "RINGMASTER_EVENTS_V1"
	StreamAudit       = "RINGMASTER_AUDIT_V1"
	StreamDeadLetters = "RINGMASTER_DEADLETTERS_V1"
	StreamProbe       = "RINGMASTER_PROBE_V1"
	StreamNotes       = "RINGMASTER_NOTES_V1"
)

// StreamHintsPrefix begins the names of the streams of hints, one a backend; see
// HintStream.
const StreamHintsPrefix = "RINGMASTER_HINTS_V1_"

// MetadataBackend is the key under which a stream of hints has its backend's URL in
// its metadata.
const MetadataBackend = "ringmaster.backend"

// HintsMaxBytes is how much one backend's hints hold, compressed, unless a deployment
// sets another bound.
const HintsMaxBytes = 1 << 30

// Bucket names.
const (
	BucketOperations  = "ringmaster_operations_v1"
	BucketTasks       = "ringmaster_tasks_v1"
	BucketIdempotency = "ringmaster_idempotency_v1"
	BucketTopology    = "ringmaster_topology_v1"
	BucketLeases      = "ringmaster_leases_v1"
	BucketNotices     = "ringmaster_notices_v1"
	BucketClaims      = "ringmaster_claims_v1"
)

// ObjectStorePlans holds plans and reports.
const ObjectStorePlans = "ringmaster_plans_v1"

// ConsumerWorkers is the one durable consumer of TASKS; all workers share it.
const ConsumerWorkers = "workers"

// SubjectGrants is where workers ask for what a limit grants them, with a request
// that is stored nowhere: what is granted is known to one process alone, the holder of
// the lease of limits, and ends with it. Operations without a limit ask nothing.
const SubjectGrants = "ringmaster.grant.v1"

// LeaseTTL is how long a lease lives after its last renewal unless a deployment
// sets another value. It bounds how long the work of a dead process lies idle.
const LeaseTTL = 10 * time.Second

// Subject prefixes, one per stream; what follows is escaped token by token.
const (
	prefixCommand    = "ringmaster.command."
	prefixScope      = "ringmaster.scope."
	prefixTask       = "ringmaster.task."
	prefixEvent      = "ringmaster.event."
	prefixAudit      = "ringmaster.audit."
	prefixDeadLetter = "ringmaster.deadletter."
	prefixProbe      = "ringmaster.probe."
	prefixHint       = "ringmaster.hint."
	prefixHintClosed = "ringmaster.hint-closed."
	prefixNote       = "ringmaster.note."
)

// Subject filters, for readers.
const (
	// AllCommands matches the command of every open operation.
	AllCommands = prefixCommand + ">"
	// AllScopes matches every scope lock that is held.
	AllScopes = prefixScope + ">"
	// AllTasks matches every task nudge.
	AllTasks = prefixTask + ">"
	// AllEvents matches every event of every operation.
	AllEvents = prefixEvent + ">"
	// AllAudit matches every audit event.
	AllAudit = prefixAudit + ">"
	// AllDeadLetters matches every dead letter.
	AllDeadLetters = prefixDeadLetter + ">"
	// AllHints matches the hints of every backend.
	AllHints = prefixHint + ">"
	// AllNotes matches the notes of every operation.
	AllNotes = prefixNote + ">"
	// AllClosedHints matches the subjects of hints that are being removed.
	AllClosedHints = prefixHintClosed + ">"
)

// Retention says when a stream gives up a message.
type Retention uint8

const (
	// RetentionLimits keeps messages until a limit of the stream or an explicit
	// delete removes them; reading changes nothing.
	RetentionLimits Retention = iota
	// RetentionWorkQueue removes a message when its consumer acknowledges it.
	RetentionWorkQueue
)

// String is the name that NATS uses for the retention.
func (r Retention) String() string {
	switch r {
	case RetentionLimits:
		return "limits"
	case RetentionWorkQueue:
		return "workqueue"
	default:
		return fmt.Sprintf("retention(%d)", uint8(r))
	}
}

// StreamSpec is what a stream must be. Zero limits mean none. Everything is
// stored in files.
type StreamSpec struct {
	Name      string
	Subjects  []string
	Retention Retention
	// MaxMessagesPerSubject bounds how many messages one subject holds.
	MaxMessagesPerSubject int64
	// DiscardNew refuses new messages at a limit instead of dropping old ones;
	// DiscardNewPerSubject extends that to MaxMessagesPerSubject.
	DiscardNew, DiscardNewPerSubject bool
	MaxAge                           time.Duration
	MaxBytes                         int64
	// DuplicateWindow is how long a message id is remembered; no correctness
	// rests on it.
	DuplicateWindow time.Duration
	// AtomicPublish allows batches that are stored whole or not at all.
	AtomicPublish bool
	// Metadata is kept with the stream, for whoever lists streams.
	Metadata map[string]string
	Reason   string
}

// BucketSpec is what a key-value bucket must be.
type BucketSpec struct {
	Name string
	// History is how many revisions of a key are kept. It is 1 everywhere:
	// pkg/bus lists a bucket in one pass over its messages, which is the list of
	// latest values only if there is nothing else.
	History uint8
	// TTL removes a key that long after its last write; 0 keeps it.
	TTL time.Duration
	// AtomicPublish allows batches that are stored whole or not at all.
	AtomicPublish bool
	// Unsynced answers for a write before it is on disk, where there is one replica;
	// with several each write is in their log first.
	Unsynced bool
	Reason   string
}

// ObjectStoreSpec is what an object store must be.
type ObjectStoreSpec struct {
	Name     string
	MaxBytes int64
	Reason   string
}

// ConsumerSpec is what a durable pull consumer must be: explicit
// acknowledgement, unlimited deliveries (attempts are counted in the task
// record; a bounded consumer would leave an exhausted message in the stream,
// invisible, its subject blocked).
type ConsumerSpec struct {
	Name   string
	Stream string
	// MaxAckPending bounds the nudges that are out at workers at one time.
	MaxAckPending int
	Reason        string
}

// Specs is everything that Ringmaster keeps in JetStream.
type Specs struct {
	// Replicas is the number of servers that hold each part: 1, or 3 in a cluster.
	Replicas  int
	Streams   []StreamSpec
	Buckets   []BucketSpec
	Objects   []ObjectStoreSpec
	Consumers []ConsumerSpec
}

// All returns every spec, for the given number of replicas.
func All(replicas int) Specs {
	return Specs{Replicas: replicas, Streams: Streams(), Buckets: Buckets(), Objects: ObjectStores(), Consumers: Consumers()}
}

// Streams returns the specs of all streams.
func Streams() []StreamSpec {
	const day = 24 * time.Hour
	return []StreamSpec{
		{
			Name:                  StreamCommands,
			Subjects:              []string{AllCommands, AllScopes},
			Retention:             RetentionLimits,
			MaxMessagesPerSubject: 1,
			DiscardNew:            true,
			DiscardNewPerSubject:  true,
			AtomicPublish:         true,
			Reason: "One message per open operation and one per scope it holds, published in one atomic batch. " +
				"The per-subject limit with discard new makes the broker refuse a second holder of a scope. " +
				"A message stays until its operation is terminal and is then deleted by sequence, so the stream " +
				"is the set of open operations and of held locks. Never a MaxAge, a MaxBytes or a purge: " +
				"each would release locks that are held.",
		},
		{
			Name:                  StreamTasks,
			Subjects:              []string{AllTasks},
			Retention:             RetentionWorkQueue,
			MaxMessagesPerSubject: 1,
			DiscardNew:            true,
			DiscardNewPerSubject:  true,
			DuplicateWindow:       2 * time.Minute,
			AtomicPublish:         true,
			Reason: "Nudges to workers, removed when acknowledged. The per-subject guard makes publishing a task " +
				"again (after a crash, by the sweeper) harmless whenever it happens, independent of the duplicate window. " +
				"No age limit: an operation may be paused for weeks. Batches, because each message by itself waits for the disk.",
		},
		{
			Name:            StreamEvents,
			Subjects:        []string{AllEvents},
			Retention:       RetentionLimits,
			MaxAge:          14 * day,
			MaxBytes:        2 << 30,
			DuplicateWindow: 2 * time.Minute,
			AtomicPublish:   true,
			Reason: "History for views, resumable by sequence. Bounded by age and size, dropping the oldest: " +
				"views start from snapshots, and a reader that comes back too late is told of the gap.",
		},
		{
			Name:            StreamAudit,
			Subjects:        []string{AllAudit},
			Retention:       RetentionLimits,
			MaxAge:          400 * day,
			MaxBytes:        1 << 30,
			DuplicateWindow: 2 * time.Minute,
			Reason: "Who did what, for over a year. A stream of its own, so that a flood of progress events " +
				"cannot push it out.",
		},
		{
			Name:            StreamDeadLetters,
			Subjects:        []string{AllDeadLetters},
			Retention:       RetentionLimits,
			MaxAge:          30 * day,
			MaxBytes:        256 << 20,
			DuplicateWindow: 2 * time.Minute,
			Reason: "Messages that nothing can carry out, with the reason. Limits, not work queue: " +
				"a work queue cannot be browsed beside its consumer.",
		},
		{
			Name:                  StreamProbe,
			Subjects:              []string{prefixProbe + ">"},
			Retention:             RetentionLimits,
			MaxMessagesPerSubject: 1,
			MaxAge:                time.Hour,
			MaxBytes:              1 << 20,
			Reason:                "Where the health check writes: the last probe of each process.",
		},
		{
			Name:       StreamNotes,
			Subjects:   []string{prefixNote + ">"},
			Retention:  RetentionLimits,
			DiscardNew: true,
			MaxBytes:   1 << 30,
			Reason: "What clients have written while an operation copied, by operation and round: it is compared once more " +
				"before anybody relies on the copy. Refuses new notes when full, since to lose one would be to believe " +
				"a stale copy; purged when its operation has ended, so never a MaxAge.",
		},
	}
}

// HintStream is what the stream of one backend's hints must be: not in Streams, for
// there is one for each backend, made when it is first seen and removed after the
// backend has gone. The name ends with a hash of the backend's URL, since a URL is
// no name of a stream; the metadata has the URL. maxBytes 0 means HintsMaxBytes.
func HintStream(backendURL string, maxBytes int64) StreamSpec {
	if maxBytes <= 0 {
		maxBytes = HintsMaxBytes
	}
	return StreamSpec{
		Name:            HintStreamName(backendURL),
		Subjects:        []string{HintSubject(backendURL)},
		Retention:       RetentionLimits,
		DiscardNew:      true,
		MaxBytes:        maxBytes,
		DuplicateWindow: 2 * time.Minute,
		AtomicPublish:   true,
		Metadata:        map[string]string{MetadataBackend: backendURL},
		Reason: "Points that wait for the backend " + backendURL + ", in the order in which they were written; read from the " +
			"front and purged up to what has been replayed. Never a MaxAge: acknowledged points would go without a word. " +
			"When full it refuses what is new, and the client is told. Batches, because a frame may need several messages.",
	}
}

// HintStreamName is the name of the stream of a backend's hints.
func HintStreamName(backendURL string) string { return StreamHintsPrefix + hintToken(backendURL) }

// HintSubject is the subject of a backend's hints.
func HintSubject(backendURL string) string { return prefixHint + hintToken(backendURL) }

// ClosedHintSubject is the subject that a stream of hints has while it is being
// removed: nobody publishes on it.
func ClosedHintSubject(backendURL string) string { return prefixHintClosed + hintToken(backendURL) }

// hintToken tells backends apart, by 128 bits of a hash of the URL.
func hintToken(backendURL string) string {
	sum := sha256.Sum256([]byte(backendURL))
	return hex.EncodeToString(sum[:16])
}

// Buckets returns the specs of all key-value buckets.
func Buckets() []BucketSpec {
	return []BucketSpec{
		{
			Name: BucketOperations, History: 1,
			Reason: "Operation records, the truth, changed by compare-and-set only. One revision: what an operation went through is in EVENTS and AUDIT.",
		},
		{
			Name: BucketTasks, History: 1, AtomicPublish: true,
			Reason: "Task records `<operation>.<task>`: attempt, holder, checkpoint. The compare-and-set chain on this record is the fence.",
		},
		{
			Name: BucketIdempotency, History: 1,
			Reason: "Idempotency key to operation id and digest of the body. Kept as long as the operation and removed with it; what a submission that died has left is swept.",
		},
		{
			Name: BucketTopology, History: 1,
			Reason: "Topology epochs, each under its own key, and the pointer to the current one.",
		},
		{
			Name: BucketLeases, History: 1, TTL: LeaseTTL,
			Reason: "Who is alive, but for tasks. The bucket's TTL, never a TTL per key: a key created with one and updated without never expires. In files, so that a restart does not free everything at once.",
		},
		{
			Name: BucketNotices, History: 1, TTL: 7 * 24 * time.Hour,
			Reason: "What the webhook is to be told, and what has come of it: made from the operation's record, so that no crash loses it, and kept after it was sent, so that it is not sent again. A week: longer than it is tried.",
		},
		{
			Name: BucketClaims, History: 1, TTL: LeaseTTL, Unsynced: true,
			Reason: "Which worker is alive that carries a task out; the TTL is that of the leases. Unsynced, because there are several writes a task and " +
				"nothing rests on them: the task record is what makes a task somebody's. A holder whose claim a crash has lost takes it again.",
		},
	}
}

// ObjectStores returns the specs of all object stores.
func ObjectStores() []ObjectStoreSpec {
	return []ObjectStoreSpec{{
		Name: ObjectStorePlans, MaxBytes: 4 << 30,
		Reason: "Plans and verification reports in compressed chunks: a million slices are about 5 MB, more than a message holds. Refuses new objects when full.",
	}}
}

// Consumers returns the specs of all durable consumers.
func Consumers() []ConsumerSpec {
	return []ConsumerSpec{{
		Name: ConsumerWorkers, Stream: StreamTasks, MaxAckPending: 8192,
		Reason: "All workers fetch one nudge per free slot from it. Created in one place only, because overlapping consumers of a work queue have slipped past the server before.",
	}}
}

// CommandSubject is the subject of an operation's command.
func CommandSubject(kind, operation string) string {
	return prefixCommand + EscapeToken(kind) + "." + EscapeToken(operation)
}

// ScopeSubject is the subject of a scope's lock. Each segment of the path
// (`circle/0`, `index/demo/dst`) is one token.
func ScopeSubject(scope string) string {
	segments := strings.Split(scope, "/")
	for i, s := range segments {
		segments[i] = EscapeToken(s)
	}
	return prefixScope + strings.Join(segments, ".")
}

// ParseScopeSubject is the inverse of ScopeSubject; ok is false for any other
// subject.
func ParseScopeSubject(subject string) (scope string, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefixScope)
	if !ok {
		return "", false
	}
	tokens := strings.Split(rest, ".")
	for i, t := range tokens {
		if tokens[i], ok = UnescapeToken(t); !ok {
			return "", false
		}
	}
	return strings.Join(tokens, "/"), true
}

// ParseCommandSubject is the inverse of CommandSubject; ok is false for any
// other subject.
func ParseCommandSubject(subject string) (kind, operation string, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefixCommand)
	if !ok {
		return "", "", false
	}
	tokens := strings.Split(rest, ".")
	if len(tokens) != 2 {
		return "", "", false
	}
	kind, okKind := UnescapeToken(tokens[0])
	operation, okOp := UnescapeToken(tokens[1])
	return kind, operation, okKind && okOp
}

// TaskSubject is the subject of a task's nudge.
func TaskSubject(kind, operation, task string) string {
	return prefixTask + EscapeToken(kind) + "." + EscapeToken(operation) + "." + EscapeToken(task)
}

// ParseTaskSubject is the inverse of TaskSubject; ok is false for any other
// subject.
func ParseTaskSubject(subject string) (kind, operation, task string, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefixTask)
	if !ok {
		return "", "", "", false
	}
	tokens := strings.Split(rest, ".")
	if len(tokens) != 3 {
		return "", "", "", false
	}
	for i, t := range tokens {
		if tokens[i], ok = UnescapeToken(t); !ok {
			return "", "", "", false
		}
	}
	return tokens[0], tokens[1], tokens[2], true
}

// OperationTasks matches the nudges of one operation's tasks, of any kind.
func OperationTasks(operation string) string {
	return prefixTask + "*." + EscapeToken(operation) + ".*"
}

// EventSubject is the subject of an operation's events about one noun
// (`operation`, `task`, `progress`, …).
func EventSubject(operation, noun string) string {
	return prefixEvent + EscapeToken(operation) + "." + EscapeToken(noun)
}

// OperationEvents matches all events of one operation.
func OperationEvents(operation string) string {
	return prefixEvent + EscapeToken(operation) + ".*"
}

// AuditSubject is the subject of the audit events of one operation.
func AuditSubject(operation string) string {
	return prefixAudit + EscapeToken(operation)
}

// DeadLetterSubject is the subject of a dead letter; source names the stream
// that it came from.
func DeadLetterSubject(source string) string {
	return prefixDeadLetter + EscapeToken(source)
}

// NoteSubject is where the notes of one round of an operation are.
func NoteSubject(operation string, round int) string {
	return prefixNote + EscapeToken(operation) + "." + strconv.Itoa(round)
}

// NoteSubjects matches the notes of all rounds of an operation.
func NoteSubjects(operation string) string { return prefixNote + EscapeToken(operation) + ".>" }

// ParseNoteSubject returns the operation that a subject of notes belongs to; ok is
// false for any other subject.
func ParseNoteSubject(subject string) (operation string, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefixNote)
	if !ok {
		return "", false
	}
	token, _, ok := strings.Cut(rest, ".")
	if !ok {
		return "", false
	}
	return UnescapeToken(token)
}

// ProbeSubject is where the process of this name writes its health probe.
func ProbeSubject(name string) string {
	return prefixProbe + EscapeToken(name)
}

// EscapeToken makes one subject token or key token of any text, reversibly:
// lower-case letters, digits and the hyphen stay, every other byte becomes an
// underscore and two hexadecimal digits, and the empty text an underscore alone.
func EscapeToken(s string) string {
	if s == "" {
		return "_"
	}
	const digits = "0123456789abcdef"
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = isTokenByte(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isTokenByte(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// UnescapeToken is the inverse of EscapeToken; ok is false for what
// EscapeToken never makes.
func UnescapeToken(token string) (s string, ok bool) {
	if token == "_" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		if isTokenByte(c) {
			b.WriteByte(c)
			continue
		}
		if c != '_' || i+2 >= len(token) {
			return "", false
		}
		hi, okHi := hexDigit(token[i+1])
		lo, okLo := hexDigit(token[i+2])
		if c = hi<<4 | lo; !okHi || !okLo || isTokenByte(c) {
			return "", false
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), token != ""
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	default:
		return 0, false
	}
}
