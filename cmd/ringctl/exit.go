package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ringmaster/pkg/operation"
)

// Exit codes. 3, 4 and 5 tell how an operation has ended that was waited for.
const (
	exitOK          = 0
	exitFailed      = 1 // the command could not be carried out
	exitUsage       = 2
	exitPartly      = 3
	exitOpFailed    = 4
	exitCancelled   = 5
	exitInterrupted = 130
)

// exitError ends the program with a code; its text, if there is one, is printed.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// usageError is a wrong command line.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, args...)}
}

// endOf is the exit of an operation that has ended; nil when it has ended well.
func endOf(state operation.State) error {
	switch state {
	case operation.PartiallyFailed:
		return &exitError{code: exitPartly}
	case operation.Failed:
		return &exitError{code: exitOpFailed}
	case operation.Cancelled:
		return &exitError{code: exitCancelled}
	default:
		return nil
	}
}

// conclude prints why a command has failed and returns the exit code.
func conclude(ctx context.Context, err error, output string, stderr io.Writer) int {
	var (
		exit    *exitError
		problem *problemError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintln(stderr, "ringctl:", exit.text)
		}
		return exit.code
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "ringctl: interrupted")
		return exitInterrupted
	case errors.As(err, &problem) && output != outputTable:
		fmt.Fprintf(stderr, "%s\n", problem.raw)
	default:
		fmt.Fprintln(stderr, "ringctl:", err)
	}
	return exitFailed
}
