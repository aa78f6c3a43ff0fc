package events_test

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

var at = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.FixedZone("CET", 3600))

func TestNewWritesTheAttributesOfCloudEvents(t *testing.T) {
	e, err := events.New("id-1", "api/1", at, events.TaskRun{
		OperationID: "op", TaskID: "task", Kind: operation.KindRebalance, Phase: operation.PhaseCopy,
	})
	require.NoError(t, err)
	raw, err := json.Marshal(e)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"id": "id-1", "source": "api/1", "type": "ringmaster.task.run.v1", "specversion": "1.0",
		"time": "2026-03-04T04:06:07Z", "subject": "op/task", "datacontenttype": "application/json",
		"data": {"operation_id": "op", "task_id": "task", "kind": "rebalance", "phase": "copy"}
	}`, string(raw))
}

func TestNewRefusesWhatDecodeWouldRefuse(t *testing.T) {
	whole := events.ScopeTake{OperationID: "op", Scope: "circle/0"}
	for name, c := range map[string]struct {
		id, source string
		at         time.Time
		payload    events.Payload
		want       string
	}{
		"no id":           {"", "api/1", at, whole, "id is missing"},
		"no source":       {"id", "", at, whole, "source is missing"},
		"no time":         {"id", "api/1", time.Time{}, whole, "time is missing"},
		"no scope":        {"id", "api/1", at, events.ScopeTake{OperationID: "op"}, "scope is missing"},
		"no operation":    {"id", "api/1", at, events.ScopeTake{Scope: "circle/0"}, "operation_id is missing"},
		"no revision":     {"id", "api/1", at, events.OperationChange{Operation: operation.Operation{ID: "op", Kind: "rebalance", State: "queued"}}, "revision is missing"},
		"no seq":          {"id", "api/1", at, events.OperationProgress{OperationID: "op"}, "seq is missing"},
		"task no rev":     {"id", "api/1", at, events.TaskChange{OperationID: "op", TaskID: "t", State: "done"}, "revision is missing"},
		"task no seq":     {"id", "api/1", at, events.TaskProgress{OperationID: "op", TaskID: "t"}, "seq is missing"},
		"audit no time":   {"id", "api/1", at, events.AuditRecord{}, "at is missing"},
		"reject no cause": {"id", "api/1", at, events.MessageReject{}, "reason is missing"},
		"refuse nobody":   {"id", "api/1", at, events.PointsRefuse{}, "backend is missing"},
		"wrong kind": {"id", "api/1", at, events.ResyncRequest{
			Command: events.Command{OperationID: "op", Kind: operation.KindRebalance},
		}, `kind is "rebalance", not "resync"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := events.New(c.id, c.source, c.at, c.payload)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDecodeRefusesMalformedMessages(t *testing.T) {
	whole := `{"id":"1","source":"s","type":"ringmaster.scope.take.v1","specversion":"1.0","time":"2026-03-04T05:06:07Z",` +
		`"datacontenttype":"application/json","data":{"operation_id":"op","scope":"circle/0"}}`
	_, payload, err := events.Decode([]byte(whole))
	require.NoError(t, err)
	require.Equal(t, events.ScopeTake{OperationID: "op", Scope: "circle/0"}, payload)

	for name, edit := range map[string][2]string{
		"empty":            {whole, ""},
		"not JSON":         {whole, "{"},
		"more behind it":   {whole, whole + "{}"},
		"no id":            {`"id":"1",`, ``},
		"other version":    {`"specversion":"1.0"`, `"specversion":"0.3"`},
		"other content":    {`application/json`, `text/plain`},
		"no data":          {`,"data":{"operation_id":"op","scope":"circle/0"}`, ``},
		"data null":        {`{"operation_id":"op","scope":"circle/0"}`, `null`},
		"data a list":      {`{"operation_id":"op","scope":"circle/0"}`, `[]`},
		"empty scope":      {`circle/0`, ``},
		"number for text":  {`"circle/0"`, `0`},
		"unknown key":      {`"scope":`, `"urgent":true,"scope":`},
		"no time":          {`"time":"2026-03-04T05:06:07Z",`, ``},
		"a time too early": {`2026-03-04T05:06:07Z`, `0001-01-01T00:00:01+23:00`},
	} {
		t.Run(name, func(t *testing.T) {
			_, payload, err := events.Decode([]byte(strings.Replace(whole, edit[0], edit[1], 1)))
			require.ErrorIs(t, err, events.ErrMalformed)
			require.NotErrorIs(t, err, events.ErrUnknownType)
			require.Nil(t, payload)
		})
	}
}

func TestDecodeTellsAnUnknownTypeFromAMalformedMessage(t *testing.T) {
	raw := strings.Replace(string(example(t, events.TypeTaskRun)), events.TypeTaskRun, "ringmaster.task.run.v2", 1)
	e, payload, err := events.Decode([]byte(raw))
	require.ErrorIs(t, err, events.ErrUnknownType)
	require.NotErrorIs(t, err, events.ErrMalformed)
	require.Nil(t, payload)
	require.Equal(t, "ringmaster.task.run.v2", e.Type)
}

func TestEventsMayGainFields(t *testing.T) {
	for _, m := range events.Messages() {
		raw := strings.Replace(string(example(t, m.Type)), `"data": {`, `"data": {"of_a_later_release": 1,`, 1)
		_, _, err := events.Decode([]byte(raw))
		if m.Command {
			require.ErrorIs(t, err, events.ErrMalformed, m.Type)
		} else {
			require.NoError(t, err, m.Type)
		}
	}
}

func TestEveryTypeFollowsTheNamingRule(t *testing.T) {
	rule := regexp.MustCompile(`^ringmaster\.[a-z]+(-[a-z]+)*\.[a-z]+\.v[1-9][0-9]*$`)
	seen := map[string]bool{}
	for _, m := range events.Messages() {
		require.Regexp(t, rule, m.Type)
		require.False(t, seen[m.Type], "%s is there twice", m.Type)
		seen[m.Type] = true
	}
	require.Len(t, seen, 18)
}

func TestEveryExampleFollowsItsSchema(t *testing.T) {
	envelope := resolve(t, events.EnvelopeSchema())
	for _, m := range events.Messages() {
		t.Run(m.Type, func(t *testing.T) {
			raw, ok := events.Schema(m.Type)
			require.True(t, ok)
			var message map[string]any
			require.NoError(t, json.Unmarshal(example(t, m.Type), &message))
			require.NoError(t, envelope.Validate(message))
			require.NoError(t, resolve(t, raw).Validate(message["data"]))
		})
	}
}

func TestEveryTypeRoundTrips(t *testing.T) {
	for _, m := range events.Messages() {
		t.Run(m.Type, func(t *testing.T) {
			raw := example(t, m.Type)
			e, payload, err := events.Decode(raw)
			require.NoError(t, err)
			require.Equal(t, m.Type, payload.EventType())
			require.Equal(t, m.Payload, reflect.TypeOf(payload))
			again, err := events.New(e.ID, e.Source, e.Time, payload)
			require.NoError(t, err)
			written, err := json.Marshal(again)
			require.NoError(t, err)
			require.JSONEq(t, string(raw), string(written))
		})
	}
}

func TestEveryMessageIsPublishedWhereAStreamTakesIt(t *testing.T) {
	addresses := map[string]bool{}
	for _, m := range events.Messages() {
		_, payload, err := events.Decode(example(t, m.Type))
		require.NoError(t, err)
		address := events.Address(payload)
		taken := 0
		for _, s := range events.Streams() {
			for _, subject := range s.Subjects {
				if strings.HasPrefix(address, strings.TrimSuffix(subject, ">")) {
					taken++
				}
			}
		}
		require.Equal(t, 1, taken, "%s goes to %q", m.Type, address)
		require.False(t, addresses[address], "two messages go to %q", address)
		addresses[address] = true
	}
}

func TestUnknownTypesHaveNoDocuments(t *testing.T) {
	for _, name := range []string{"", "envelope", "../asyncapi.yaml", "ringmaster.task.run.v2"} {
		_, ok := events.Schema(name)
		require.False(t, ok, name)
		_, ok = events.Example(name)
		require.False(t, ok, name)
	}
}

func TestNoSchemaHasRoomForCredentials(t *testing.T) {
	for _, m := range events.Messages() {
		raw, _ := events.Schema(m.Type)
		var schema any
		require.NoError(t, json.Unmarshal(raw, &schema))
		forbidden := regexp.MustCompile(`(?i)^(user(name)?|pass(word)?|sealed|token|secret|credentials?)$`)
		eachProperty(schema, func(name string) {
			require.NotRegexp(t, forbidden, name, m.Type)
		})
	}
}

func eachProperty(schema any, visit func(name string)) {
	switch s := schema.(type) {
	case map[string]any:
		if properties, ok := s["properties"].(map[string]any); ok {
			for name := range properties {
				visit(name)
			}
		}
		for _, v := range s {
			eachProperty(v, visit)
		}
	case []any:
		for _, v := range s {
			eachProperty(v, visit)
		}
	}
}

// record is a rebalance with everything in it that must not be shown.
func record() operation.Operation {
	return operation.Operation{
		ID: "op", Kind: operation.KindRebalance, State: operation.Queued, Scope: []string{"circle/0"},
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"rm","removed_backends":[` +
			`{"name":"b","url":"http://b:8086","username":"hidden-user","password":"hidden-password","sealed":"hidden-seal"}],"workers":2}`),
		RequestedBy: "admin",
	}
}

func TestNoMessageShowsCredentials(t *testing.T) {
	request, err := events.RequestFor(record())
	require.NoError(t, err)
	for _, p := range []events.Payload{request, events.OperationChange{Operation: record(), Revision: 1}} {
		e, err := events.New("id", "api/1", at, p)
		require.NoError(t, err)
		require.NotContains(t, string(e.Data), "hidden")
		require.Contains(t, string(e.Data), "http://b:8086")
	}
}

func TestRequestForEveryKind(t *testing.T) {
	for _, m := range events.Messages() {
		if _, ok := m.Payload.FieldByName("Parameters"); !ok {
			continue
		}
		var body struct {
			Data struct {
				events.Command
				Parameters json.RawMessage `json:"parameters"`
			} `json:"data"`
		}
		require.NoError(t, json.Unmarshal(example(t, m.Type), &body))
		t.Run(string(body.Data.Kind), func(t *testing.T) {
			_, want, err := events.Decode(example(t, m.Type))
			require.NoError(t, err)
			got, err := events.RequestFor(operation.Operation{
				ID: body.Data.OperationID, Kind: body.Data.Kind, Scope: body.Data.Scope,
				RequestedBy: body.Data.RequestedBy, Parameters: body.Data.Parameters,
			})
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	for _, kind := range operation.Kinds() {
		_, err := events.RequestFor(operation.Operation{ID: "op", Kind: kind, Parameters: json.RawMessage(`{}`)})
		require.NoError(t, err, kind)
	}
}

func TestRequestForRefusesWhatIsNoCommand(t *testing.T) {
	_, err := events.RequestFor(operation.Operation{ID: "op", Kind: "clean"})
	require.ErrorContains(t, err, `kind "clean" has none`)
	_, err = events.RequestFor(operation.Operation{ID: "op", Kind: operation.KindResync, Parameters: json.RawMessage(`[]`)})
	require.ErrorContains(t, err, "reading its parameters")
}

func TestTaskEventsCountFinishedSlices(t *testing.T) {
	task := operation.Task{
		ID: "t", OperationID: "op", State: operation.TaskRunning, Attempt: 3,
		Slices: make([]operation.Slice, 4),
		Checkpoint: operation.Checkpoint{
			{State: operation.SliceCopied}, {State: operation.SliceFailed}, {State: operation.SliceHandedOver}, {},
		},
	}
	p := events.TaskProgressed(task, 5)
	require.Equal(t, operation.Done{Total: 4, Done: 3}, p.Slices)
	require.Equal(t, []operation.Wait{}, p.Waits)
	require.Equal(t, []operation.Wait{}, events.TaskChanged(task, 1).Waits)
}

func TestRejectedIsBounded(t *testing.T) {
	long := make([]byte, events.MaxRejectedPayload+1)
	m := events.Rejected("too long", events.StreamTasks, "ringmaster.task.x", 9, long)
	require.Len(t, m.Payload, events.MaxRejectedPayload)
	require.True(t, m.Truncated)
	m = events.Rejected("empty", events.StreamTasks, "ringmaster.task.x", 9, nil)
	require.NotNil(t, m.Payload)
	require.False(t, m.Truncated)
}

func FuzzDecode(f *testing.F) {
	for _, m := range events.Messages() {
		raw, _ := events.Example(m.Type)
		f.Add(raw)
	}
	f.Add([]byte(`{"id":"1","source":"s","type":"t","specversion":"1.0","time":"9999-12-31T23:59:59-23:00","datacontenttype":"application/json","data":0}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, payload, err := events.Decode(raw)
		if err != nil {
			require.Nil(t, payload)
			return
		}
		// What was read can be written, and reads the same the second time.
		first, err := events.New(e.ID, e.Source, e.Time, payload)
		require.NoError(t, err)
		written, err := json.Marshal(first)
		require.NoError(t, err)
		_, again, err := events.Decode(written)
		require.NoError(t, err)
		require.Equal(t, payload.EventType(), again.EventType())
		require.Equal(t, payload.About(), again.About())
		require.Equal(t, events.Address(payload), events.Address(again))
	})
}

func example(t *testing.T, eventType string) []byte {
	t.Helper()
	raw, ok := events.Example(eventType)
	require.True(t, ok, "%s has no example", eventType)
	return raw
}

func resolve(t *testing.T, raw []byte) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	require.NoError(t, json.Unmarshal(raw, &s))
	resolved, err := s.Resolve(nil)
	require.NoError(t, err)
	return resolved
}

// Refused points are all kept, in as many dead letters as they need.
func TestRefusedPointsAreCut(t *testing.T) {
	t.Parallel()
	long := make([]byte, 2*events.MaxRefusedLines+1)
	for i := range long {
		long[i] = byte(i)
	}
	for size, pieces := range map[int]int{0: 1, 1: 1, events.MaxRefusedLines: 1, events.MaxRefusedLines + 1: 2, len(long): 3} {
		var joined []byte
		all := events.PointsRefuse{Backend: "http://x", Reason: "no", Lines: long[:size]}.Cut()
		require.Len(t, all, pieces)
		for i, p := range all {
			require.Equal(t, [2]int{i + 1, pieces}, [2]int{p.Piece, p.Pieces})
			require.LessOrEqual(t, len(p.Lines), events.MaxRefusedLines)
			joined = append(joined, p.Lines...)
		}
		require.Equal(t, long[:size], append([]byte{}, joined...))
	}
}
