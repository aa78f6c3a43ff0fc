package operations_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/operation"
)

// schemas are the schemas of the kinds, as they are served.
func schemas(t *testing.T) map[operation.Kind]*jsonschema.Resolved {
	t.Helper()
	out := map[operation.Kind]*jsonschema.Resolved{}
	kinds := read[struct {
		Items []struct {
			Kind       operation.Kind
			Parameters *jsonschema.Schema
		}
	}](t, serve(t, httpapitest.NewBackend()).Get("/v1/kinds"))
	for _, k := range kinds.Items {
		resolved, err := k.Parameters.Resolve(nil)
		require.NoError(t, err)
		out[k.Kind] = resolved
	}
	return out
}

// agree: what the schema of a kind admits and refuses is what its parser does.
func agree(t require.TestingT, schema *jsonschema.Resolved, kind operation.Kind, parameters []byte) bool {
	var instance any
	require.NoError(t, json.Unmarshal(parameters, &instance))
	_, parsed := operation.ParseMove(kind, parameters)
	admitted := schema.Validate(instance)
	require.Equal(t, parsed == nil, admitted == nil, "%s %s\nparser: %v\nschema: %v", kind, parameters, parsed, admitted)
	return parsed == nil
}

func TestSchemasAndParsersAgree(t *testing.T) {
	all := schemas(t)
	for _, example := range []struct {
		kind       operation.Kind
		parameters string
		good       bool
	}{
		{operation.KindRebalance, `{"circle_id":0,"operation":"add"}`, true},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1","username":"u","password":"p"}]}`, true},
		{operation.KindRebalance, `{"circle_id":0,"operation":"add","databases":["a"],"workers":1,"batch":5,"depth":"digest"}`, true},
		{operation.KindRebalance, `{"operation":"add"}`, false},
		{operation.KindRebalance, `{"circle_id":0}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"add","databases":"a"}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[{"url":"http://h:1"}]}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"ftp://h:1"}]}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://u:p@h:1"}]}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[{"name":"a","url":"http://h:1?q"}]}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm"}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"rm","removed_backends":[]}`, false},
		{operation.KindRebalance, `{"circle_id":0,"operation":"add","removed_backends":[{"name":"a","url":"http://h:1"}]}`, false},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"backend_urls":["http://a:1","http://b:1/x"]}`, true},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":"2026-07-01T12:00:00.5+02:00"}`, true},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":"2026-07-01T12:00:00Z","since_seconds":0}`, true},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":null,"since_seconds":9}`, true},
		{operation.KindRecovery, `{"from_circle_id":0}`, false},
		{operation.KindRecovery, `{"to_circle_id":1}`, false},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"backend_urls":["http://a:1","http://a:1"]}`, false},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":"2026-07-01"}`, false},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":"1677-12-31T00:00:00Z"}`, false},
		{operation.KindRecovery, `{"from_circle_id":0,"to_circle_id":1,"since":"2262-01-01T00:00:00Z"}`, false},
		{operation.KindResync, `{}`, true},
		{operation.KindResync, `{"since_seconds":3162240000}`, true},
		{operation.KindResync, `{"since_seconds":1,"since":"2026-07-01T12:00:00Z"}`, false},
		{operation.KindResync, `{"circle_id":0}`, false},
		{operation.KindClear, `{"circle_id":1,"older_than_seconds":60}`, true},
		{operation.KindClear, `{"circle_id":1,"depth":"count"}`, false},
		{operation.KindClear, `{}`, false},
		{operation.KindVerify, `{"circle_id":0}`, true},
		{operation.KindVerify, `{"circle_id":0,"against_circle_id":1,"depth":"count","since_seconds":60}`, true},
		{operation.KindVerify, `{"circle_id":0,"repair":true,"repair_from":"against","batch":100}`, true},
		{operation.KindVerify, `{"circle_id":0,"repair":true}`, false},
		{operation.KindVerify, `{"circle_id":0,"repair_from":"circle"}`, false},
		{operation.KindVerify, `{"circle_id":0,"repair":true,"repair_from":"left"}`, false},
		{operation.KindVerify, `{"circle_id":0,"against_circle_id":-1}`, false},
		{operation.KindVerify, `{}`, false},
	} {
		good := agree(t, all[example.kind], example.kind, []byte(example.parameters))
		require.Equal(t, example.good, good, "%s %s", example.kind, example.parameters)
	}
}

// TestSchemasAndParsersAgreeOnAnything puts parameters together out of good and
// bad values of every key, of other kinds' too.
func TestSchemasAndParsersAgreeOnAnything(t *testing.T) {
	all := schemas(t)
	seconds := []any{0, 1, 3600, operation.MaxSeconds, operation.MaxSeconds + 1, -1, "60", 1.5, true}
	removed := func(url any) any { return []any{map[string]any{"name": "a", "url": url}} }
	values := map[string][]any{
		"circle_id":      {0, 1, -1, 1.5, "0", nil},
		"from_circle_id": {0, 2, -1, "0", nil},
		"to_circle_id":   {1, 3, -2, []any{1}, nil},
		"operation":      {"add", "rm", "", "ADD", 1},
		"removed_backends": {
			removed("http://h:1"), removed("https://h/x/"), removed("ftp://h"), removed("http://u@h"), removed("http://h?x=1"), removed("http://h#f"), removed(""), removed(7),
			[]any{},
			[]any{map[string]any{"name": "", "url": "http://h"}},
			[]any{map[string]any{"url": "http://h"}},
			"x",
			[]any{map[string]any{"name": "a", "url": "http://h", "colour": "red"}},
		},
		"backend_urls":       {[]any{}, []any{"http://h:1"}, []any{"http://h:1", "http://h:2"}, []any{"http://h:1", "http://h:1"}, []any{"h:1"}, []any{"/x"}, []any{""}, []any{1}, "http://h:1"},
		"since_seconds":      seconds,
		"older_than_seconds": seconds,
		"since": {
			"2026-07-01T12:00:00Z", "1999-12-31T23:59:59.123456789-08:00", "1678-01-01T00:00:00Z", "2261-12-31T23:59:59Z",
			"1677-01-01T00:00:00Z", "2262-06-01T00:00:00Z", "2026-07-01", "2026-13-01T00:00:00Z", "2026-07-01T24:00:00Z", "2026-07-01T12:00:00", "now", "", 1700000000, nil,
		},
		"databases": {[]any{}, []any{"a"}, []any{"a", "b"}, []any{""}, []any{1}, "a", nil},
		"workers":   {0, 1, operation.MaxWorkers, operation.MaxWorkers + 1, -1, "1"},
		"batch":     {0, 1, operation.MaxBatch, operation.MaxBatch + 1, -1, 0.5},
		"depth":     {"", "count", "digest", "deep", 1},

		"against_circle_id": {0, 1, -1, "1", 0.5, nil},
		"repair":            {true, false, 1, "true"},
		"repair_from":       {"circle", "against", "", "other", 1},
		"unknown":           {1},
	}
	keys := slices.Sorted(maps.Keys(values))
	kinds := []operation.Kind{operation.KindRebalance, operation.KindRecovery, operation.KindResync, operation.KindClear, operation.KindVerify}
	base := map[operation.Kind]map[string]any{
		operation.KindRebalance: {"circle_id": 0, "operation": "add"},
		operation.KindRecovery:  {"from_circle_id": 0, "to_circle_id": 1},
		operation.KindResync:    {},
		operation.KindClear:     {"circle_id": 0},
		operation.KindVerify:    {"circle_id": 0},
	}
	accepted := map[operation.Kind]int{}
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		parameters := maps.Clone(base[kind])
		known := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return all[kind].Schema().Properties[key] == nil && key != "unknown" })
		for _, key := range rapid.SliceOfN(rapid.SampledFrom(known), 0, 3).Draw(t, "keys") {
			parameters[key] = rapid.SampledFrom(values[key]).Draw(t, key)
		}
		if rapid.IntRange(0, 9).Draw(t, "leave one out") == 0 {
			delete(parameters, rapid.SampledFrom(keys).Draw(t, "left out"))
		}
		raw, err := json.Marshal(parameters)
		require.NoError(t, err)
		if agree(t, all[kind], kind, raw) {
			accepted[kind]++
		}
	})
	for _, kind := range kinds {
		require.NotZero(t, accepted[kind], "%s is accepted at times", kind)
	}
}

// TestSubmitEveryKind: what the parser makes of the parameters is what is
// submitted, in one form.
func TestSubmitEveryKind(t *testing.T) {
	moment := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for body, want := range map[string]operation.Move{
		`{"kind":"recovery","parameters":{"to_circle_id":0,"from_circle_id":1,"backend_urls":["http://127.0.0.1:8086"],"since":"2026-06-01T00:00:00Z"}}`: operation.Recovery{
			FromCircleID: 1, BackendURLs: []string{"http://127.0.0.1:8086"}, Since: operation.Since{Since: &moment},
		},
		`{"kind":"resync"}`: operation.Resync{},
		`{"kind":"resync","parameters":{"since_seconds":60,"depth":"count"}}`: operation.Resync{
			Since: operation.Since{SinceSeconds: 60}, Tuning: operation.Tuning{Depth: operation.DepthCount},
		},
		`{"kind":"clear","parameters":{"circle_id":1,"older_than_seconds":5},"dry_run":true}`: operation.Clear{CircleID: 1, OlderThanSeconds: 5},
	} {
		b := httpapitest.NewBackend()
		w := serve(t, b).Do("POST", "/v1/operations", body, httpapitest.JSON())
		require.Equal(t, 202, w.Status, w.Body)
		require.Len(t, b.Submitted(), 1)
		r := b.Submitted()[0]
		move, err := operation.ParseMove(r.Kind, r.Parameters)
		require.NoError(t, err)
		require.Equal(t, want, move)
		canonical, err := json.Marshal(move)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(r.Parameters))
	}
}
