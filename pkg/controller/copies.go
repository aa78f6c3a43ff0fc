package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/ledger"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/serving"
)

// Settler makes both ends of slices equal once more; see mover.Mover.Settle.
type Settler interface {
	Settle(ctx context.Context, op *operation.Operation, s mover.Settlement) (mover.Settled, error)
}

// copies reports whether an operation copies points that clients may be writing at
// the same time, in a process that takes part in serving them.
func (t *turn) copies() bool {
	kind := t.record.Value.Kind
	return t.options.Accord != nil && t.options.Settler != nil &&
		(kind == operation.KindRebalance || kind == operation.KindRecovery || kind == operation.KindResync || t.repairs())
}

// openPatience is how often it is looked whether a transition has been opened.
const openPatience = 100 * time.Millisecond

// awaitOpen waits until writes go to the new owners of the operation's circles, too,
// and nobody writes any more as it was before: what is surveyed then is all there is
// to be moved.
func (t *turn) awaitOpen(ctx context.Context) error {
	if !t.copies() {
		return nil
	}
	circles, err := t.circles()
	if err != nil {
		return err
	}
	since := t.options.Now().UTC()
	told := false
	for {
		view := t.options.Accord.View()
		// This process may not have heard of the operation's epoch yet.
		opening := view.Topology.Epoch < t.record.Value.Epoch || slices.ContainsFunc(view.State.Transitions, func(tr serving.Transition) bool {
			return slices.Contains(circles, tr.Circle) && tr.Step == serving.Opening
		})
		if !opening {
			if told {
				t.waitAt(ctx, nil)
			}
			return t.options.Accord.AwaitWrites(ctx, view.Revision)
		}
		told = true
		t.waitAt(ctx, &operation.Wait{
			Gate: "transition", Measured: fmt.Sprintf("epoch %d is at step %s", t.record.Value.Epoch, serving.Opening),
			Limit: "every process writes to the new owners", Since: since,
		})
		if err := pauseFor(ctx, openPatience); err != nil {
			return err
		}
		if err := t.check(ctx); err != nil {
			return err
		}
	}
}

// transitionInTheWay refuses an operation that would take a circle's new owners for
// complete while it is changing. A rebalance is what completes them, and a recovery
// may fill a circle that was not there before.
func (t *turn) transitionInTheWay(state *serving.State, circles []int) error {
	kind := t.record.Value.Kind
	if kind == operation.KindVerify && !t.repairs() {
		return nil // whoever is read is compared
	}
	for i := range state.Transitions {
		tr := &state.Transitions[i]
		fills := kind == operation.KindRecovery && tr.New() && len(circles) == 2 && circles[1] == tr.Circle
		if kind == operation.KindRebalance || fills || !slices.Contains(circles, tr.Circle) {
			continue
		}
		remedy := "rebalance it first"
		if tr.New() {
			remedy = "start a recovery into it first"
		}
		if tr.Step != serving.Opening && tr.Step != serving.WriteBoth {
			remedy = "wait until GET /v1/topology shows no transition"
		}
		return &operation.Error{
			Code:   "transition_open",
			Detail: fmt.Sprintf("circle %d is still changing to epoch %d (%s); %s", tr.Circle, tr.Epoch, tr.Step, remedy),
		}
	}
	return nil
}

// circles are those between which the operation copies.
func (t *turn) circles() ([]int, error) {
	p, err := operation.ParseMove(t.record.Value.Kind, t.record.Value.Parameters)
	if err != nil {
		return nil, err
	}
	return p.Circles(len(t.options.Accord.View().Topology.Circles)), nil
}

// beginCopy has everybody who writes note what they write, before anything is
// copied, and keeps readers away from what is being filled.
func (t *turn) beginCopy(ctx context.Context) error {
	if !t.copies() {
		return nil
	}
	circles, err := t.circles()
	if err != nil {
		return err
	}
	op := &t.record.Value
	c := serving.Copy{Operation: op.ID, Circles: circles, Round: 1}
	if op.Kind == operation.KindRecovery {
		c.Fills = circles[1:]
	}
	if op.Kind == operation.KindVerify {
		// What it brings is looked at by itself, so nothing has to be noted; see
		// awaitRepair.
		c.Circles = nil
	}
	if op.Kind == operation.KindResync {
		// The first circle's values stay; those of the others may give way to one
		// of a moment ago until what is written meanwhile has been settled.
		c.Avoid = circles[1:]
	}
	view, err := t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		state := v.State.Clone()
		if known := state.Copying(op.ID); known != nil && !known.Settled {
			return state, nil
		}
		state = state.WithCopy(c)
		for _, circle := range c.Fills {
			// A mark of before stays: this recovery may be of a part only.
			if !slices.ContainsFunc(state.Incomplete, func(i serving.Incomplete) bool { return i.Circle == circle }) {
				state = state.WithIncomplete(circle, unfilled(op.ID), t.options.Now())
			}
		}
		return state, nil
	})
	if err != nil {
		return err
	}
	return t.options.Accord.AwaitWrites(ctx, view.Revision)
}

// unfilled is why a circle is incomplete after a recovery that has not succeeded.
func unfilled(operation string) string {
	return fmt.Sprintf("recovery %s into it has not succeeded", operation)
}

// endCopy gives back what beginCopy asked for.
func (t *turn) endCopy(ctx context.Context) error {
	if !t.copies() {
		return nil
	}
	id := t.record.Value.ID
	// The record is asked, not what this process last heard of it: a copy that stayed
	// would be in the way of others for ever.
	_, err := t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) { return v.State.WithoutCopy(id), nil })
	if err != nil {
		return err
	}
	return t.ledger.ForgetNotes(ctx, id)
}

// Bounds of settling. Writes are held for holdBudget at most, which is below
// serving.HoldLimit so that nobody writes before the operation has given up; a
// settlement that is not done in that time lets them pass and tries again.
const (
	holdBudget  = time.Second
	maxSettling = 100
	mostHeld    = 512
	// maxStuck is how often ends may differ although nobody writes to them.
	maxStuck = 3
)

// errNotSettled ends an operation whose ends differ however often it looks.
func errNotSettled(example string) error {
	return &operation.Error{
		Code:   "not_settled",
		Detail: fmt.Sprintf("the ends of the copy still differ however often they are compared and mended (%s); what is copied stays copied; start it again", example),
	}
}

// settled makes what clients wrote during the copy equal at both ends, and ends
// with what only a comparison allows: reads move over to the new owners, and a
// circle that was filled may be read. unproven is what the verification found
// unequal; with clients writing that may only have been a moment.
//
// The last comparison is made while writes of what it compares wait.
func (t *turn) settled(ctx context.Context, unproven []mover.Settlement) error {
	if done, err := t.alreadySettled(ctx); done || err != nil {
		return err
	}
	return t.settle(ctx, unproven)
}

// settle is settled for a copy that is not.
func (t *turn) settle(ctx context.Context, unproven []mover.Settlement) error {
	pending := unproven
	var held []serving.Measurement
	example, stuck := "", 0
	for attempt := range maxSettling {
		if err := t.awaitDirect(ctx); err != nil {
			return err
		}
		// Writes pass between two rounds that hold them.
		hold := attempt%2 == 1
		began := t.options.Now()
		finished, err := t.nextRound(ctx, hold, held)
		if err != nil {
			return err
		}
		// Who settled before may have died with what was left: nothing of it was
		// forgotten.
		first := finished
		if attempt == 0 {
			first = 1
		}
		notes, pairs, err := t.noted(ctx, first, finished)
		if err != nil {
			return errors.Join(err, t.release(ctx))
		}
		work, known := append(slices.Clone(pending), pairs...), len(held)
		if hold {
			work = heldApart(work, held)
		}
		for _, n := range notes {
			held = with(held, serving.Measurement{Database: n.Database, RetentionPolicy: n.RetentionPolicy, Name: n.Measurement})
		}
		unheld := len(held) > known
		budget := time.Duration(0)
		if hold {
			budget = holdBudget - t.options.Now().Sub(began)
		}
		left, why, err := t.settleAll(ctx, work, budget)
		if err != nil {
			return errors.Join(err, t.release(ctx))
		}
		// Where nothing was written there is nothing to hold, and no hurry.
		inTime := len(held) == 0 || hold && t.options.Now().Sub(began) < holdBudget
		if len(left) == 0 && !unheld && inTime {
			if err := t.cutOver(ctx); !errors.Is(err, errBacklog) {
				return err
			}
		}
		pending, example = left, why
		if hold && len(notes) == 0 && len(left) > 0 {
			if stuck++; stuck == maxStuck {
				break
			}
		}
		held = withSlicesOf(held, left)
	}
	return errors.Join(errNotSettled(example), t.release(ctx))
}

// alreadySettled reports whether this was done before: whoever did it may have died, or
// found that somebody had changed the record, before the operation was ended.
func (t *turn) alreadySettled(ctx context.Context) (done bool, err error) {
	_, err = t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		c := v.State.Copying(t.record.Value.ID)
		done = c != nil && c.Settled
		return v.State, nil
	})
	return done, err
}

// heldApart sets the slices apart whose writes are held: in those alone, what a source
// lacks is brought to it.
func heldApart(all []mover.Settlement, held []serving.Measurement) []mover.Settlement {
	var out []mover.Settlement
	for i := range all {
		waits, passes := all[i], all[i]
		waits.Held, waits.Slices, passes.Slices = true, nil, nil
		for _, s := range all[i].Slices {
			if isHeld(held, &s) {
				waits.Slices = append(waits.Slices, s)
			} else {
				passes.Slices = append(passes.Slices, s)
			}
		}
		for _, part := range []mover.Settlement{waits, passes} {
			if len(part.Slices) > 0 {
				out = append(out, part)
			}
		}
	}
	return out
}

// isHeld reports whether all writes of a slice wait while some measurements are held: of
// any policy where none is named, which is how clients write to the default one.
func isHeld(held []serving.Measurement, s *operation.Slice) bool {
	return slices.ContainsFunc(held, func(m serving.Measurement) bool {
		return m.Database == s.Database && m.Name == s.Measurement && (m.RetentionPolicy == "" || m.RetentionPolicy == s.RetentionPolicy)
	})
}

// with adds a measurement to a list, once.
func with(all []serving.Measurement, m serving.Measurement) []serving.Measurement {
	if slices.Contains(all, m) {
		return all
	}
	return append(all, m)
}

// withSlicesOf adds the measurements of what is left to be compared.
func withSlicesOf(all []serving.Measurement, left []mover.Settlement) []serving.Measurement {
	for _, l := range left {
		for _, s := range l.Slices {
			all = with(all, serving.Measurement{Database: s.Database, RetentionPolicy: s.RetentionPolicy, Name: s.Measurement})
		}
	}
	return all
}

// noted returns the notes of some rounds, and what there is to compare for them.
func (t *turn) noted(ctx context.Context, first, last int) ([]ledger.Note, settlements, error) {
	var all []ledger.Note
	for round := first; round <= last; round++ {
		notes, err := t.ledger.Notes(ctx, t.record.Value.ID, round)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, notes...)
	}
	pairs, err := t.pairs(all)
	return all, pairs, err
}

// nextRound begins another round of notes and returns the one that is finished,
// once everybody has passed over to the next.
func (t *turn) nextRound(ctx context.Context, hold bool, held []serving.Measurement) (finished int, err error) {
	id := t.record.Value.ID
	view, err := t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		c := v.State.Copying(id)
		if c == nil {
			return serving.State{}, &operation.Error{Code: "copy_lost", Detail: "the operation's note of being at work is gone; start it again: what is copied stays copied"}
		}
		next := *c
		finished = c.Round
		next.Round++
		next.Hold, next.HoldAll = nil, hold && len(held) > mostHeld
		if hold && !next.HoldAll {
			next.Hold = held
		}
		return v.State.WithCopy(next), nil
	})
	if err != nil {
		return 0, err
	}
	return finished, t.options.Accord.AwaitWrites(ctx, view.Revision)
}

// release lets writes pass again, also after what held them was cut off.
func (t *turn) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, err := t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		c := v.State.Copying(t.record.Value.ID)
		if c == nil {
			return v.State, nil
		}
		next := *c
		next.Hold, next.HoldAll = nil, false
		return v.State.WithCopy(next), nil
	})
	return err
}

// awaitDirect waits until no backend that is written to has writes waiting for it:
// what is compared would not be what was acknowledged.
func (t *turn) awaitDirect(ctx context.Context) error {
	since, told := t.options.Now().UTC(), false
	for {
		backlogs := t.options.Accord.View().State.Backlogs
		if len(backlogs) == 0 {
			if told {
				t.waitAt(ctx, nil)
			}
			return nil
		}
		told = true
		t.waitAt(ctx, &operation.Wait{
			Gate: "hints", Backend: backlogs[0].Backend, Measured: operation.Clip(string(backlogs[0].Mode) + ": " + backlogs[0].Reason),
			Limit: "no writes wait for any backend", Since: since,
		})
		if err := pauseFor(ctx, openPatience); err != nil {
			return err
		}
		if err := t.check(ctx); err != nil {
			return err
		}
	}
}

// pairs says between which backends what was noted has to be looked at once more:
// from where the operation takes a point's value to where it may have brought an
// older one.
func (t *turn) pairs(notes []ledger.Note) (settlements, error) {
	view, op := t.options.Accord.View(), &t.record.Value
	circles, err := t.circles()
	if err != nil {
		return nil, err
	}
	var out settlements
	for i := range notes {
		n := &notes[i]
		s := operation.Slice{Database: n.Database, RetentionPolicy: n.RetentionPolicy, Measurement: n.Measurement, From: n.From, To: n.To}
		owner := func(circle int) string { return view.Reader(circle, n.Database, n.Measurement).URL }
		switch op.Kind {
		case operation.KindRecovery:
			out.add(owner(circles[0]), target(view, circles[1], n), operation.Rule{Overrule: true}, s)
		case operation.KindResync:
			for _, c := range circles[1:] {
				out.add(owner(circles[0]), owner(c), operation.Rule{Overrule: true, Mutual: true}, s)
			}
		default:
			to := target(view, circles[0], n)
			if from := owner(circles[0]); from != to {
				out.add(from, to, operation.Rule{Overrule: true}, s)
				continue
			}
			// Nobody but another circle knows what was written here meanwhile.
			for _, c := range view.Circles() {
				if c != circles[0] && view.Unreadable(c) == "" {
					out.add(owner(c), to, operation.Rule{Overrule: true}, s)
					break
				}
			}
		}
	}
	return out, nil
}

// target is the owner of what was noted under the present topology.
func target(v *serving.View, circle int, n *ledger.Note) string {
	all := v.Writers(nil, n.Database, n.Measurement)
	url := ""
	for i := range all {
		if all[i].Circle == circle {
			url = all[i].Backend.URL // the new owner stands behind the old one
		}
	}
	return url
}

// settlements gathers slices by their ends.
type settlements []mover.Settlement

func (all *settlements) add(from, to string, rule operation.Rule, s operation.Slice) {
	if from == to || from == "" || to == "" {
		return
	}
	for i := range *all {
		if o := &(*all)[i]; o.Source == from && o.Destination == to && o.Rule == rule {
			o.Slices = append(o.Slices, s)
			return
		}
	}
	*all = append(*all, mover.Settlement{Source: from, Destination: to, Rule: rule, Slices: []operation.Slice{s}})
}

// settleAll settles what there is, within a budget unless that is 0, and returns
// what is left, with an example of why.
func (t *turn) settleAll(ctx context.Context, work []mover.Settlement, budget time.Duration) (left []mover.Settlement, example string, err error) {
	bounded := ctx
	if budget != 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, budget)
		defer cancel()
	}
	for i := range work {
		done, err := t.options.Settler.Settle(bounded, &t.record.Value, work[i])
		if err != nil {
			if bounded.Err() != nil && ctx.Err() == nil {
				return append(left, passing(work[i:])...), "there was too much to compare in the time that writes may wait", nil
			}
			return nil, "", fmt.Errorf("comparing what was written meanwhile: %w", err)
		}
		if len(done.Left) > 0 {
			rest := work[i]
			rest.Slices, rest.Held = done.Left, false
			left, example = append(left, rest), done.Example
		}
	}
	return left, example, nil
}

// passing are settlements while no writes are held.
func passing(all []mover.Settlement) []mover.Settlement {
	all = slices.Clone(all)
	for i := range all {
		all[i].Held = false
	}
	return all
}

// errBacklog: writes have come to wait for a backend meanwhile. What was compared may
// not be what was acknowledged.
var errBacklog = errors.New("writes wait for a backend")

// cutOver ends the copy in one step with what it has made true: the owners that
// have been proven are read from here on.
func (t *turn) cutOver(ctx context.Context) error {
	op := &t.record.Value
	_, err := t.options.Accord.Change(ctx, func(v *serving.View) (serving.State, error) {
		if len(v.State.Backlogs) > 0 {
			return serving.State{}, errBacklog
		}
		state := v.State.WithSettled(op.ID)
		circles, err := t.circles()
		if err != nil {
			return state, err
		}
		whole, err := t.whole()
		if err != nil {
			return state, err
		}
		to := circles[0]
		switch op.Kind {
		case operation.KindRecovery:
			to = circles[1]
			mark := serving.Incomplete{Circle: to}
			for _, m := range state.Incomplete {
				if m.Circle == to {
					mark = m
				}
			}
			if whole || mark.Reason == unfilled(op.ID) {
				state = state.WithIncomplete(to, "", t.options.Now())
			}
		case operation.KindRebalance:
		default:
			return state, nil
		}
		tr := state.In(to)
		if tr == nil || tr.Step != serving.WriteBoth || !whole || tr.New() != (op.Kind == operation.KindRecovery) {
			return state, nil
		}
		return state.Stepped(to, serving.WriteBoth, op.ID, t.options.Now())
	})
	return err
}

// whole reports whether the operation was asked for everything its circles hold.
func (t *turn) whole() (bool, error) {
	op := &t.record.Value
	p, err := operation.ParseMove(op.Kind, op.Parameters)
	if err != nil {
		return false, err
	}
	period := p.Period(op.CreatedAt)
	whole := len(p.Tuned().Databases) == 0 && period.From == nil && period.To == nil
	if r, ok := p.(operation.Recovery); ok {
		whole = whole && len(r.BackendURLs) == 0
	}
	return whole, nil
}
