package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// app is what a command works with.
type app struct {
	ctx     context.Context //nolint:containedctx // the life of the program, which is one command
	client  *client
	options *globals
	in      io.Reader
	out     io.Writer
	err     io.Writer
	now     func() time.Time
}

func newApp(ctx context.Context, g *globals, in io.Reader, out, errs io.Writer) (*app, error) {
	c, err := newClient(g)
	if err != nil {
		return nil, err
	}
	return &app{ctx: ctx, client: c, options: g, in: in, out: out, err: errs, now: time.Now}, nil
}

// say prints a remark: to where the errors go, so that what was found can be read by
// a program.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// isTerminal reports whether a person is at the other end.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a person whether to go on. Without one it refuses.
func (a *app) confirm(question string) error {
	if !isTerminal(a.in) {
		return usageError("%s There is nobody to ask: say --yes if it is meant", question)
	}
	fmt.Fprintf(a.err, "%s Go on? [y/N] ", question)
	answers := make(chan string, 1)
	// Reading a terminal cannot be cut off; the program ends instead.
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n') // nothing is no
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answers:
		if answer == "y" || answer == "yes" {
			return nil
		}
		return &exitError{exitFailed, "nothing was done"}
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
}

// pause waits, and reports whether the time has passed.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
