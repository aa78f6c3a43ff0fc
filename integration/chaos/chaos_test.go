package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/operation"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// shortSeed is the run of a minute that belongs to all tests.
const shortSeed = 1

// duration is how long things go wrong, half a minute unless CHAOS says otherwise; with
// what is looked at before and after that makes about a minute and a half.
func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("CHAOS")
	if text == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, "CHAOS is a duration")
	return d
}

func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("CHAOS_SEED")
	if text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "CHAOS_SEED is a number")
		return n
	}
	if os.Getenv("CHAOS") == "" {
		return shortSeed
	}
	return uint64(time.Now().UnixNano())
}

// roundTime is how long things go wrong before it is looked, in peace, whether all
// goes on.
const roundTime = 25 * time.Second

// TestChaos is the promise of the whole: whatever dies, stops, is cut off or changes
// its mind, no acknowledged point is missing or turned back, nothing is deleted that
// nobody else has, every operation ends or goes on, and no lease is held twice.
func TestChaos(t *testing.T) {
	number, lasting := seed(t), duration(t)
	again := fmt.Sprintf("CHAOS_SEED=%d make chaos CHAOS=%s", number, lasting)
	t.Logf("to run it again: %s", again)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("this run has failed; to run it again: %s", again)
		}
	})
	s := newSite(t, number)
	dice := rand.New(rand.NewPCG(number, 0))
	troubles := &faults{site: s, dice: rand.New(rand.NewPCG(number, 1)), active: map[string]bool{}}
	operator := &operator{site: s, dice: rand.New(rand.NewPCG(number, 2)), third: true}
	stopContending := s.contenders()
	defer stopContending()
	s.goesOn()

	for end := time.Now().Add(lasting); time.Now().Before(end); {
		until := time.Now().Add(min(roundTime, time.Until(end)))
		ctx, cancel := context.WithDeadline(context.Background(), until)
		for ctx.Err() == nil {
			if dice.IntN(2) == 0 {
				troubles.one(ctx)
			} else {
				operator.act()
			}
			rest(ctx, time.Duration(dice.Int64N(int64(2*time.Second))))
			s.requireClean()
		}
		cancel()
		troubles.calm()
		t.Log("all is well again")
		s.goesOn()
		operator.progresses()
		s.requireClean()
	}

	operator.finish()
	operator.succeed(operator.rebalance())
	operator.succeed(operation.KindResync, map[string]any{})
	// What is left over when the circle has grown is removed, while clients write.
	for _, third := range []bool{false, true} {
		operator.change(third)
	}
	operator.succeed(operation.KindClear, map[string]any{"circle_id": 0})
	require.Positive(t, s.witness.deletions, "the witness has seen deletions")
	s.goesOn()
	stopContending()
	s.requireClean()
	require.Empty(t, s.traffic.Stop(), again)
	s.eventually(time.Minute, "every owner holds what was acknowledged", s.missing)
	s.witness.attempts(s)
	s.requireClean()
	writes, failures, reads := s.traffic.Counts()
	t.Logf("%d faults, %d operations, %d deletions; clients: %d writes, %d reads, %d failures; %d times a lease",
		troubles.count, len(operator.ids), s.witness.deletions, writes, reads, failures, s.witness.leases)
}

// requireClean fails as soon as somebody has seen what must not be.
func (s *site) requireClean() {
	s.t.Helper()
	if wrong := s.traffic.Wrong(); len(wrong) > 0 {
		require.FailNow(s.t, "clients have seen what they must not", "%s\n%s", strings.Join(wrong, "\n"), s.findings())
	}
	require.Empty(s.t, s.witness.all())
}

// goesOn requires that clients are served by everybody.
func (s *site) goesOn() {
	s.t.Helper()
	writes, _, reads := s.traffic.Counts()
	s.eventually(90*time.Second, "clients are served", func() error {
		w, _, r := s.traffic.Counts()
		if w < writes+40 || r < reads+4 {
			return fmt.Errorf("%d writes and %d reads", w-writes, r-reads)
		}
		return nil
	})
}

// contenders take leases from each other until they are stopped.
func (s *site) contenders() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 3)
	for i := range cap(done) {
		go func() {
			defer func() { done <- struct{}{} }()
			b, err := s.connect(ctx, i)
			if err != nil {
				return // it is over before it has begun
			}
			defer b.Close()
			s.witness.contend(ctx, b, fmt.Sprint("contender ", i))
		}()
	}
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range cap(done) {
			<-done
		}
	}
}

// connect connects as a process of its own.
func (s *site) connect(ctx context.Context, i int) (*bus.Bus, error) {
	return s.nats.Connect(ctx, fmt.Sprint("contender ", i))
}
