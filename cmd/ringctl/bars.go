package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"ringmaster/pkg/operation"
)

const (
	// maxBars is how many backends fit on a screen.
	maxBars  = 20
	barWidth = 24
	// refreshEvery is how often the bars are drawn.
	refreshEvery = 200 * time.Millisecond
	// barParts is how fine a bar is drawn, whatever it counts.
	barParts = 1000
)

// bars shows a bar for each backend, and below it the whole.
type bars struct {
	app       *app
	container *mpb.Progress
	backends  map[string]*bar
	whole     *bar
	// below are lines for what is waited for.
	below  []*bar
	advice advice
	state  string
	last   *opView
}

// bar is one bar and the text behind it.
type bar struct {
	drawn *mpb.Bar
	speed speed

	mu   sync.Mutex
	text string
}

func (b *bar) say(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = text
}

func (b *bar) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text
}

func newBars(a *app) *bars {
	return &bars{
		app: a, backends: map[string]*bar{},
		container: mpb.New(mpb.WithOutput(a.out), mpb.WithRefreshRate(refreshEvery), mpb.WithAutoRefresh()),
	}
}

// add draws one more bar, with a name in front.
func (b *bars) add(name string, priority int) *bar {
	one := &bar{}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░")
	one.drawn = b.container.New(barParts+1, style, mpb.BarWidth(barWidth), mpb.BarFillerTrim(), mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(cell(name)+" ", decor.WC{C: decor.DindentRight | decor.DSyncWidth})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + one.said() })))
	return one
}

// line draws a text without a bar.
func (b *bars) line(priority int) *bar {
	one := &bar{}
	one.drawn = b.container.New(1, mpb.NopStyle(), mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return one.said() })))
	return one
}

// Priorities: backends come first, the whole and what is waited for at the end.
const (
	wholePriority = 1_000_000
	belowPriority = wholePriority + 1
)

func (b *bars) show(_ []byte, op *opView) {
	b.last = op
	if state := op.stateText(); state != b.state {
		b.state = state
		b.say(fmt.Sprintf("%s %s", op.Kind, state))
	}
	if text := b.advice.of(op); text != "" {
		b.say(text)
	}
	p := &op.Progress
	now := b.app.now()
	for i, url := range b.chosen(p) {
		row := p.Backends[url]
		one, ok := b.backends[url]
		if !ok {
			one = b.add(row.Name, i)
			b.backends[url] = one
		}
		part, whole := finished(op.State, p.Phase, &row.Points)
		rate := one.speed.at(now, string(p.Phase), part)
		// What does not fit is cut off at the end.
		text := fmt.Sprintf("%4s %s/%s", cell(share(part, whole)), amount(part), amount(whole))
		if rate > 0 && !op.State.Terminal() && part < whole {
			text += fmt.Sprintf("  %s/s  %s to go", amount(int64(rate)), seconds(float64(whole-part)/rate))
		}
		one.fill(part, whole, text+fmt.Sprintf("  %d/%d measurements", row.Measurements.Done, row.Measurements.Total))
	}
	b.showWhole(op)
}

// showWhole draws what is below the backends.
func (b *bars) showWhole(op *opView) {
	p := &op.Progress
	if b.whole == nil {
		b.whole = b.add("all", wholePriority)
	}
	part, whole := finished(op.State, p.Phase, &p.Points)
	_, rate, eta := op.pace()
	text := fmt.Sprintf("%4s %s/%s", cell(share(part, whole)), amount(part), amount(whole))
	if rate != "" {
		text += "  " + rate
	}
	if eta != "" {
		text += "  " + eta + " to go"
	}
	b.whole.fill(part, whole, text+"  "+string(p.Phase))
	b.showBelow(b.belowText(op))
}

// maxBelow bounds the lines below the bars.
const maxBelow = 4

// belowText is what the operation waits for, each gate on a line.
func (b *bars) belowText(op *opView) []string {
	if op.State.Terminal() {
		return nil
	}
	texts := []string{taskCounts(&op.Progress.Tasks)}
	if over := len(op.Progress.Backends) - len(b.backends); over > 0 && len(b.backends) == maxBars {
		texts[0] += fmt.Sprintf("; and %d more backends", over)
	}
	all := gates(op.Waits)
	for i := range all {
		if len(texts) == maxBelow {
			texts[maxBelow-1] += fmt.Sprintf("; and %d more", len(all)-i)
			break
		}
		texts = append(texts, cell("waits for "+waitText(&all[i].Wait)))
	}
	return texts
}

func (b *bars) showBelow(texts []string) {
	for len(b.below) < len(texts) {
		b.below = append(b.below, b.line(belowPriority+len(b.below)))
	}
	for i, one := range b.below {
		text := ""
		if i < len(texts) {
			text = texts[i]
		}
		one.say(text)
	}
}

// chosen are the backends that have a bar: those with most to give, in the order in
// which they have got their bars.
func (b *bars) chosen(p *operation.Progress) []string {
	urls := slices.SortedFunc(maps.Keys(p.Backends), func(x, y string) int {
		return cmp.Or(cmp.Compare(p.Backends[y].Points.Estimated, p.Backends[x].Points.Estimated), cmp.Compare(x, y))
	})
	var chosen []string
	for _, url := range urls {
		_, has := b.backends[url]
		points := p.Backends[url].Points
		if has || len(b.backends)+len(chosen) < maxBars && points.Estimated > 0 {
			chosen = append(chosen, url)
		}
	}
	return chosen
}

// fill draws a bar. It never completes by itself, since an estimate can be too low.
func (b *bar) fill(part, whole int64, text string) {
	b.say(text)
	if whole > 0 {
		b.drawn.SetCurrent(min(part, whole) * barParts / whole)
	}
}

func (b *bars) say(remark string) {
	_, _ = fmt.Fprintln(b.container, cell(remark)) // after close there is nowhere to print
}

// close leaves the bars as they are and says how it has ended.
func (b *bars) close() {
	for _, one := range b.backends {
		one.drawn.Abort(false)
	}
	if b.whole != nil {
		b.whole.drawn.Abort(false)
	}
	for _, one := range b.below {
		one.drawn.Abort(true)
	}
	b.container.Wait()
	if b.last != nil && b.last.State.Terminal() {
		fmt.Fprintln(b.app.out, ending(b.last))
	}
}

// speed measures points a second over the last while of a phase.
type speed struct {
	phase   string
	samples []sample
}

type sample struct {
	at     time.Time
	points int64
}

// speedWindow is how far it looks back.
const speedWindow = 15 * time.Second

func (s *speed) at(now time.Time, phase string, points int64) float64 {
	if phase != s.phase {
		s.phase, s.samples = phase, nil
	}
	s.samples = append(s.samples, sample{now, points})
	for len(s.samples) > 2 && now.Sub(s.samples[0].at) > speedWindow {
		s.samples = s.samples[1:]
	}
	first := s.samples[0]
	passed := now.Sub(first.at).Seconds()
	if passed <= 0 {
		return 0
	}
	return max(float64(points-first.points)/passed, 0)
}
