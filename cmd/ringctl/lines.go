package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/operation"
)

// objects prints one JSON object a line, or one YAML document after the other: the
// operation, whenever it has changed.
type objects struct {
	app  *app
	last []byte
}

func (o *objects) show(raw []byte, _ *opView) {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil || bytes.Equal(b.Bytes(), o.last) {
		return
	}
	o.last = b.Bytes()
	if o.app.options.Output == outputYAML {
		if text, err := toYAML(raw); err == nil {
			fmt.Fprintf(o.app.out, "---\n%s", text)
		}
		return
	}
	fmt.Fprintf(o.app.out, "%s\n", o.last)
}

func (o *objects) say(remark string) { o.app.say("ringctl: %s", remark) }

func (*objects) close() {}

// lines prints a line when something has changed, and otherwise every so often.
type lines struct {
	app    *app
	every  time.Duration
	advice advice
	told   time.Time
	last   string
	waited string
}

func (l *lines) show(_ []byte, op *opView) {
	key := fmt.Sprint(op.stateText(), op.Progress.Phase)
	waits := waitsText(op)
	now := l.app.now()
	if key == l.last && waits == l.waited && now.Sub(l.told) < l.every {
		return
	}
	l.told, l.last, l.waited = now, key, waits
	fmt.Fprintf(l.app.out, "%s %s\n", now.UTC().Format("15:04:05"), lineOf(op))
	if text := l.advice.of(op); text != "" {
		l.say(text)
	}
	if op.State.Terminal() {
		l.say(ending(op))
	}
}

func (l *lines) say(remark string) {
	fmt.Fprintf(l.app.out, "%s %s\n", l.app.now().UTC().Format("15:04:05"), remark)
}

func (*lines) close() {}

// lineOf is an operation on one line.
func lineOf(op *opView) string {
	p := &op.Progress
	parts := []string{op.stateText()}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if done, rate, eta := op.pace(); done != "" {
		part, whole := finished(op.State, p.Phase, &p.Points)
		add("%s %s %s of %s points", p.Phase, done, amount(part), amount(whole))
		if rate != "" {
			add("%s", rate)
		}
		if eta != "" {
			add("%s to go", eta)
		}
	}
	if !op.State.Terminal() && len(p.Backends) > 0 {
		add("backends: %s", backendsText(op))
	}
	if t := &p.Tasks; t.Failed > 0 {
		add("%d of %d tasks failed", t.Failed, t.Total)
	}
	if waits := waitsText(op); waits != "" {
		add("waits for %s", waits)
	}
	return strings.Join(parts, "; ")
}

// maxOnLine bounds the backends and waits that a line has.
const maxOnLine = 4

func backendsText(op *opView) string {
	p := &op.Progress
	var texts []string
	for _, url := range slices.Sorted(maps.Keys(p.Backends)) {
		b := p.Backends[url]
		part, whole := finished(op.State, p.Phase, &b.Points)
		if whole > 0 {
			texts = append(texts, b.Name+" "+share(part, whole))
		}
	}
	return shorten(texts)
}

func waitsText(op *opView) string {
	if op.State.Terminal() {
		return ""
	}
	var texts []string
	for _, g := range gates(op.Waits) {
		texts = append(texts, waitText(&g.Wait))
	}
	return shorten(texts)
}

// shorten joins texts, the first few of them.
func shorten(texts []string) string {
	if over := len(texts) - maxOnLine; over > 0 {
		texts = append(texts[:maxOnLine:maxOnLine], fmt.Sprintf("and %d more", over))
	}
	return cell0(strings.Join(texts, ", "))
}

// cell0 is cell for what may be empty.
func cell0(text string) string {
	if text == "" {
		return ""
	}
	return cell(text)
}

// ending is how an operation has ended.
func ending(op *opView) string {
	text := fmt.Sprintf("operation %s %s", op.ID, op.State)
	if op.Error != nil {
		text += ": " + op.Error.Detail
	}
	if op.Result != nil && op.Result.Note != "" {
		text += ": " + op.Result.Note
	}
	switch op.State {
	case operation.PartiallyFailed, operation.Failed:
		text += fmt.Sprintf("; next: ringctl ops report %s, ringctl ops retry %s", op.ID, op.ID)
	case operation.Cancelled:
		text += "; next: ringctl ops report " + op.ID
	default:
	}
	return cell(text)
}
