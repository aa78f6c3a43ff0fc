package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// StartDetached is [StartProgram] for a process that may outlive this one: it has
// a session of its own, so that an interrupt typed at the terminal is not for it,
// and prints to a file, to which it appends. Output is then what it had printed
// when it was ready.
func StartDetached(ctx context.Context, logFile, binary string, args ...string) (*Program, error) {
	name := filepath.Base(binary)
	log, err := openLog(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Program{cmd: exec.Command(binary, args...), output: &buffer{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its ProcessState
		close(p.done)
	}()
	if err := p.awaitReady(ctx, logFile, before); err != nil {
		p.Kill()
		return nil, fmt.Errorf("starting %s: %w\n%s", name, err, p.Output())
	}
	return p, nil
}

// awaitReady reads the log from an offset until it has the ready line.
func (p *Program) awaitReady(ctx context.Context, logFile string, from int64) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-p.done:
			err = fmt.Errorf("it ended: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			err = ctx.Err()
		case <-ticker.C:
		}
		// The end of a process is looked at before its log, so that all of it
		// is there.
		raw, readErr := os.ReadFile(logFile)
		if readErr != nil {
			return readErr
		}
		printed := raw[from:]
		if err != nil || hasReadyLine(printed) {
			_, _ = p.output.Write(printed) // a buffer without a copy does not fail
			return err
		}
	}
}

// hasReadyLine looks for the whole line that a program of ours prints when it is
// ready, among lines of its log.
func hasReadyLine(printed []byte) bool {
	for line := range bytes.Lines(printed) {
		if bytes.HasPrefix(line, []byte("ringmaster ")) && bytes.Contains(line, []byte(" ready ")) && bytes.HasSuffix(line, []byte("\n")) {
			return true
		}
	}
	return false
}

// openLog opens a log to append to; its directory is made if need be.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	return f, nil
}
