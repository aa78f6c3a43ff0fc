package ingest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asked is one request of a client, and what one server alone has answered.
type asked struct {
	rp, body string
	want     answer
}

// talk makes what a client asks for, one request after another: most are good. Its
// measurements are its own, so that nothing depends on when others come.
func talk(r *rand.Rand, client, requests int) []asked {
	now, old := base(), time.Now().Add(-3*time.Hour).UnixNano()
	value := func(kind int) string {
		return []string{"1.5", "7i", `"text"`, "true"}[kind]
	}
	all := make([]asked, requests)
	for i := range all {
		a := &all[i]
		var b strings.Builder
		measurement := func() string { return fmt.Sprintf("m%d_%d", client, r.IntN(6)) }
		what := r.IntN(13)
		if i == 0 {
			what = 100
		}
		switch what {
		case 100: // all measurements
			for n := range 6 {
				fmt.Fprintf(&b, "m%d_%d f=1.5,g=1i %d\n", client, n, now)
			}
		case 0: // types that are others
			kind := r.IntN(4)
			for range 1 + r.IntN(5) {
				fmt.Fprintf(&b, "%s,t=%d f=%s %d\n", measurement(), r.IntN(3), value(kind), now+int64(r.IntN(1000)))
			}
		case 12: // a new field in two types among others
			fmt.Fprintf(&b, "%s f=2 %d\nd%d_%d h=1i,f=1 %d\n%s f=3 %d\nd%d_%d f=\"x\",h=1i %d\n%s g=4i %d\n",
				measurement(), now, client, i, now, measurement(), now, client, i, now+1, measurement(), now)
		case 1: // two types of one field, perhaps a new one
			fmt.Fprintf(&b, "c%d_%d f=1 %d\nc%d_%d f=\"x\" %d\n", client, i, now, client, i, now+1)
		case 2: // lines that can't be read
			fmt.Fprintf(&b, "%s f=1 %d\nbad\n%s f=\n", measurement(), now, measurement())
		case 3:
			fmt.Fprintf(&b, "%s,time=x f=1 %d\n%s f=1.5 %d\n", measurement(), now, measurement(), now)
		case 4:
			a.rp = "short"
			fmt.Fprintf(&b, "%s f=1.5\n%s f=1.5 %d\n", measurement(), measurement(), old)
		case 5:
			a.rp = "nope"
			b.WriteString(measurement() + " f=1")
		default:
			for range 1 + r.IntN(20) {
				fmt.Fprintf(&b, "%s,t=%d f=1.5,g=%di %d\n", measurement(), r.IntN(3), r.IntN(100), now+int64(r.IntN(1000)))
			}
		}
		a.body = b.String()
	}
	return all
}

func TestAnswersDoNotDependOnWhatOthersSend(t *testing.T) {
	const clients, requests = 24, 30
	f := start(t, 2, 2)
	f.exec(`CREATE DATABASE db`)
	f.exec(`CREATE RETENTION POLICY short ON db DURATION 1h REPLICATION 1`)
	r := newRig(t, cluster(f.urls()...))

	talks := make([][]asked, clients)
	for c := range talks {
		talks[c] = talk(rand.New(rand.NewPCG(11, uint64(c))), c, requests)
		for i := range talks[c] {
			a := &talks[c][i]
			a.want = direct(t, f.alone.URL(), "db", a.rp, "", "", []byte(a.body), false)
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var wrong []string
	for c := range talks {
		all.Go(func() {
			for i, a := range talks[c] {
				// Every other one cannot be told from the rest.
				if got := r.through(t, "db", a.rp, "", "", client(c), []byte(a.body), false); got != a.want {
					mu.Lock()
					wrong = append(wrong, fmt.Sprintf("client %d request %d %q:\n got %v\nwant %v", c, i, a.body, got, a.want))
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	require.Empty(t, wrong)
	s := r.Stats()
	t.Logf("%+v", s)
	require.Positive(t, s.Split, "refusals met others")
	require.Positive(t, s.Quarantined)

	alone := points(t, "db", f.alone)
	require.Equal(t, alone, points(t, "db", f.circles[0]...))
	require.Equal(t, alone, points(t, "db", f.circles[1]...))
}

// Every request is split over all owners, and all clients write the same points:
// whoever was last was so in all circles.
func TestTheLastWriteWinsInEveryCircle(t *testing.T) {
	const clients, requests = 16, 40
	f := start(t, 2, 2)
	f.exec(`CREATE DATABASE db`)
	r := newRig(t, cluster(f.urls()...))
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(c)))
			for i := range requests {
				var b strings.Builder
				for range 8 {
					fmt.Fprintf(&b, "m%d f=%d %d\n", rnd.IntN(8), c*requests+i, base()+int64(rnd.IntN(4)))
				}
				if got := r.through(t, "db", "", "", "", fmt.Sprint(c), []byte(b.String()), false); got.status != 204 {
					t.Error(got)
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, points(t, "db", f.circles[0]...), points(t, "db", f.circles[1]...))
}

func client(c int) string {
	if c%2 == 0 {
		return ""
	}
	return fmt.Sprint("client", c)
}
