package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

// demo is one run of the demonstration.
type demo struct {
	options

	out     io.Writer
	dir     string
	cluster *harness.Cluster
	loaded  []loadedSet
	owners  owners
	// before and after are what each server held before the move and holds
	// after it; balanceBefore is the chart of the first.
	before, after map[string]contents
	balanceBefore []string
	// operation is the move, once it has been accepted.
	operation operation.Operation
	spent     []stage
}

// stage is how long a step took.
type stage struct {
	name string
	took time.Duration
}

// budget is what the whole may take on two cores, the build of InfluxDB included.
const budget = 3 * time.Minute

// step is one step of the demonstration, with a limit beyond which something
// hangs.
type step struct {
	name  string
	limit time.Duration
	do    func(ctx context.Context) error
}

func (d *demo) steps() []step {
	return []step{
		{"Programs", 10 * time.Minute, d.build},
		{"A cluster of two backends", time.Minute, d.start},
		{"Data", 5 * time.Minute, d.load},
		{"A third backend", time.Minute, d.grow},
		{"The move", 10 * time.Minute, d.move},
		{"Verification report", time.Minute, d.report},
		{"Balance", 2 * time.Minute, d.balance},
		{"Independent check", 5 * time.Minute, d.check},
		{"Look further", time.Minute, d.further},
	}
}

// run takes the steps one after another, and cleans up whatever happens.
func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "ringmaster-demo-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	d.say("A rebalance of real InfluxDB servers, with a worker killed half-way.")
	d.say("Everything runs on this machine, below %s.", d.dir)
	begin := time.Now()
	err = d.takeSteps(ctx)
	if err != nil && ctx.Err() == nil {
		d.showLogs()
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if d.keep && ctx.Err() == nil {
		d.sayWhatStays()
	} else {
		err = errors.Join(err, d.cleanUp(err == nil))
	}
	if err != nil {
		return err
	}
	d.sayBudget(time.Since(begin))
	return nil
}

// errInterrupted is how an interrupted run ends.
var errInterrupted = errors.New("interrupted")

func (d *demo) takeSteps(ctx context.Context) error {
	for i, s := range d.steps() {
		d.say("\n%d  %s", i+1, s.name)
		begin := time.Now()
		limited, cancel := context.WithTimeout(ctx, s.limit)
		err := s.do(limited)
		cancel()
		d.spent = append(d.spent, stage{s.name, time.Since(begin)})
		if err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(s.name), err)
		}
	}
	return nil
}

// say prints a line.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, format+"\n", args...)
}

// tell prints a line inside a step.
func (d *demo) tell(format string, args ...any) { d.say("   "+format, args...) }

// cleanUp stops all processes, in order if all went well, and removes what they
// wrote.
func (d *demo) cleanUp(inOrder bool) error {
	var err error
	if d.cluster != nil {
		begin := time.Now()
		if inOrder {
			err = d.cluster.Close()
		} else {
			d.cluster.Kill()
		}
		d.spent = append(d.spent, stage{"Stopping everything", time.Since(begin)})
	}
	if err = errors.Join(err, os.RemoveAll(d.dir)); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	d.say("\nAll processes have been stopped, and %s is removed.", d.dir)
	return nil
}

// sayWhatStays tells how to look at what runs on, and how to end it.
func (d *demo) sayWhatStays() {
	d.say("\nEverything runs on, as KEEP=1 asked.")
	if d.cluster == nil {
		d.tell("rm -rf %s", d.dir)
		return
	}
	var pids []string
	add := func(pid int) { pids = append(pids, strconv.Itoa(pid)) }
	for _, w := range d.cluster.Workers {
		select {
		case <-w.Done():
		default:
			add(w.PID())
		}
	}
	if d.cluster.API != nil {
		add(d.cluster.API.PID())
	}
	for _, b := range d.cluster.Backends {
		add(b.PID())
	}
	d.tell("data     %s", d.dir)
	d.tell("logs     %s", d.cluster.LogDir())
	d.tell("to stop  kill %s", strings.Join(pids, " "))
	d.tell("         rm -rf %s", d.dir)
}

// logFile is where our programs log when they do not outlive the demonstration.
func (d *demo) logFile() string { return filepath.Join(d.dir, "programs.log") }

// showLogs prints the end of the programs' logs after a failure.
func (d *demo) showLogs() {
	const last = 15
	logs, err := filepath.Glob(filepath.Join(d.dir, "log", "*.log"))
	if err != nil || d.cluster == nil {
		return
	}
	for _, name := range append(logs, d.logFile()) {
		raw, err := os.ReadFile(name)
		if err != nil || len(raw) == 0 {
			continue
		}
		lines := strings.Split(string(bytes.TrimSpace(raw)), "\n")
		d.say("\nThe last lines of %s:", filepath.Base(name))
		for _, line := range lines[max(0, len(lines)-last):] {
			d.tell("%.400s", line)
		}
	}
}

// sayBudget tells where the time went.
func (d *demo) sayBudget(total time.Duration) {
	d.say("\nTime")
	for _, s := range d.spent {
		if s.took < 50*time.Millisecond {
			continue
		}
		d.tell("%-28s %6.1f s", s.name, s.took.Seconds())
	}
	d.tell("%-28s %6.1f s (the goal is %.0f s on two cores, the build of InfluxDB included)", "together",
		total.Seconds(), budget.Seconds())
}
