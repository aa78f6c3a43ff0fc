package influxtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config says how to run a server.
type Config struct {
	// Binary is the program; empty means [Build].
	Binary string
	// Dir holds the server's data; it is made if need be. Required.
	Dir string
	// HTTP is the address to listen on; empty means a free port of 127.0.0.1.
	HTTP string
	// Index of new shards: inmem, the default of InfluxDB 1.8, or tsi1.
	Index string
	// Auth makes the server require credentials.
	Auth bool
	// Unsigned makes it accept unsigned integers, as only some builds do.
	Unsigned bool
	// Args are further flags of the program.
	Args []string
	// Log takes what the server logs, errors only; nil drops it.
	Log io.Writer
	// Detach lets the server outlive this process; its Log is then kept only if
	// it is an [os.File]. Otherwise the server stops when this process ends, in
	// whatever way.
	Detach bool
}

// Process is a running server.
type Process struct {
	config Config
	addr   string
	cmd    *exec.Cmd
	stdin  io.Closer     // the server stops when it is closed
	done   chan struct{} // closed when the process has ended
	err    error         // how it ended; valid after done

	endOnce sync.Once
}

// How long a server may take.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// Launch starts a server and returns when it answers. The context bounds the
// start only. Whoever launches ends the process by [Process.Stop] or
// [Process.Kill].
func Launch(ctx context.Context, c Config) (*Process, error) {
	if c.Dir == "" {
		return nil, errors.New("launching InfluxDB: no directory")
	}
	if c.Binary == "" {
		binary, err := Build(ctx)
		if err != nil {
			return nil, err
		}
		c.Binary = binary
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p := &Process{config: c, done: make(chan struct{})}
	if err := p.start(ctx); err != nil {
		return nil, fmt.Errorf("launching InfluxDB: %w", err)
	}
	return p, nil
}

func (p *Process) start(ctx context.Context) error {
	c := p.config
	args := []string{"-dir", c.Dir}
	if c.HTTP != "" {
		args = append(args, "-http", c.HTTP)
	}
	if c.Index != "" {
		args = append(args, "-index", c.Index)
	}
	if c.Auth {
		args = append(args, "-auth")
	}
	if c.Unsigned {
		args = append(args, "-unsigned")
	}
	if !c.Detach {
		args = append(args, "-stop-with-stdin")
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	// The context must not end the process later, so it is not the command's.
	p.cmd = exec.Command(c.Binary, append(args, c.Args...)...)
	stderr := &tail{next: c.Log}
	if c.Detach {
		// Its own session: an interrupt typed at the terminal is not for it.
		p.cmd.SysProcAttr = detached()
		// Only a file can take its log when this process is gone.
		if f, ok := c.Log.(*os.File); ok {
			p.cmd.Stderr = f
		}
	} else {
		p.cmd.Stderr = stderr
		stdin, err := p.cmd.StdinPipe()
		if err != nil {
			return err
		}
		p.stdin = stdin
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan string, 1)
	go p.wait(stdout, ready)

	select {
	case addr := <-ready:
		p.addr = addr
		err = p.ping(ctx)
	case <-p.done:
		err = fmt.Errorf("it ended: %w: %s", p.err, stderr)
	case <-ctx.Done():
		err = fmt.Errorf("it is not ready: %w: %s", context.Cause(ctx), stderr)
	}
	if err != nil {
		p.Kill()
	}
	return err
}

// wait reads the line that says the server is ready, and then its end.
func (p *Process) wait(stdout io.Reader, ready chan<- string) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			select {
			case ready <- addr:
			default:
			}
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// ping asks until the server answers, or the process ends.
func (p *Process) ping(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+"/ping", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusNoContent {
				return nil
			}
			err = fmt.Errorf("ping answered %s", res.Status)
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
}

// URL is the server's base URL.
func (p *Process) URL() string { return "http://" + p.addr }

// Addr is the host and port that the server listens on.
func (p *Process) Addr() string { return p.addr }

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process, for example SIGSTOP.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop ends the server in order and waits for it; one that does not end in half
// a minute is killed, and an error returned. A server that has ended already is
// no error.
func (p *Process) Stop() error {
	var err error
	p.endOnce.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
			_ = p.cmd.Process.Kill()
			<-p.done
			err = fmt.Errorf("stopping InfluxDB %s: killed after %v", p.addr, stopTimeout)
		}
		p.release()
	})
	<-p.done
	return err
}

// Kill ends the server at once, as a crash does, and waits until it is gone.
func (p *Process) Kill() {
	p.endOnce.Do(func() {
		_ = p.cmd.Process.Kill() // fails only when it has ended
		<-p.done
		p.release()
	})
	<-p.done
}

func (p *Process) release() {
	if p.stdin != nil {
		p.stdin.Close()
	}
}

// Restart starts the ended server again on the same directory and address.
func (p *Process) Restart(ctx context.Context) (*Process, error) {
	select {
	case <-p.done:
	default:
		return nil, fmt.Errorf("restarting InfluxDB %s: it is running", p.addr)
	}
	c := p.config
	c.HTTP = p.addr
	return Launch(ctx, c)
}

// tail keeps the end of what a server logged, for the error of a failed start.
type tail struct {
	mu   sync.Mutex
	next io.Writer
	buf  []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailSize; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	if t.next != nil {
		return t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
