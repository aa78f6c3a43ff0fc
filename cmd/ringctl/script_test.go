package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ringctl": main})
}

// TestScripts runs the program as a person would. Each script has the answers of a
// server in its directory api; that a real one answers like that is for the
// integration tests to say.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			f := newFakeAPI(env.WorkDir)
			env.Defer(f.close)
			env.Values[fakeKey{}] = f
			env.Setenv("RINGMASTER_SERVER", f.server.URL)
			env.Setenv("FAKE_ADDRESS", f.server.Listener.Addr().String())
			env.Setenv("ID", sampleID)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "asked": asked, "awaits": awaits,
		},
	})
}

type fakeKey struct{}

func fakeOf(ts *testscript.TestScript) *fakeAPI {
	f, ok := ts.Value(fakeKey{}).(*fakeAPI)
	if !ok {
		ts.Fatalf("there is no server")
	}
	return f
}

// exits CODE COMMAND ARGS… runs a command that ends with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d instead of %d\n%s%s", code, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// asked TEXT says that there was a request with this text in it.
func asked(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] asked TEXT")
	}
	if f := fakeOf(ts); f.asked(args[0]) == neg {
		ts.Fatalf("asked %q: %v; requests:\n%s", args[0], !neg, f.all())
	}
}

// awaits TEXT waits for a request with this text in it.
func awaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: awaits TEXT")
	}
	if err := fakeOf(ts).await(args[0], 20*time.Second); err != nil {
		ts.Fatalf("%v", err)
	}
}

// run as a function leaves nothing behind.
func TestRunLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	f := newFakeAPI(dir)
	defer f.close()
	record(t, dir, "GET_v1_operations_"+sampleID+".json", fmt.Sprintf(`{"id": %q, "kind": "rebalance", "state": "failed"}`, sampleID))
	if code := run(t.Context(), []string{"ops", "watch", sampleID, "-server", f.server.URL}, os.Stdin, t.Output(), t.Output()); code != exitOpFailed {
		t.Fatalf("exit code %d", code)
	}
}

// Whoever is interrupted while he watches is told that the operation goes on.
func TestAnInterruptHasACodeOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	f := newFakeAPI(dir)
	defer f.close()
	record(t, dir, "GET_v1_operations_"+sampleID+".json", fmt.Sprintf(`{"id": %q, "kind": "rebalance", "state": "running"}`, sampleID))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = f.await("/events", 20*time.Second)
		cancel()
	}()
	if code := run(ctx, []string{"ops", "watch", sampleID, "-server", f.server.URL}, os.Stdin, t.Output(), t.Output()); code != exitInterrupted {
		t.Fatalf("exit code %d", code)
	}
}
