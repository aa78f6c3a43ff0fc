package mover_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/mover"
	"ringmaster/pkg/operation"
)

// settling is two servers with a database of two policies and points that differ.
type settling struct {
	t      *testing.T
	mover  *mover.Mover
	op     operation.Operation
	source *influxtest.Server
	target *influxtest.Server
}

const settleDay = int64(24 * time.Hour)

func newSettling(t *testing.T) *settling {
	t.Helper()
	s := &settling{t: t, source: influxtest.Start(t), target: influxtest.Start(t), mover: mover.New(&backends{}, mover.Config{})}
	for _, b := range []*influxtest.Server{s.source, s.target} {
		b.Exec(`CREATE DATABASE db WITH DURATION INF SHARD DURATION 1d NAME one`)
		b.Exec(`CREATE RETENTION POLICY two ON db DURATION INF REPLICATION 1 SHARD DURATION 1d`)
	}
	return s
}

func (s *settling) settle(rule operation.Rule, slices ...operation.Slice) mover.Settled {
	s.t.Helper()
	done, err := s.mover.Settle(s.t.Context(), &s.op, mover.Settlement{Source: s.source.URL(), Destination: s.target.URL(), Rule: rule, Slices: slices})
	require.NoError(s.t, err)
	return done
}

// Whatever differs in the slices is written, by value and over shard groups, in the
// policy that an empty name means; nothing else is touched.
func TestSettleMakesWhatWasWrittenEqual(t *testing.T) {
	t.Parallel()
	s := newSettling(t)
	line := func(m string, v int, at int64) string { return fmt.Sprintf("%s,host=a v=%di %d\n", m, v, at) }
	var at []int64
	for i := range int64(6) {
		at = append(at, i*settleDay/2+7)
	}
	for i, ns := range at {
		s.source.WriteLines("db", "one", line("m", 100+i, ns)+line("other", 1, ns))
		if i%2 == 0 {
			s.target.WriteLines("db", "one", line("m", i, ns)) // an older value
		}
	}
	s.target.WriteLines("db", "one", line("m", 5, at[5]+1)) // beyond the source
	s.source.WriteLines("db", "two", line("m", 7, at[0]))
	s.target.WriteLines("db", "two", line("m", 6, at[0]))

	all := operation.Slice{Database: "db", Measurement: "m", From: 0, To: at[5] + 2}
	done := s.settle(operation.Rule{Overrule: true}, all)
	require.Equal(t, int64(len(at)), done.Compared)
	require.Equal(t, int64(len(at)), done.Repaired)
	require.Empty(t, done.Left)
	want := []string{"one " + line("m", 5, at[5]+1), "two " + line("m", 6, at[0])} // what only it has, and another policy
	for i, ns := range at {
		want = append(want, "one "+line("m", 100+i, ns))
	}
	require.ElementsMatch(t, want, dump(t, s.target.URL(), "db"))

	again := s.settle(operation.Rule{Overrule: true}, all)
	require.Zero(t, again.Repaired)
	require.Equal(t, int64(len(at)), again.Compared)

	two := all
	two.RetentionPolicy = "two"
	require.Equal(t, int64(1), s.settle(operation.Rule{Overrule: true}, two).Repaired)

	both := operation.Rule{Overrule: true, Mutual: true}
	mutual := s.settle(both, all)
	require.Zero(t, mutual.Repaired, "a client may be writing it to both")
	require.Len(t, mutual.Left, 1)
	require.NotContains(t, strings.Join(dump(t, s.source.URL(), "db"), "\n"), fmt.Sprint(at[5]+1))
	mutual, err := s.mover.Settle(t.Context(), &s.op, mover.Settlement{
		Source: s.source.URL(), Destination: s.target.URL(), Rule: both, Slices: mutual.Left, Held: true,
	})
	require.NoError(t, err)
	require.Equal(t, int64(1), mutual.Repaired)
	require.Empty(t, mutual.Left)
	require.Contains(t, strings.Join(dump(t, s.source.URL(), "db"), "\n"), fmt.Sprint(at[5]+1))
}

// Without Overrule the destination's values stay, and that is no difference that is
// left. Slices of databases, measurements and times that are not there are empty.
func TestSettleByRule(t *testing.T) {
	t.Parallel()
	s := newSettling(t)
	s.source.WriteLines("db", "one", "m v=1i 1\nm v=1i 2\n")
	s.target.WriteLines("db", "one", "m v=2i 1\n")
	done := s.settle(operation.Rule{},
		operation.Slice{Database: "db", Measurement: "m", From: 0, To: 10},
		operation.Slice{Database: "db", Measurement: "m", From: 300 * settleDay, To: 301 * settleDay},
		operation.Slice{Database: "db", Measurement: "nothing", From: 0, To: 10},
		operation.Slice{Database: "gone", Measurement: "m", From: 0, To: 10},
	)
	require.Equal(t, mover.Settled{Compared: 2, Repaired: 1}, done)
	require.Empty(t, s.settle(operation.Rule{Overrule: true}).Left)
}

// A destination that forgets what it acknowledges is not believed.
func TestSettleTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := newSettling(t)
	s.source.WriteLines("db", "one", "m v=1i 1\n")
	s.target.Exec(`DROP DATABASE db`)
	_, err := s.mover.Settle(t.Context(), &s.op, mover.Settlement{
		Source: s.source.URL(), Destination: s.target.URL(), Rule: operation.Rule{Overrule: true},
		Slices: []operation.Slice{{Database: "db", RetentionPolicy: "one", Measurement: "m", From: 0, To: 10}},
	})
	require.ErrorContains(t, err, "database not found")
}
