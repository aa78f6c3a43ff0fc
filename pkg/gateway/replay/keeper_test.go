package replay_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/replay"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// frameOf makes a frame of lines for circle 0.
func frameOf(m *member, db, rp string, lines ...string) *hint.Frame {
	return &hint.Frame{
		Epoch: m.session.View().Topology.Epoch, Circles: []int{0}, Database: db, RetentionPolicy: rp,
		Points: len(lines), Lines: []byte(strings.Join(lines, "\n")), WrittenAt: time.Now(),
	}
}

// fail puts a backend into hinting mode.
func (c *cluster) fail(t *testing.T, m *member, url string) {
	t.Helper()
	b := c.backends[url]
	b.mu.Lock()
	b.down = true
	b.mu.Unlock()
	require.NoError(t, m.keeper.Suspect(t.Context(), url, "connection refused"))
	c.await(t, url, serving.Hinting)
}

func (c *cluster) recover(url string) {
	b := c.backends[url]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
}

// await waits for a mode, in virtual time.
func (c *cluster) await(t *testing.T, url string, mode serving.Mode) {
	t.Helper()
	for range 10_000 {
		c.mu.Lock()
		now := c.state.ModeOf(url)
		c.mu.Unlock()
		if now == mode {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("%s does not come into mode %s", url, mode)
}

func TestModesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{backendURL})
		m, other := c.join(), c.join()
		defer other.stop()
		defer m.stop()
		ctx := t.Context()
		c.fail(t, m, backendURL)
		require.NoError(t, other.keeper.Suspect(ctx, backendURL, "again"), "it is known already")
		c.mu.Lock()
		require.Equal(t, "connection refused", c.state.Backlogs[0].Reason)
		c.mu.Unlock()
		for i := range 50 {
			require.NoError(t, m.store.Append(ctx, backendURL, frameOf(m, "db", "", fmt.Sprintf("a v=%di 1", i), fmt.Sprintf("b%d v=1i 1", i))))
		}
		require.NoError(t, m.store.Refresh(ctx))
		log := m.store.Backlogs()
		require.Len(t, log, 1)
		require.Equal(t, uint64(50), log[0].Messages)
		require.Equal(t, serving.Hinting, log[0].Mode)
		<-time.After(time.Second)
		standing := slices.Concat(m.keeper.Standings(), other.keeper.Standings())
		require.Len(t, standing, 2)
		require.NotEqual(t, standing[0].Here, standing[1].Here, "one of them looks after it")
		for _, s := range standing {
			if s.Here {
				require.Equal(t, "waiting until it stores what is written to it", s.Doing)
				require.Contains(t, s.Trouble, "connection refused")
			}
		}
		c.recover(backendURL)
		c.await(t, backendURL, serving.Direct)
		require.Equal(t, "v=49i", c.backends[backendURL].get("a"))
		require.Equal(t, "v=1i", c.backends[backendURL].get("b7"))
		require.Less(t, c.backends[backendURL].writes, 50, "frames travel together")
		require.Equal(t, replay.Counts{Replayed: 100}, replay.Counts{Replayed: m.keeper.Counts().Replayed + other.keeper.Counts().Replayed})
		<-time.After(3 * time.Second)
		require.Empty(t, m.keeper.Standings())
		require.NoError(t, m.store.Refresh(ctx))
		require.Empty(t, m.store.Backlogs())
	})
}

// What lies in the hints when a backend comes under suspicion is not replayed over
// what was written since.
func TestLeftoversAreNotReplayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{backendURL})
		m := c.join()
		defer m.stop()
		require.NoError(t, m.store.Append(t.Context(), backendURL, frameOf(m, "db", "", "old v=1i 1")))
		c.fail(t, m, backendURL)
		require.NoError(t, m.store.Append(t.Context(), backendURL, frameOf(m, "db", "", "new v=1i 1")))
		c.recover(backendURL)
		c.await(t, backendURL, serving.Direct)
		require.Empty(t, c.backends[backendURL].get("old"))
		require.Equal(t, "v=1i", c.backends[backendURL].get("new"))
	})
}

// conflicting refuses lines of strings as InfluxDB does, all of a batch.
func conflicting(_, _ string, lines []byte) error {
	if bytes.Contains(lines, []byte("v=\"")) {
		return refused(http.StatusBadRequest, `field type conflict: input field "v" on measurement "m" is type string, already exists as type integer`, 0, false)
	}
	return nil
}

// expired refuses lines whose time is 1 as InfluxDB does, and stores the others.
func (b *backend) expired(_, _ string, lines []byte) error {
	dropped := 0
	var rest []byte
	for l := range bytes.Lines(lines) {
		if bytes.HasSuffix(bytes.TrimSpace(l), []byte(" 1")) {
			dropped++
		} else {
			rest = append(rest, l...)
		}
	}
	b.apply(string(rest))
	if dropped == 0 {
		return nil
	}
	return refused(http.StatusBadRequest, fmt.Sprintf("partial write: points beyond retention policy dropped=%d", dropped), dropped, true)
}

func (c *cluster) lettersSorted() (all []string) {
	for _, l := range c.letters {
		for line := range strings.Lines(string(l.Lines)) {
			all = append(all, strings.TrimSpace(line)+" | "+l.Reason)
		}
	}
	slices.Sort(all)
	return all
}

func TestRefusedPointsBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	const conflict = ` | field type conflict: input field "v" on measurement "m" is type string, already exists as type integer`
	const unparsed = ` | unable to parse 'm v=': missing field value`
	for name, test := range map[string]struct {
		refuse  func(*backend) func(db, rp string, lines []byte) error
		frames  [][]string
		stored  map[string]string
		letters []string
		most    int // requests
	}{
		"one of many": {
			refuse: func(*backend) func(_, _ string, _ []byte) error { return conflicting },
			frames: [][]string{{"m v=1i 1", "n v=1i 1"}, {`m v="x" 2`}, {"m v=3i 3", "o v=1i 1"}},
			stored: map[string]string{"m": "v=3i", "n": "v=1i", "o": "v=1i"}, letters: []string{`m v="x" 2` + conflict}, most: 8,
		},
		"all, told by their number": {
			refuse:  func(b *backend) func(_, _ string, _ []byte) error { return b.expired },
			frames:  [][]string{{"m v=1i 1", "n v=1i 1"}, {"o v=1i 1", "p v=1i 1"}},
			letters: []string{"m v=1i 1", "n v=1i 1", "o v=1i 1", "p v=1i 1"}, most: 1,
		},
		"some of a partial write": {
			refuse: func(b *backend) func(_, _ string, _ []byte) error { return b.expired },
			frames: [][]string{{"m v=1i 1", "n v=1i 2", "o v=1i 1", "p v=1i 1"}},
			stored: map[string]string{"n": "v=1i"}, letters: []string{"m v=1i 1", "o v=1i 1", "p v=1i 1"}, most: 5,
		},
		"lines that nobody takes": {
			refuse: func(*backend) func(_, _ string, _ []byte) error {
				return func(_, _ string, lines []byte) error {
					if bytes.Contains(lines, []byte("m v=\n")) {
						return refused(http.StatusBadRequest, "unable to parse 'm v=': missing field value", 0, false)
					}
					return nil
				}
			},
			frames: [][]string{{"m v=", "n v=1i 2"}},
			stored: map[string]string{"n": "v=1i"}, letters: []string{"m v=" + unparsed, "n v=1i 2" + unparsed}, most: 3,
		},
		"too large": {
			refuse: func(*backend) func(_, _ string, _ []byte) error {
				return func(_, _ string, lines []byte) error {
					if len(lines) > 20 {
						return refused(http.StatusRequestEntityTooLarge, "Request Entity Too Large", 0, false)
					}
					return nil
				}
			},
			frames: [][]string{{"m v=1i 1", "n v=1i 2", "mmmmmmmmmmmmmmmmmmmmmmmmm v=1i 1", "o v=1i 3"}},
			stored: map[string]string{"m": "v=1i", "n": "v=1i", "o": "v=1i"},
			letters: []string{
				"mmmmmmmmmmmmmmmmmmmmmmmmm v=1i 1 | Request Entity Too Large",
			}, most: 6,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, []string{backendURL})
				m := c.join()
				defer m.stop()
				c.fail(t, m, backendURL)
				for _, f := range test.frames {
					require.NoError(t, m.store.Append(t.Context(), backendURL, frameOf(m, "db", "rp", f...)))
				}
				b := c.backends[backendURL]
				b.refuse = test.refuse(b)
				c.recover(backendURL)
				c.await(t, backendURL, serving.Direct)
				for key, value := range test.stored {
					require.Equal(t, value, b.get(key), key)
				}
				got := c.lettersSorted()
				require.Len(t, got, len(test.letters), "%v", got)
				for i, l := range test.letters {
					require.True(t, strings.HasPrefix(got[i], l), "%q is not %q", got[i], l)
				}
				require.LessOrEqual(t, b.writes, test.most, "requests")
				for _, l := range c.letters {
					require.Equal(t, [3]string{backendURL, "db", "rp"}, [3]string{l.Backend, l.Database, l.RetentionPolicy})
					require.Equal(t, []int{0}, l.Circles)
				}
			})
		})
	}
}

// restoring makes databases.
type restoring struct {
	mu   sync.Mutex
	err  error
	made []string
}

func (p *restoring) Restore(_ context.Context, url, database, policy string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, url+" "+database+" "+policy)
	return p.err
}

func TestALostDatabaseIsMadeAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		restore error
		stored  bool
		letters int
	}{
		"made":                {stored: true},
		"nobody has it":       {restore: replay.ErrNowhere, letters: 1},
		"nobody can tell yet": {restore: errDown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, []string{backendURL})
				p := &restoring{err: test.restore}
				m := c.join(func(o *replay.Options) { o.Restorer = p })
				defer m.stop()
				c.fail(t, m, backendURL)
				require.NoError(t, m.store.Append(t.Context(), backendURL, frameOf(m, "db", "rp", "m v=1i 1")))
				b := c.backends[backendURL]
				b.refuse = func(string, string, []byte) error {
					p.mu.Lock()
					defer p.mu.Unlock()
					if len(p.made) > 0 && p.err == nil {
						return nil
					}
					return refused(http.StatusInternalServerError, "retention policy not found: rp", 0, false)
				}
				c.recover(backendURL)
				if !test.stored && test.letters == 0 {
					<-time.After(5 * time.Second)
					require.Empty(t, c.letters, "it waits")
					require.Contains(t, m.keeper.Standings()[0].Trouble, "retention policy not found")
					p.mu.Lock()
					p.err = nil
					p.mu.Unlock()
				}
				c.await(t, backendURL, serving.Direct)
				require.Len(t, c.letters, test.letters)
				require.Equal(t, test.letters == 0, b.get("m") != "")
				require.Equal(t, backendURL+" db rp", p.made[0])
			})
		})
	}
}

// Refusals that say nothing about the points are waited out.
func TestWhatIsNotAboutThePointsIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, refusal := range []error{
		refused(http.StatusUnauthorized, "authorization failed", 0, false),
		refused(http.StatusForbidden, "not authorized", 0, false),
		refused(http.StatusNotFound, "404 page not found", 0, false),
		refused(http.StatusMethodNotAllowed, "no", 0, false),
		errDown,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, []string{backendURL})
			m := c.join()
			defer m.stop()
			c.fail(t, m, backendURL)
			require.NoError(t, m.store.Append(t.Context(), backendURL, frameOf(m, "db", "rp", "m v=1i 1")))
			b := c.backends[backendURL]
			b.refuse = func(string, string, []byte) error { return refusal }
			c.recover(backendURL)
			<-time.After(3 * time.Second)
			require.Empty(t, c.letters)
			b.mu.Lock()
			b.refuse = nil
			b.mu.Unlock()
			c.await(t, backendURL, serving.Direct)
			require.Equal(t, "v=1i", b.get("m"))
			require.Empty(t, c.letters)
		})
	}
}

// A hint that can't be read becomes a dead letter, whole; what stands around it is
// replayed.
func TestDamagedHintsBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{backendURL})
		m := c.join()
		defer m.stop()
		c.fail(t, m, backendURL)
		ctx := t.Context()
		require.NoError(t, m.store.Append(ctx, backendURL, frameOf(m, "db", "", "a v=1i 1")))
		s := c.streams[backendURL]
		torn := incompressible(1000)
		parts, err := hint.Encode(nil, torn, 256)
		require.NoError(t, err)
		require.Greater(t, len(parts), 1)
		require.NoError(t, s.Append(ctx, parts[:1]))
		require.NoError(t, m.store.Append(ctx, backendURL, frameOf(m, "db", "", "b v=1i 1")))
		require.NoError(t, s.Append(ctx, [][]byte{[]byte("no part")}))
		require.NoError(t, m.store.Append(ctx, backendURL, frameOf(m, "db", "", "c v=1i 1")))
		require.NoError(t, s.Append(ctx, parts[:1]))
		c.recover(backendURL)
		c.await(t, backendURL, serving.Direct)
		for _, key := range []string{"a", "b", "c"} {
			require.Equal(t, "v=1i", c.backends[backendURL].get(key))
		}
		var raw [][]byte
		for _, l := range c.letters {
			raw = append(raw, l.Lines)
			require.Contains(t, l.Reason, "damaged hint frame")
		}
		require.Contains(t, raw, []byte("no part"))
		require.Contains(t, raw, parts[0])
	})
}

// A process that was stopped while it held the lease sends nothing when it goes on.
func TestAPausedKeeperSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{backendURL})
		var mu sync.Mutex
		pause := time.Duration(0)
		paused := c.join(func(o *replay.Options) {
			dial := o.Dial
			o.Dial = func(b *topology.Backend, guard func() error) (replay.Server, error) {
				s, err := dial(b, guard)
				return &pausing{s, func() {
					mu.Lock()
					d := pause
					mu.Unlock()
					<-time.After(d)
				}}, err
			}
		})
		defer paused.stop()
		c.fail(t, paused, backendURL)
		for i := range 40 {
			require.NoError(t, paused.store.Append(t.Context(), backendURL, frameOf(paused, fmt.Sprint("db", i%2), "", fmt.Sprintf("a%d v=%di 1", i%2, i))))
		}
		mu.Lock()
		pause = 3 * time.Second
		mu.Unlock()
		paused.process.mu.Lock()
		paused.gone = true // nothing of it runs
		paused.process.mu.Unlock()
		next := c.join()
		defer next.stop()
		c.recover(backendURL)
		c.await(t, backendURL, serving.Direct)
		b := c.backends[backendURL]
		b.mu.Lock()
		writes := b.writes
		b.mu.Unlock()
		<-time.After(10 * time.Second)
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Equal(t, writes, b.writes)
		require.Equal(t, "v=38i", b.values["a0"])
		require.Equal(t, "v=39i", b.values["a1"])
	})
}

// pausing stops before each write, as a process does that the system has stopped:
// its context ends meanwhile, and nobody notices.
type pausing struct {
	replay.Server
	stop func()
}

func (p *pausing) Write(ctx context.Context, db, rp string, lines []byte) error {
	p.stop()
	return p.Server.Write(context.WithoutCancel(ctx), db, rp, lines)
}

// The hints of a backend that is removed go to the new owners, which keep what they
// have got since; then its stream is removed.
func TestHintsOfARemovedBackendGoToTheNewOwners(t *testing.T) {
	t.Parallel()
	const a, b, other = "http://10.0.0.1:8086", "http://10.0.0.2:8086", "http://10.0.1.1:8086"
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{a, b}, []string{other})
		m := c.join()
		defer m.stop()
		c.fail(t, m, a)
		require.NoError(t, m.store.Append(t.Context(), a, frameOf(m, "db", "", "lost v=1i 1", "newer v=1i 1")))
		require.NoError(t, m.store.Append(t.Context(), a, frameOf(m, "db", "", "lost v=2i 1")))
		c.shape(t, 2, []string{b}, []string{other})
		nb := c.backends[b]
		nb.mu.Lock()
		nb.values["newer"] = "v=9i"
		nb.mu.Unlock()
		c.await(t, a, serving.Direct)
		for range 1000 {
			<-time.After(100 * time.Millisecond)
			c.mu.Lock()
			left := c.streams[a]
			c.mu.Unlock()
			if left == nil {
				break
			}
		}
		require.Nil(t, c.streams[a], "the stream is removed")
		require.Equal(t, "v=9i", nb.get("newer"), "what it has is newer")
		require.Equal(t, "v=1i", nb.get("lost"))
		require.Empty(t, c.backends[other].values, "another circle has its own")
		require.Empty(t, c.letters)
	})
}

// A circle that has gone wants nothing any more.
func TestHintsOfARemovedCircleAreDropped(t *testing.T) {
	t.Parallel()
	const a, b = "http://10.0.0.1:8086", "http://10.0.1.1:8086"
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{b}, []string{a})
		m := c.join()
		defer m.stop()
		c.fail(t, m, a)
		f := frameOf(m, "db", "", "m v=1i 1")
		f.Circles = []int{1}
		require.NoError(t, m.store.Append(t.Context(), a, f))
		c.shape(t, 2, []string{b})
		c.await(t, a, serving.Direct)
		require.Empty(t, c.backends[b].values)
		require.Empty(t, c.letters)
	})
}

// A changed topology that leaves a backend its measurement changes nothing for its
// hints; and those of another measurement go where it went.
func TestHintsAreRoutedByTheTopologyOfTheDay(t *testing.T) {
	t.Parallel()
	const a, b = "http://10.0.0.1:8086", "http://10.0.0.2:8086"
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, []string{a})
		m := c.join()
		defer m.stop()
		c.fail(t, m, a)
		var lines []string
		for i := range 50 {
			lines = append(lines, fmt.Sprintf("m%d v=%di 1", i, i))
		}
		require.NoError(t, m.store.Append(t.Context(), a, frameOf(m, "db", "", lines...)))
		c.shape(t, 2, []string{a, b})
		c.recover(a)
		c.await(t, a, serving.Direct)
		view := m.session.View()
		at := map[string]int{}
		for i := range 50 {
			name := fmt.Sprintf("m%d", i)
			owner := view.Writers(nil, "db", name)[0].Backend.URL
			at[owner]++
			require.Equal(t, fmt.Sprintf("v=%di", i), c.backends[owner].get(name), name)
		}
		require.Len(t, at, 2)
		require.Len(t, c.backends[a].values, at[a])
		require.Len(t, c.backends[b].values, at[b])
	})
}
