package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"ringmaster/events"
)

// root is the directory of package events, seen from here.
const root = "../.."

func TestGeneratedFilesAreCommitted(t *testing.T) {
	documents, err := generate(root)
	require.NoError(t, err)
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		committed, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.Equal(t, string(documents[path]), string(committed), "%s is stale: run go generate ./events", path)
	}
	stale, err := leftovers(root, documents)
	require.NoError(t, err)
	require.Empty(t, stale, "no longer generated: run go generate ./events")
	require.Equal(t, documents["asyncapi.yaml"], events.AsyncAPI())
}

func TestGenerateIsDeterministic(t *testing.T) {
	first, err := generate(root)
	require.NoError(t, err)
	for range 5 {
		again, err := generate(root)
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

func TestRunRemovesWhatIsNoLongerGenerated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	for _, sub := range []string{"schemas", "examples", "../pkg/operation"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	old := filepath.Join(dir, "schemas", "ringmaster.old.thing.v1.json")
	require.NoError(t, os.WriteFile(old, []byte("{}"), 0o600))
	require.NoError(t, run(dir))
	require.NoFileExists(t, old)
	require.FileExists(t, filepath.Join(dir, "asyncapi.yaml"))
}

func TestAsyncAPIDocument(t *testing.T) {
	var doc struct {
		AsyncAPI string `yaml:"asyncapi"`
		Channels map[string]struct {
			Address    string
			Messages   map[string]any
			Parameters map[string]any
		}
		Operations map[string]struct {
			Action, Summary string
		}
		Components struct {
			Messages, Schemas map[string]any
		}
		Streams map[string]any `yaml:"x-streams"`
		Buckets map[string]any `yaml:"x-buckets"`
	}
	require.NoError(t, yaml.Unmarshal(events.AsyncAPI(), &doc))
	require.Equal(t, "3.0.0", doc.AsyncAPI)

	addresses := map[string]string{}
	for _, c := range doc.Channels {
		require.Len(t, c.Parameters, strings.Count(c.Address, "{"), c.Address)
		for name := range c.Messages {
			addresses[name] = c.Address
		}
	}
	require.Equal(t, map[string]string{
		events.TypeRebalanceRequest:      "ringmaster.command.{kind}.{operation_id}",
		events.TypeRecoveryRequest:       "ringmaster.command.{kind}.{operation_id}",
		events.TypeResyncRequest:         "ringmaster.command.{kind}.{operation_id}",
		events.TypeClearRequest:          "ringmaster.command.{kind}.{operation_id}",
		events.TypeVerifyRequest:         "ringmaster.command.{kind}.{operation_id}",
		events.TypeReindexRequest:        "ringmaster.command.{kind}.{operation_id}",
		events.TypeMissingSegmentsDelete: "ringmaster.command.{kind}.{operation_id}",
		events.TypeScopeTake:             "ringmaster.scope.{scope}",
		events.TypeTaskRun:               "ringmaster.task.{kind}.{operation_id}.{task_id}",
		events.TypeOperationChange:       "ringmaster.event.{operation_id}.operation",
		events.TypeOperationProgress:     "ringmaster.event.{operation_id}.progress",
		events.TypeOperationRemove:       "ringmaster.event.{operation_id}.removal",
		events.TypeOperationStall:        "ringmaster.event.{operation_id}.stall",
		events.TypeTaskChange:            "ringmaster.event.{operation_id}.task",
		events.TypeTaskProgress:          "ringmaster.event.{operation_id}.task-progress",
		events.TypeAuditRecord:           "ringmaster.audit.{operation_id}",
		events.TypeMessageReject:         "ringmaster.deadletter.{stream}",
		events.TypePointsRefuse:          "ringmaster.deadletter.{stream}",
	}, addresses)
	require.Len(t, doc.Operations, 2*len(doc.Channels))
	require.Len(t, doc.Components.Messages, len(events.Messages()))
	require.Len(t, doc.Components.Schemas, len(events.Messages())+1)
	require.Len(t, doc.Streams, len(events.Streams()))
	require.Len(t, doc.Buckets, len(events.Buckets()))
}

func TestAsyncAPIReferencesResolve(t *testing.T) {
	var doc any
	require.NoError(t, yaml.Unmarshal(events.AsyncAPI(), &doc))
	count := 0
	eachReference(doc, func(ref string) {
		count++
		path, ok := strings.CutPrefix(ref, "#/")
		require.True(t, ok, ref)
		at := doc
		for step := range strings.SplitSeq(path, "/") {
			parent, ok := at.(map[string]any)
			require.True(t, ok, ref)
			at, ok = parent[step]
			require.True(t, ok, ref)
		}
	})
	require.Greater(t, count, 3*len(events.Messages()))
}

func eachReference(node any, visit func(string)) {
	switch n := node.(type) {
	case map[string]any:
		for key, value := range n {
			if ref, ok := value.(string); ok && key == "$ref" {
				visit(ref)
			}
			eachReference(value, visit)
		}
	case []any:
		for _, value := range n {
			eachReference(value, visit)
		}
	}
}
