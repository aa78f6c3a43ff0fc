package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"ringmaster/pkg/operation"
)

// display shows the progress of an operation.
type display interface {
	// update takes the progress as the api has just told it.
	update(op *operation.Operation)
	// say prints a line between.
	say(format string, args ...any)
	close()
}

// newDisplay chooses bars for a terminal and lines for anything else.
func newDisplay(out io.Writer) display {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBars(out)
	}
	return &lines{out: out, now: time.Now}
}

// percent is a share in percent, between 0 and 100.
func percent(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return min(max(100*float64(part)/float64(whole), 0), 100)
}

// goal is how many points there are: what the plan has estimated, until the copy
// knows.
func goal(p *operation.Progress) int64 {
	if p.Phase == operation.PhaseVerify || p.Phase == operation.PhaseDone {
		return p.Points.Copied
	}
	return p.Points.Estimated
}

// pace says how fast it goes and how long it will take, as far as is known.
func pace(p *operation.Progress) string {
	text := fmt.Sprintf("%s points/s", group(int64(p.PointsPerSecond)))
	if p.ETASeconds == nil {
		return text
	}
	return text + fmt.Sprintf(", %.0f s to go", *p.ETASeconds)
}

// taskLine says where the tasks stand.
func taskLine(t *operation.TaskCounts) string {
	text := fmt.Sprintf("%d of %d tasks, %d running", t.Done, t.Total, t.Running)
	if t.Failed > 0 {
		text += fmt.Sprintf(", %d failed", t.Failed)
	}
	return text
}

// waitLine says what the operation waits for, if it does.
func waitLine(waits []operation.Wait) string {
	if len(waits) == 0 {
		return ""
	}
	w := waits[0]
	return fmt.Sprintf("waits for %s %s: %s, limit %s", w.Gate, w.Backend, w.Measured, w.Limit)
}

// lines prints a line every two seconds, and when the phase changes.
type lines struct {
	out   io.Writer
	now   func() time.Time
	begun time.Time
	told  time.Time
	phase operation.Phase
}

const linesEvery = 2 * time.Second

func (l *lines) update(op *operation.Operation) {
	now := l.now()
	if l.begun.IsZero() {
		l.begun = now
	}
	changed := op.Progress.Phase != l.phase
	if op.Plan == nil || !changed && now.Sub(l.told) < linesEvery {
		return
	}
	l.told, l.phase = now, op.Progress.Phase
	l.say("%s", progressLine(now.Sub(l.begun), op))
}

func (l *lines) say(format string, args ...any) { fmt.Fprintf(l.out, "   "+format+"\n", args...) }

func (l *lines) close() {}

// progressLine is one line of plain progress.
func progressLine(elapsed time.Duration, op *operation.Operation) string {
	p := &op.Progress
	text := fmt.Sprintf("%5.1f s  %-6s  %s copied (%.0f %%), %s verified (%.0f %%)  %s", elapsed.Seconds(), p.Phase,
		group(p.Points.Copied), percent(p.Points.Copied, goal(p)),
		group(p.Points.Verified), percent(p.Points.Verified, goal(p)), taskLine(&p.Tasks))
	if p.Phase != operation.PhaseDone {
		text += "  " + pace(p)
	}
	if w := waitLine(op.Waits); w != "" {
		text += "  " + w
	}
	return text
}

// bars shows live bars at a terminal.
type bars struct {
	container                *mpb.Progress
	copied, verified, tasks  *mpb.Bar
	mu                       sync.Mutex
	copyText, proof, toldOff string
}

const barWidth = 32

func newBars(out io.Writer) *bars {
	b := &bars{container: mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(pollEvery))}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░")
	bar := func(name string, text *string) *mpb.Bar {
		return b.container.New(0, style, mpb.BarWidth(barWidth), mpb.BarFillerTrim(),
			mpb.PrependDecorators(decor.Name("   "+name, decor.WC{W: 13, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				b.mu.Lock()
				defer b.mu.Unlock()
				return "  " + *text
			})))
	}
	b.copied, b.verified, b.tasks = bar("copied", &b.copyText), bar("verified", &b.proof), bar("tasks", &b.toldOff)
	return b
}

func (b *bars) update(op *operation.Operation) {
	p := &op.Progress
	b.mu.Lock()
	b.copyText = fmt.Sprintf("%3.0f %%  %s of about %s points", percent(p.Points.Copied, goal(p)), group(p.Points.Copied), group(p.Points.Estimated))
	b.proof = fmt.Sprintf("%3.0f %%  %s points", percent(p.Points.Verified, goal(p)), group(p.Points.Verified))
	b.toldOff = taskLine(&p.Tasks)
	if op.Plan == nil {
		b.toldOff = string(op.State)
	} else if p.Phase != operation.PhaseDone {
		b.toldOff += "; " + pace(p)
	}
	if w := waitLine(op.Waits); w != "" {
		b.toldOff += "; " + w
	}
	b.mu.Unlock()
	fill(b.copied, p.Points.Copied, goal(p))
	fill(b.verified, p.Points.Verified, goal(p))
	fill(b.tasks, int64(p.Tasks.Done), int64(p.Tasks.Total))
}

// fill sets a bar that may not complete by itself: an estimate can be too low.
func fill(bar *mpb.Bar, part, whole int64) {
	bar.SetTotal(max(whole, part, 1)+1, false)
	bar.SetCurrent(part)
}

func (b *bars) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.container, "   "+format+"\n", args...) // after close there is nowhere to print
}

// close leaves the bars as they are.
func (b *bars) close() {
	for _, bar := range []*mpb.Bar{b.copied, b.verified, b.tasks} {
		bar.Abort(false)
	}
	b.container.Wait()
}
