package replay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
)

// lane writes one point again and again, each time with the next value: the next one
// only after the last was acknowledged, through whichever process.
type lane struct {
	key              string
	acked, attempted int
}

func (l *lane) run(ctx context.Context, via func() *member, rounds int, random *rand.Rand) {
	for range rounds {
		l.attempted++
		for !l.write(ctx, via()) {
			if ctx.Err() != nil {
				return
			}
		}
		l.acked = l.attempted
		<-time.After(time.Duration(random.IntN(4)) * time.Millisecond)
	}
}

// write tries once, and reports whether the value was acknowledged.
func (l *lane) write(ctx context.Context, m *member) bool {
	b := m.cluster.backends[backendURL]
	line := fmt.Appendf(nil, "%s v=%di %d\n", l.key, l.attempted, 1)
	changed := m.session.Changed()
	mode, end, err := m.session.BeginSend(backendURL)
	if err != nil {
		<-time.After(10 * time.Millisecond)
		return false
	}
	switch {
	case mode.Sends():
		sending, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		err = b.write(sending, "db", "", line)
		cancel()
		end()
		if err != nil && m.keeper.Suspect(ctx, backendURL, err.Error()) != nil {
			// Its process has died, and nobody knows of the request that it was
			// sending. A client that does not wait for its end would overtake
			// itself at one InfluxDB, too.
			for b.carriesOut() > 0 && ctx.Err() == nil {
				<-time.After(10 * time.Millisecond)
			}
		}
		return err == nil
	case mode.Hints():
		err = m.store.Append(ctx, backendURL, &hint.Frame{
			Epoch: m.session.View().Topology.Epoch, Circles: []int{0}, Database: "db", Points: 1, Lines: line, WrittenAt: time.Now(),
		})
		end()
		return err == nil
	default:
		end()
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		}
		return false
	}
}

// step is something that happens to the cluster.
type step struct {
	what  string
	which int
	after time.Duration
}

func drawSteps(t *rapid.T) []step {
	steps := make([]step, rapid.IntRange(1, 8).Draw(t, "steps"))
	for i := range steps {
		steps[i] = step{
			what:  rapid.SampledFrom([]string{"down", "up", "hang", "wake", "kill", "stop", "flap", "blip", "blip", "slow", "fast"}).Draw(t, "what"),
			which: rapid.IntRange(0, 2).Draw(t, "which"),
			after: time.Duration(rapid.IntRange(0, 400).Draw(t, "after")) * time.Millisecond,
		}
	}
	return steps
}

// Whatever happens to the backend and to the processes, the last acknowledged value
// of each point is what the backend has in the end: nothing acknowledged is lost, and
// nothing older comes over it.
func TestOrderIsKeptAndNothingIsLost(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("Go 1.26's runtime crashes now and then when so many timers of a bubble run under the race detector")
	}
	rapid.Check(t, func(rt *rapid.T) {
		steps, seed := drawSteps(rt), rapid.Uint64().Draw(rt, "seed")
		var failure string
		synctest.Test(t, func(t *testing.T) { failure = play(t, steps, seed) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

const processes = 3

// play plays a history and returns what is wrong in the end.
func play(t *testing.T, steps []step, seed uint64) string {
	c := newCluster(t, []string{backendURL})
	b := c.backends[backendURL]
	members := make([]*member, processes)
	var lanes []*lane
	var writers sync.WaitGroup
	writing, enough := context.WithCancel(t.Context())
	defer writers.Wait()
	defer enough()
	var mu sync.Mutex
	for i := range members {
		members[i] = c.join()
	}
	replace := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		members[i] = c.join()
	}
	for i := range 8 {
		l, random := &lane{key: fmt.Sprint("k", i)}, rand.New(rand.NewPCG(seed, uint64(i)))
		lanes = append(lanes, l)
		via := func() *member {
			mu.Lock()
			defer mu.Unlock()
			if i < processes { // always the same
				return members[i]
			}
			return members[random.IntN(processes)]
		}
		writers.Go(func() { l.run(writing, via, 150, random) })
	}
	var waking sync.WaitGroup
	wake := func() { waking.Go(b.wake) }
	set := func(change func()) {
		b.mu.Lock()
		defer b.mu.Unlock()
		change()
	}
	for _, s := range steps {
		<-time.After(s.after)
		switch s.what {
		case "down":
			set(func() { b.down = true })
		case "up":
			set(func() { b.down = false })
		case "hang":
			set(func() { b.hung = true })
		case "wake":
			wake()
		case "slow":
			set(func() { b.took = 30 * time.Millisecond })
		case "fast":
			set(func() { b.took = 0 })
		case "blip":
			set(func() { b.blip = true })
		case "flap":
			for range 3 {
				set(func() { b.down = true })
				<-time.After(30 * time.Millisecond)
				set(func() { b.down = false })
				<-time.After(60 * time.Millisecond)
			}
		case "kill":
			members[s.which].kill()
			replace(s.which)
		case "stop":
			members[s.which].stop()
			replace(s.which)
		}
	}
	set(func() { b.down, b.took = false, 0 })
	wake()
	waking.Wait()
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	failure := ""
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		failure = "writes do not end; " + describe(c, members)
	}
	for deadline := time.Now().Add(2 * time.Minute); failure == "" && !calm(c); {
		if time.Now().After(deadline) {
			failure = "the backend does not come back; " + describe(c, members)
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, m := range members {
		m.stop()
	}
	if failure != "" {
		return failure
	}
	if len(c.letters) > 0 {
		return fmt.Sprintf("%d dead letters", len(c.letters))
	}
	for _, l := range lanes {
		got := -1
		if v := strings.TrimSuffix(strings.TrimPrefix(b.get(l.key), "v="), "i"); v != "" {
			var err error
			if got, err = strconv.Atoi(v); err != nil {
				return err.Error()
			}
		}
		if got != l.acked {
			return fmt.Sprintf("%s is %d, and %d was acknowledged last (of %d)", l.key, got, l.acked, l.attempted)
		}
	}
	return ""
}

// calm reports whether the backend is in direct mode, with nothing waiting for it.
func calm(c *cluster) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[backendURL]
	return c.state.ModeOf(backendURL) == serving.Direct && (s == nil || len(s.messages) == 0)
}

func describe(c *cluster, members []*member) string {
	var b strings.Builder
	c.mu.Lock()
	fmt.Fprintf(&b, "mode %s", c.state.ModeOf(backendURL))
	if s := c.streams[backendURL]; s != nil {
		fmt.Fprintf(&b, ", %d hints", len(s.messages))
	}
	c.mu.Unlock()
	for i, m := range members {
		fmt.Fprintf(&b, "; process %d: %+v", i, m.keeper.Standings())
	}
	return b.String()
}
