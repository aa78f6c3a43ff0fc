package main

import (
	"encoding/json"
	"fmt"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/operation"
)

// What the examples have in common, so that they read as one story: a backend
// has joined circle 0, and one of its neighbours is slow.
const (
	exampleOperation = "0198f3c2-7c1a-7e3e-9b5a-2f6d1c0a4b8e"
	exampleTask      = "c-000012"
	exampleWorker    = "worker/2b81"
	exampleSource    = "http://influx-1:8086"
	exampleTarget    = "http://influx-3:8086"
)

var exampleTime = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)

func exampleID(i int) string {
	return fmt.Sprintf("0198f3c2-7c1a-7e3e-9b5a-%012x", i+1)
}

// examples returns one payload of every type.
func examples() map[string]events.Payload {
	list := []events.Payload{
		events.RebalanceRequest{
			Command: exampleCommand(operation.KindRebalance, "circle/0"),
			Parameters: events.RebalanceParameters{
				CircleID: 0, Operation: operation.RebalanceRemove, Databases: []string{"weather"},
				RemovedBackends: []events.RemovedBackend{{Name: "influx-4", URL: "http://influx-4:8086"}},
				Workers:         4, Depth: operation.DepthCount,
			},
		},
		events.RecoveryRequest{
			Command: exampleCommand(operation.KindRecovery, "circle/0", "circle/1"),
			Parameters: events.RecoveryParameters{
				FromCircleID: 0, ToCircleID: 1, BackendURLs: []string{exampleTarget},
				Databases: []string{"weather"}, SinceSeconds: 86_400, Workers: 4,
			},
		},
		events.ResyncRequest{
			Command:    exampleCommand(operation.KindResync, "circle/0", "circle/1"),
			Parameters: events.ResyncParameters{SinceSeconds: 86_400, Databases: []string{"weather"}, Workers: 4},
		},
		events.ClearRequest{
			Command:    exampleCommand(operation.KindClear, "circle/0"),
			Parameters: events.ClearParameters{CircleID: 0, OlderThanSeconds: 86_400, Databases: []string{"weather"}},
		},
		events.VerifyRequest{
			Command: exampleCommand(operation.KindVerify, "circle/0", "circle/1"),
			Parameters: events.VerifyParameters{
				CircleID: 0, AgainstCircleID: new(1), Repair: true, RepairFrom: operation.SideCircle,
				Databases: []string{"weather"}, SinceSeconds: 86_400, Depth: operation.DepthDigest,
			},
		},
		events.ReindexRequest{
			Command: exampleCommand(operation.KindReindex, "index/demo/quakes-2"),
			Parameters: events.ReindexParameters{
				Connection: "demo", Source: "quakes-1", Destination: "quakes-2", Option: events.ReindexDocuments,
			},
		},
		events.MissingSegmentsDelete{
			Command: exampleCommand(operation.KindDeleteMissingSegments, "catalog"),
			Parameters: events.MissingSegmentsParameters{
				Segments:     []events.Segment{{SegmentID: "NG3Vzr7FPB0sLhcc", DatasourceID: "2", DataspaceID: "VzFoGZlvbkh5hDOqnzCSPdQb"}},
				IgnoreErrors: true,
			},
		},
		events.ScopeTake{OperationID: exampleOperation, Scope: "circle/0"},
		events.TaskRun{
			OperationID: exampleOperation, TaskID: exampleTask,
			Kind: operation.KindRebalance, Phase: operation.PhaseCopy,
		},
		events.OperationChange{Operation: exampleRecord(), Revision: 41, Previous: operation.Planning},
		events.OperationProgress{
			OperationID: exampleOperation, Revision: 41, Seq: 7,
			Progress: exampleProgress(), Waits: exampleWaits(),
		},
		exampleStall(),
		events.TaskChanged(exampleTaskRecord(), 97),
		events.TaskProgressed(exampleTaskRecord(), 12),
		events.AuditRecord{AuditEntry: operation.AuditEntry{
			At: exampleTime, OperationID: exampleOperation, Action: "submit",
			Who: "admin", Origin: "192.0.2.17:50122", Reason: "influx-3 joined the circle",
		}},
		events.Rejected("reading message: unexpected end of JSON input", events.StreamTasks,
			events.TaskSubject(string(operation.KindRebalance), exampleOperation, exampleTask), 311, []byte(`{"id":`)),
		events.PointsRefuse{
			Backend: exampleTarget, Database: "weather",
			Reason: `partial write: field type conflict: input field "celsius" on measurement "air" is type string, already exists as type float dropped=1`,
			Status: 400, Epoch: 7, Circles: []int{0}, WrittenAt: exampleTime, Points: 1,
			Lines: []byte("air,station=berlin celsius=\"warm\" 1772600767000000000\n"), Piece: 1, Pieces: 1,
		},
		events.OperationRemove{OperationID: exampleOperation, RemovedAt: exampleTime, Reason: "it ended more than 2160h0m0s ago"},
	}
	byType := map[string]events.Payload{}
	for _, p := range list {
		byType[p.EventType()] = p
	}
	return byType
}

func exampleCommand(kind operation.Kind, scope ...string) events.Command {
	return events.Command{OperationID: exampleOperation, Kind: kind, Scope: scope, RequestedBy: "admin"}
}

func exampleRecord() operation.Operation {
	started := exampleTime.Add(-time.Minute)
	points := int64(200_000)
	return operation.Operation{
		ID: exampleOperation, Kind: operation.KindRebalance, Scope: []string{"circle/0"},
		State:      operation.Running,
		Conditions: []operation.Condition{},
		Parameters: json.RawMessage(`{"circle_id":0,"operation":"add","depth":"count"}`),
		Limits:     operation.Limits{PointsPerSecond: &points},
		Reason:     "influx-3 joined the circle", RequestedBy: "admin",
		CreatedAt: started.Add(-time.Second), StartedAt: &started,
		Epoch: 3, Attempt: 1, Round: 1,
		Progress: exampleProgress(), Waits: exampleWaits(),
		Plan: &operation.PlanRef{
			Document: operation.Document{
				Object: "plan/" + exampleOperation,
				SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
				Bytes:  1843,
			},
			Totals: operation.PlanTotals{Databases: 1, Measurements: 21, Slices: 63, Tasks: 16, Points: 1_050_000},
		},
	}
}

func exampleProgress() operation.Progress {
	eta := 3.5
	return operation.Progress{
		Phase:           operation.PhaseCopy,
		Tasks:           operation.TaskCounts{Total: 16, Done: 5, Running: 2, Waiting: 9},
		Databases:       operation.Done{Total: 1},
		Measurements:    operation.Done{Total: 21, Done: 6},
		Points:          operation.PointCounts{Estimated: 1_050_000, Copied: 350_000},
		Bytes:           operation.ByteCounts{Read: 41_300_000, Written: 57_800_000},
		PointsPerSecond: 200_000, ETASeconds: &eta, AsOf: exampleTime,
		Backends: map[string]operation.BackendProgress{
			exampleSource: {
				Name: "influx-1", Databases: operation.Done{Total: 1},
				Measurements: operation.Done{Total: 48, Done: 33}, Moved: 6, InPlace: 27,
			},
		},
	}
}

func exampleStall() events.OperationStall {
	return events.OperationStall{
		OperationID: exampleOperation, Revision: 44, Kind: operation.KindRebalance, State: operation.Running,
		Stalled: true, Since: exampleTime, LimitSeconds: 300,
		Reason: "no progress for 5m0s: " + exampleTarget + " waits at backend: 503 Service Unavailable, 3 times (an answer of 204), since 2026-03-04T05:06:03Z",
		Waits:  exampleWaits(),
	}
}

func exampleWaits() []operation.Wait {
	return []operation.Wait{{
		Gate: "backend", Backend: exampleTarget, Measured: "503 Service Unavailable, 3 times",
		Limit: "an answer of 204", Since: exampleTime.Add(-4 * time.Second), TaskID: exampleTask,
	}}
}

func exampleTaskRecord() operation.Task {
	started := exampleTime.Add(-30 * time.Second)
	return operation.Task{
		ID: exampleTask, OperationID: exampleOperation, Kind: operation.KindRebalance,
		Phase: operation.PhaseCopy, Round: 1, Source: exampleSource, Destination: exampleTarget,
		Span: &operation.Span{Chunk: 0, First: 44, Count: 4}, Estimated: 66_000,
		State: operation.TaskRunning, Attempt: 2, Holder: exampleWorker,
		Checkpoint: operation.Checkpoint{
			{State: operation.SliceCopied, DestinationEmpty: true, Rows: 20_000, Values: 100_000, Written: 20_000},
			{State: operation.SliceCopied, DestinationEmpty: true, Rows: 16_000, Values: 80_000, Written: 16_000},
			{},
			{},
		},
		Points: operation.TaskPoints{Copied: 36_000},
		Bytes:  operation.ByteCounts{Read: 4_250_000, Written: 5_940_000},
		Waits:  exampleWaits(), CreatedAt: started, StartedAt: &started, UpdatedAt: exampleTime,
	}
}
