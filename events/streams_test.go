package events_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/events"
)

func TestEscapeToken(t *testing.T) {
	t.Parallel()
	for text, token := range map[string]string{
		"":                        "_",
		"rebalance":               "rebalance",
		"delete_missing_segments": "delete_5fmissing_5fsegments",
		"0190-7f3c":               "0190-7f3c",
		"A b":                     "_41_20b",
		"a.b*>":                   "a_2eb_2a_3e",
		"ä":                       "_c3_a4",
		"_":                       "_5f",
	} {
		require.Equal(t, token, events.EscapeToken(text))
	}
	for _, token := range []string{"", "A", "a.b", "_6", "_61", "_2E", "__", "a_", "_zz", " ", "ä"} {
		_, ok := events.UnescapeToken(token)
		require.False(t, ok, "%q", token)
	}
}

func TestTokensAreReversible(t *testing.T) {
	t.Parallel()
	legal := regexp.MustCompile(`^[a-z0-9_-]+$`)
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		token := events.EscapeToken(text)
		if !legal.MatchString(token) {
			t.Fatalf("%q is no token", token)
		}
		if back, ok := events.UnescapeToken(token); !ok || back != text {
			t.Fatalf("%q became %q", text, back)
		}
	})
}

func FuzzUnescapeToken(f *testing.F) {
	for _, seed := range []string{"", "_", "a", "_5f", "_c3_a4", "__", "_g0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if text, ok := events.UnescapeToken(token); ok && events.EscapeToken(text) != token {
			t.Fatalf("%q is read as %q, which is %q", token, text, events.EscapeToken(text))
		}
	})
}

func TestSubjectsAreReversible(t *testing.T) {
	t.Parallel()
	text := rapid.String()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		if kind, operation, ok := events.ParseCommandSubject(events.CommandSubject(a, b)); !ok || kind != a || operation != b {
			t.Fatalf("command %q %q became %q %q", a, b, kind, operation)
		}
		kind, operation, task, ok := events.ParseTaskSubject(events.TaskSubject(a, b, c))
		if !ok || kind != a || operation != b || task != c {
			t.Fatalf("task %q %q %q became %q %q %q", a, b, c, kind, operation, task)
		}
		scope := strings.Join([]string{a, b, c}, "/")
		if back, ok := events.ParseScopeSubject(events.ScopeSubject(scope)); !ok || back != scope {
			t.Fatalf("scope %q became %q", scope, back)
		}
	})
	for _, subject := range []string{"", "ringmaster", "ringmaster.event.a.b", "ringmaster.command.a", "ringmaster.command.a.b.c", "ringmaster.task.a.b", "ringmaster.scope.A", "ringmaster.scope."} {
		_, _, ok := events.ParseCommandSubject(subject)
		require.False(t, ok, subject)
		_, _, _, ok = events.ParseTaskSubject(subject)
		require.False(t, ok, subject)
		_, ok = events.ParseScopeSubject(subject)
		require.False(t, ok, subject)
	}
}

// Subjects are wire format: a changed one is another stream to those who run.
func TestSubjects(t *testing.T) {
	t.Parallel()
	require.Equal(t, "ringmaster.command.rebalance.op-1", events.CommandSubject("rebalance", "op-1"))
	require.Equal(t, "ringmaster.scope.circle.0", events.ScopeSubject("circle/0"))
	require.Equal(t, "ringmaster.scope.index.demo.dst", events.ScopeSubject("index/demo/dst"))
	require.Equal(t, "ringmaster.scope.index.my_2eindex", events.ScopeSubject("index/my.index"))
	require.Equal(t, "ringmaster.task.rebalance.op-1.t-1", events.TaskSubject("rebalance", "op-1", "t-1"))
	require.Equal(t, "ringmaster.task.*.op-1.*", events.OperationTasks("op-1"))
	require.Equal(t, "ringmaster.event.op-1.progress", events.EventSubject("op-1", "progress"))
	require.Equal(t, "ringmaster.event.op-1.*", events.OperationEvents("op-1"))
	require.Equal(t, "ringmaster.audit.op-1", events.AuditSubject("op-1"))
	require.Equal(t, "ringmaster.deadletter._52", events.DeadLetterSubject("R"))
	require.Equal(t, "ringmaster.probe.api", events.ProbeSubject("api"))
}

func TestSpecs(t *testing.T) {
	t.Parallel()
	specs := events.All(3)
	require.Equal(t, 3, specs.Replicas)
	versioned := regexp.MustCompile(`^(RINGMASTER_[A-Z]+_V|ringmaster_[a-z]+_v)[1-9][0-9]*$`)
	names := map[string]bool{}
	check := func(name, reason string) {
		require.Regexp(t, versioned, name)
		require.False(t, names[name], name)
		names[name] = true
		require.NotEmpty(t, reason, name)
	}
	subjects := map[string]string{}
	for _, s := range specs.Streams {
		check(s.Name, s.Reason)
		require.NotEmpty(t, s.Subjects)
		for _, subject := range s.Subjects {
			require.Empty(t, subjects[subject])
			subjects[subject] = s.Name
		}
		require.False(t, s.DiscardNewPerSubject && (!s.DiscardNew || s.MaxMessagesPerSubject == 0), s.Name)
		switch s.Name {
		case events.StreamCommands, events.StreamTasks:
			// Nothing but their owners may remove these.
			require.Zero(t, s.MaxAge, s.Name)
			require.Zero(t, s.MaxBytes, s.Name)
			require.EqualValues(t, 1, s.MaxMessagesPerSubject, s.Name)
			require.True(t, s.DiscardNewPerSubject, s.Name)
		case events.StreamNotes:
			// What is lost there would be taken for untouched.
			require.Zero(t, s.MaxAge, s.Name)
			require.Positive(t, s.MaxBytes, "%s is not bounded", s.Name)
			require.True(t, s.DiscardNew, s.Name)
		default:
			require.Positive(t, s.MaxAge, "%s is not bounded", s.Name)
			require.Positive(t, s.MaxBytes, "%s is not bounded", s.Name)
			require.False(t, s.DiscardNew, s.Name)
		}
	}
	for subject, stream := range map[string]string{
		events.CommandSubject("a", "b"):   events.StreamCommands,
		events.ScopeSubject("circle/0"):   events.StreamCommands,
		events.TaskSubject("a", "b", "c"): events.StreamTasks,
		events.EventSubject("a", "b"):     events.StreamEvents,
		events.AuditSubject("a"):          events.StreamAudit,
		events.DeadLetterSubject("a"):     events.StreamDeadLetters,
		events.ProbeSubject("a"):          events.StreamProbe,
	} {
		prefix := subject[:strings.Index(subject, ".")+1]
		prefix += strings.SplitAfter(subject[len(prefix):], ".")[0]
		require.Equal(t, stream, subjects[prefix+">"], subject)
	}
	for _, b := range specs.Buckets {
		check(b.Name, b.Reason)
		require.Equal(t, b.Name == events.BucketClaims, b.Unsynced, "what is decided by is synced")
		require.EqualValues(t, 1, b.History, "%s could not be listed in one pass", b.Name)
		switch b.Name {
		case events.BucketLeases, events.BucketClaims:
			require.Equal(t, events.LeaseTTL, b.TTL)
		case events.BucketNotices:
			require.Equal(t, 7*24*time.Hour, b.TTL, "longer than any is tried")
		default:
			require.Zero(t, b.TTL, "a record must not vanish")
		}
	}
	for _, o := range specs.Objects {
		check(o.Name, o.Reason)
		require.Positive(t, o.MaxBytes)
	}
	for _, c := range specs.Consumers {
		require.NotEmpty(t, c.Reason)
		require.True(t, names[c.Stream])
		require.Positive(t, c.MaxAckPending)
	}
	require.Equal(t, "limits", events.RetentionLimits.String())
	require.Equal(t, "workqueue", events.RetentionWorkQueue.String())
	require.Equal(t, "retention(7)", events.Retention(7).String())
}

// The streams of hints have names of their own, tell backends apart and never let a
// message go by itself.
func TestHintStreams(t *testing.T) {
	t.Parallel()
	a, b := events.HintStream("http://10.0.0.1:8086", 0), events.HintStream("http://10.0.0.1:8087", 5)
	require.NotEqual(t, a.Name, b.Name)
	require.NotEqual(t, a.Subjects, b.Subjects)
	require.Equal(t, a.Name, events.HintStreamName("http://10.0.0.1:8086"))
	require.Regexp(t, `^RINGMASTER_HINTS_V1_[0-9a-f]{32}$`, a.Name)
	require.Regexp(t, `^ringmaster\.hint\.[0-9a-f]{32}$`, a.Subjects[0])
	require.Regexp(t, `^ringmaster\.hint-closed\.[0-9a-f]{32}$`, events.ClosedHintSubject("http://10.0.0.1:8086"))
	require.Equal(t, "http://10.0.0.1:8086", a.Metadata[events.MetadataBackend])
	require.Equal(t, int64(events.HintsMaxBytes), a.MaxBytes)
	require.Equal(t, int64(5), b.MaxBytes)
	require.Zero(t, a.MaxAge)
	require.True(t, a.DiscardNew)
	require.True(t, a.AtomicPublish)
	require.Zero(t, a.MaxMessagesPerSubject)
}
