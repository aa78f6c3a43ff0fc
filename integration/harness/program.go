// Package harness runs Ringmaster's real programs as processes beside real
// InfluxDB servers: for the demonstration, the end-to-end tests, the crash suite
// and the benchmark.
package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Root returns the directory of the module, from any directory inside it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for {
		raw, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(raw, []byte("module ringmaster\n")) {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("finding the module: no go.mod of ringmaster above the working directory")
		}
		dir = up
	}
}

// BuildPrograms builds api, worker and ringctl into dir; flags go to the Go tool.
func BuildPrograms(ctx context.Context, dir string, flags ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/api", "./cmd/worker", "./cmd/ringctl")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// Program is a running process of ours.
type Program struct {
	cmd    *exec.Cmd
	output *buffer
	done   chan struct{}
}

// StartProgram starts a binary and returns when it has printed its ready line.
// Everything it prints is kept for Output, and goes to log too if that is not nil.
func StartProgram(ctx context.Context, log io.Writer, binary string, args ...string) (*Program, error) {
	return StartProgramWith(ctx, log, nil, binary, args...)
}

// StartProgramWith is [StartProgram] with more in the environment.
func StartProgramWith(ctx context.Context, log io.Writer, env []string, binary string, args ...string) (*Program, error) {
	p := &Program{cmd: exec.Command(binary, args...), output: &buffer{copy: log}, done: make(chan struct{})}
	p.cmd.Env = append(p.cmd.Environ(), env...)
	p.cmd.Stderr = p.output
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(binary), err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(binary), err)
	}
	ready := make(chan struct{})
	go p.wait(stdout, ready)
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("starting %s: it ended: %s\n%s", filepath.Base(binary), p.cmd.ProcessState, p.Output())
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("starting %s: %w\n%s", filepath.Base(binary), ctx.Err(), p.Output())
	}
}

// wait reads what the process prints until it ends.
func (p *Program) wait(stdout io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		fmt.Fprintln(p.output, lines.Text())
		if ready != nil && strings.Contains(lines.Text(), " ready ") {
			close(ready)
			ready = nil
		}
	}
	_ = p.cmd.Wait() // how it ended is in its ProcessState
	close(p.done)
}

// Output is everything the process has printed so far, stderr included.
func (p *Program) Output() string { return p.output.String() }

// PID is the process id.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Program) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process as a crash does, and waits until it is gone.
func (p *Program) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// stopTimeout is how long a process may take to stop in order.
const stopTimeout = 40 * time.Second

// Stop ends the process in order and returns its exit code.
func (p *Program) Stop() (int, error) {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, fmt.Errorf("stopping a program: %w", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-timer.C:
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines tell why
		<-p.done
		return -1, fmt.Errorf("stopping a program: it did not end in %s\n%s", stopTimeout, p.Output())
	}
}

// buffer keeps what a process prints.
type buffer struct {
	mu   sync.Mutex
	kept bytes.Buffer
	copy io.Writer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.copy != nil {
		if _, err := b.copy.Write(p); err != nil {
			return 0, err
		}
	}
	return b.kept.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept.String()
}
