package bus_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus"
)

func testBatchAllOrNothing(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	messages := func(scopes ...string) []bus.Message {
		var m []bus.Message
		for _, s := range scopes {
			m = append(m, bus.Message{Subject: events.CommandSubject(name, s), Data: []byte(s)})
		}
		return m
	}
	_, err := e.here.PublishBatch(ctx, events.StreamCommands, messages("b"))
	require.NoError(t, err)

	_, err = e.there.PublishBatch(ctx, events.StreamCommands, messages("a", "b", "c"))
	require.ErrorIs(t, err, bus.ErrSubjectTaken)
	var taken *bus.SubjectTakenError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, []string{events.CommandSubject(name, "b")}, taken.Subjects)
	require.Contains(t, err.Error(), taken.Subjects[0])

	_, err = e.here.PublishBatch(ctx, events.StreamCommands, messages("a", "a"))
	require.ErrorIs(t, err, bus.ErrSubjectTaken, "two messages on one subject")

	var open []string
	for r, err := range e.there.Scopes().Open(ctx, "ringmaster.command."+name+".*") {
		require.NoError(t, err)
		open = append(open, string(r.Data))
	}
	require.Equal(t, []string{"b"}, open)

	_, err = e.here.PublishBatch(ctx, events.StreamEvents, messages("d"))
	require.Error(t, err, "not that stream's subject")
}

func testBatchSequences(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	const size = 5
	var wg sync.WaitGroup
	for i := range 8 {
		b := []*bus.Bus{e.here, e.there}[i%2]
		wg.Go(func() {
			var m []bus.Message
			for j := range size {
				m = append(m, bus.Message{Subject: events.CommandSubject(name, fmt.Sprintf("%d-%d", i, j)), Data: text("%d", j)})
			}
			sequences, err := b.PublishBatch(ctx, events.StreamCommands, m)
			if err != nil || len(sequences) != size {
				t.Errorf("batch %d: %v, %v", i, sequences, err)
				return
			}
			for j, want := range m {
				for r, err := range b.Scopes().Open(ctx, want.Subject) {
					if err != nil || r.Sequence != sequences[j] {
						t.Errorf("%s has sequence %d, answer says %d (%v)", want.Subject, r.Sequence, sequences[j], err)
					}
				}
			}
			if err := b.Scopes().Release(ctx, sequences); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { // a replica may be behind
		for range e.here.Scopes().Open(ctx, "ringmaster.command."+name+".*") {
			return false
		}
		return true
	}, "something was not released")
}

func testBatchSize(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	_, err := e.here.PublishBatch(ctx, events.StreamCommands, nil)
	require.Error(t, err)
	messages := make([]bus.Message, bus.MaxBatch+1)
	for i := range messages {
		messages[i] = bus.Message{Subject: events.CommandSubject(name, fmt.Sprint(i))}
	}
	_, err = e.here.PublishBatch(ctx, events.StreamCommands, messages)
	require.Error(t, err)
	sequences, err := e.here.PublishBatch(ctx, events.StreamCommands, messages[:bus.MaxBatch])
	require.NoError(t, err)
	require.Len(t, sequences, bus.MaxBatch)
}

// take takes scopes for an operation with a command of its own.
func take(t *testing.T, b *bus.Bus, operation string, scopes ...string) ([]uint64, error) {
	return b.Scopes().Take(t.Context(), operation,
		bus.Message{Subject: events.CommandSubject("rebalance", operation), Data: []byte("command of " + operation)}, scopes)
}

func testScopes(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	first, second := name+"-1", name+"-2"
	a, b, c := "circle/"+name, "index/"+name+"/dst", "index/"+name

	sequences, err := take(t, e.here, first, a, b)
	require.NoError(t, err)
	require.Len(t, sequences, 3)

	lock, err := e.there.Scopes().Holder(ctx, b)
	require.NoError(t, err)
	require.Equal(t, first, lock.Holder)
	require.Equal(t, b, lock.Scope)
	require.Equal(t, sequences[2], lock.Sequence)
	require.False(t, lock.Time.IsZero())

	_, err = take(t, e.there, second, c, b)
	require.ErrorIs(t, err, bus.ErrScopeHeld)
	var held *bus.ScopeHeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, bus.ScopeHeldError{Scope: b, Holder: first, Sequence: sequences[2]}, *held)
	_, err = e.here.Scopes().Holder(ctx, c)
	require.ErrorIs(t, err, bus.ErrNotFound, "nothing is taken by halves")
	ofSecond, err := e.here.Scopes().HeldBy(ctx, second)
	require.NoError(t, err)
	require.Empty(t, ofSecond)

	locks := map[string]string{}
	for r, err := range e.there.Scopes().Open(ctx, events.AllScopes) {
		require.NoError(t, err)
		scope, ok := events.ParseScopeSubject(r.Subject)
		require.True(t, ok)
		locks[scope] = string(r.Data)
	}
	require.Equal(t, first, locks[a])
	require.Equal(t, first, locks[b])
	commands := map[string]string{}
	for r, err := range e.there.Scopes().Open(ctx, events.AllCommands) {
		require.NoError(t, err)
		if _, operation, ok := events.ParseCommandSubject(r.Subject); ok {
			commands[operation] = string(r.Data)
		}
	}
	require.Equal(t, "command of "+first, commands[first])
	require.NotContains(t, commands, second)

	ofFirst, err := e.there.Scopes().HeldBy(ctx, first)
	require.NoError(t, err)
	require.ElementsMatch(t, sequences, ofFirst)

	require.NoError(t, e.there.Scopes().Release(ctx, sequences))
	require.NoError(t, e.here.Scopes().Release(ctx, sequences), "what is gone is no error")
	next, err := take(t, e.here, second, c, b)
	require.NoError(t, err)
	require.NoError(t, e.there.Scopes().Release(ctx, sequences), "an old release touches nothing new")
	lock, err = e.there.Scopes().Holder(ctx, b)
	require.NoError(t, err)
	require.Equal(t, second, lock.Holder)
	require.NoError(t, e.here.Scopes().Release(ctx, next))
}

// An operation whose answer was lost takes again and gets what it has.
func testScopesTakeAgain(t *testing.T, e env) {
	name := unique(t)
	results := make(chan []uint64, 8)
	var wg sync.WaitGroup
	for i := range cap(results) {
		b := []*bus.Bus{e.here, e.there}[i%2]
		wg.Go(func() {
			sequences, err := take(t, b, name, "circle/"+name+"/0", "circle/"+name+"/1")
			if err != nil {
				t.Error(err)
			}
			results <- sequences
		})
	}
	wg.Wait()
	first := <-results
	require.Len(t, first, 3)
	for range cap(results) - 1 {
		require.Equal(t, first, <-results)
	}
	require.NoError(t, e.here.Scopes().Release(t.Context(), first))
}

// A release that was cut off leaves some locks of an operation; taking again
// replaces them.
func testScopesLeftBehind(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	sequences, err := take(t, e.here, name, "circle/"+name+"/0", "circle/"+name+"/1")
	require.NoError(t, err)
	require.NoError(t, e.here.Scopes().Release(ctx, sequences[:2]))
	again, err := take(t, e.there, name, "circle/"+name+"/0", "circle/"+name+"/1")
	require.NoError(t, err)
	require.Len(t, again, 3)
	require.Greater(t, again[0], sequences[2])
	require.NoError(t, e.here.Scopes().Release(ctx, again))
}

// The newest messages of the stream are released first.
func testScopesNewestReleased(t *testing.T, e env) {
	ctx, name := t.Context(), unique(t)
	older, err := take(t, e.here, name+"-1", "circle/"+name+"/0")
	require.NoError(t, err)
	newer, err := take(t, e.there, name+"-2", "circle/"+name+"/1")
	require.NoError(t, err)
	require.NoError(t, e.there.Scopes().Release(ctx, newer))
	held, err := e.here.Scopes().HeldBy(ctx, name+"-1")
	require.NoError(t, err)
	require.Equal(t, older, held)
	require.NoError(t, e.here.Scopes().Release(ctx, held))
}

// Three operations want two of three scopes each, so that any two collide: each
// of 400 times exactly one gets both, and the others learn who. Four such
// contests run side by side.
func testScopesOneWinner(t *testing.T, e env) {
	var wg sync.WaitGroup
	for lane := range 4 {
		wg.Go(func() {
			for round := range 100 {
				if err := contest(t, e, fmt.Sprintf("%s-%d", unique(t), lane), round); err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func contest(t *testing.T, e env, name string, round int) error {
	type result struct {
		operation string
		sequences []uint64
		err       error
	}
	scope := func(i int) string { return fmt.Sprintf("circle/%s/%d", name, i%3) }
	results := make(chan result, 3)
	for i := range cap(results) {
		b := []*bus.Bus{e.here, e.there}[(i+round)%2]
		go func() {
			operation := fmt.Sprintf("%s-%d-%d", name, round, i)
			sequences, err := take(t, b, operation, scope(i), scope(i+1))
			results <- result{operation, sequences, err}
		}()
	}
	var winners []result
	var holders []string
	for range cap(results) {
		r := <-results
		var held *bus.ScopeHeldError
		switch {
		case r.err == nil:
			winners = append(winners, r)
		case errors.As(r.err, &held):
			holders = append(holders, held.Holder)
		default:
			return r.err
		}
	}
	if len(winners) != 1 {
		return fmt.Errorf("%d winners", len(winners))
	}
	for _, h := range holders {
		if h != winners[0].operation {
			return fmt.Errorf("%s has won, a loser was told %s", winners[0].operation, h)
		}
	}
	return e.here.Scopes().Release(t.Context(), winners[0].sequences)
}
