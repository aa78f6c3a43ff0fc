// Package traffic is clients that write, overwrite and read through a gateway
// without pause, and know what they must see: the last value that was acknowledged,
// or one that was sent since.
package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say what the clients do. All of them are required but those with a default.
type Options struct {
	// Targets are the gateways' base URLs; each request goes to one of them, those of
	// one measurement to the same one, as the order of several is not defined.
	Targets []string
	// Database must exist.
	Database string
	// Writers is how many clients write; each has Measurements of its own.
	Writers, Measurements int
	// Readers is how many clients read what the writers write.
	Readers int
	// Batch is how many points a write has.
	Batch int
	// Begin is the time of the first points; each further one is Step later (10 s).
	Begin time.Time
	Step  time.Duration
	// Most bounds the points of a measurement, after which all writes overwrite; 0
	// means that there is no bound. Pause is between a client's requests.
	Most  int
	Pause time.Duration
	// Faults says that requests may fail: what is not acknowledged is then sent
	// again. Without it an answer that one InfluxDB would not have given is recorded.
	Faults bool
	Seed   uint64
}

// Traffic is clients at work.
type Traffic struct {
	options Options
	client  *http.Client
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu       sync.Mutex
	points   map[string][]point // by measurement, in order of time
	wrong    []string
	writes   int
	failures int
	reads    int
}

// point is what is known of one point's value: numbers grow with every write.
type point struct {
	acked, sent int64
}

// Start lets the clients begin.
func Start(o Options) *Traffic {
	if o.Step == 0 {
		o.Step = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Traffic{
		options: o, stop: cancel, points: map[string][]point{},
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: o.Writers + o.Readers}},
	}
	for w := range o.Writers {
		t.clients.Go(func() { t.write(ctx, w, rand.New(rand.NewPCG(o.Seed, uint64(w)))) })
	}
	for r := range o.Readers {
		t.clients.Go(func() { t.read(ctx, rand.New(rand.NewPCG(o.Seed, 1000+uint64(r)))) })
	}
	return t
}

// Counts returns how many writes were acknowledged, how many requests failed and how
// many reads were compared so far.
func (t *Traffic) Counts() (writes, failures, reads int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.writes, t.failures, t.reads
}

// Wrong returns what the clients have seen so far that they must not have.
func (t *Traffic) Wrong() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.wrong)
}

// Stop ends the clients, each after the answer it waits for, and returns what they
// have seen that they must not have.
func (t *Traffic) Stop() []string {
	t.stop()
	t.clients.Wait()
	t.client.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wrong
}

// Measurements returns the measurements that have been written.
func (t *Traffic) Measurements() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for m := range t.points {
		all = append(all, m)
	}
	return all
}

// Missed compares the values that a server holds of a measurement, by time in
// nanoseconds, with what was acknowledged, and names what is missing or too old.
func (t *Traffic) Missed(measurement string, held map[int64]int64) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var missed []string
	for i, p := range t.points[measurement] {
		if p.acked == 0 {
			continue
		}
		at := t.time(i)
		switch v, ok := held[at]; {
		case !ok:
			missed = append(missed, fmt.Sprintf("%s at %d is missing; %d was acknowledged", measurement, at, p.acked))
		case v < p.acked || v > p.sent:
			missed = append(missed, fmt.Sprintf("%s at %d is %d; %d was acknowledged last, %d sent", measurement, at, v, p.acked, p.sent))
		}
	}
	return missed
}

func (t *Traffic) time(i int) int64 {
	return t.options.Begin.UnixNano() + int64(i)*t.options.Step.Nanoseconds()
}

// mostWrong bounds what is kept of what went wrong.
const mostWrong = 20

func (t *Traffic) complain(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.wrong) < mostWrong {
		t.wrong = append(t.wrong, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, a...))
	}
}

// target is where the requests about a measurement go.
func (t *Traffic) target(writer int) string { return t.options.Targets[writer%len(t.options.Targets)] }

// write is one client: half of a batch is new points, half overwrites known ones.
func (t *Traffic) write(ctx context.Context, writer int, dice *rand.Rand) {
	number := int64(0)
	for pause(ctx, t.options.Pause) {
		m := name(writer, dice.IntN(t.options.Measurements))
		t.mu.Lock()
		known := t.points[m]
		touched := map[int]bool{}
		for range t.options.Batch {
			i := len(known)
			if i > 0 && (i == t.options.Most || dice.IntN(2) == 0) {
				i = dice.IntN(len(known))
			} else {
				known = append(known, point{})
			}
			touched[i] = true
		}
		t.points[m] = known
		var lines strings.Builder
		for i := range touched {
			number++
			known[i].sent = number
			fmt.Fprintf(&lines, "%s,writer=%d value=%di %d\n", m, writer, number, t.time(i))
		}
		sent := map[int]int64{}
		for i := range touched {
			sent[i] = known[i].sent
		}
		t.mu.Unlock()
		if !t.send(ctx, writer, lines.String()) {
			continue
		}
		t.mu.Lock()
		t.writes++
		for i, n := range sent {
			t.points[m][i].acked = n
		}
		t.mu.Unlock()
	}
}

func name(writer, i int) string { return fmt.Sprintf("m-%d-%d", writer, i) }

// again is how long a client waits before it sends again what has failed.
const again = 20 * time.Millisecond

// send writes lines until they are acknowledged; false when the clients are to end.
func (t *Traffic) send(ctx context.Context, writer int, lines string) bool {
	for {
		status, body, err := t.post(context.WithoutCancel(ctx), t.target(writer)+"/write?db="+url.QueryEscape(t.options.Database), lines)
		switch {
		case err == nil && status == http.StatusNoContent:
			return true
		case ctx.Err() != nil && t.options.Faults:
			return false
		}
		t.mu.Lock()
		t.failures++
		t.mu.Unlock()
		if !t.options.Faults {
			t.complain("a write was answered %d %s %v", status, body, err)
		}
		if !pause(ctx, again) {
			return false
		}
	}
}

// pause waits; false when the clients are to end.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (t *Traffic) post(ctx context.Context, address, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	return t.do(r)
}

func (t *Traffic) do(r *http.Request) (int, string, error) {
	res, err := t.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), err
}

// read is one client: it asks for a whole measurement and compares.
func (t *Traffic) read(ctx context.Context, dice *rand.Rand) {
	for pause(ctx, t.options.Pause) {
		writer := dice.IntN(t.options.Writers)
		m := name(writer, dice.IntN(t.options.Measurements))
		t.mu.Lock()
		before := append([]point(nil), t.points[m]...)
		t.mu.Unlock()
		if len(before) == 0 {
			pause(ctx, again)
			continue
		}
		held, err := t.query(ctx, t.target(writer), m)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.mu.Lock()
			t.failures++
			t.mu.Unlock()
			if !t.options.Faults {
				t.complain("a read of %s: %v", m, err)
			}
			pause(ctx, again)
			continue
		}
		t.mu.Lock()
		after := append([]point(nil), t.points[m]...)
		t.reads++
		t.mu.Unlock()
		for i, p := range before {
			if p.acked == 0 {
				continue
			}
			switch v, ok := held[t.time(i)]; {
			case !ok:
				t.complain("a hole: %s at %d, of which %d was acknowledged", m, t.time(i), p.acked)
			case v < p.acked || v > after[i].sent:
				t.complain("an old value: %s at %d is %d, %d was acknowledged before the read began", m, t.time(i), v, p.acked)
			}
		}
	}
}

// query returns the values of a measurement by time.
func (t *Traffic) query(ctx context.Context, target, measurement string) (map[int64]int64, error) {
	q := url.Values{"db": {t.options.Database}, "epoch": {"ns"}, "q": {`SELECT value FROM "` + measurement + `"`}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target+"/query?"+q.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	status, body, err := t.do(r)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", status, body)
	}
	return Values(body)
}

// Values reads the answer to a query of times and whole numbers.
func Values(body string) (map[int64]int64, error) {
	var answer struct {
		Results []struct {
			Error  string
			Series []struct{ Values [][]json.Number }
		}
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, fmt.Errorf("reading the answer %q: %w", body, err)
	}
	held := map[int64]int64{}
	for _, result := range answer.Results {
		if result.Error != "" {
			return nil, fmt.Errorf("the answer says %s", result.Error)
		}
		for _, s := range result.Series {
			for _, row := range s.Values {
				at, err := strconv.ParseInt(row[0].String(), 10, 64)
				if err != nil {
					return nil, err
				}
				if held[at], err = strconv.ParseInt(row[1].String(), 10, 64); err != nil {
					return nil, err
				}
			}
		}
	}
	return held, nil
}
