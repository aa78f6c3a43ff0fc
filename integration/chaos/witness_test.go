package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ringmaster/integration/traffic"
	"ringmaster/pkg/bus"
)

// witness collects what must not be.
type witness struct {
	mu        sync.Mutex
	seen      []string
	deletions int
	// held is until when each lease was surely held, and by whom.
	held   map[string]holding
	leases int
}

type holding struct {
	by    string
	until time.Time
}

func newWitness() *witness { return &witness{held: map[string]holding{}} }

func (w *witness) report(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, a...))
}

// all is what was seen so far.
func (w *witness) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

var deletes = regexp.MustCompile(`DELETE FROM "?([^" ]+)"? WHERE time >= (-?\d+) AND time <=? (-?\d+)`)

// deletion looks, before it is carried out, whether another backend of the circle holds
// all that is to be deleted, or what was written over it.
func (w *witness) deletion(s *site, b *backend, statement string) {
	for _, m := range deletes.FindAllStringSubmatch(statement, -1) {
		name := m[1]
		from, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			w.report("reading %q: %v", statement, err)
			continue
		}
		to, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			w.report("reading %q: %v", statement, err)
			continue
		}
		doomed, err := values(b.url, name, from, to)
		if err != nil {
			continue // it will not be deleted either
		}
		w.mu.Lock()
		w.deletions++
		w.mu.Unlock()
		proven := len(doomed) == 0
		for _, other := range s.backends {
			if other != b && other.circle == b.circle && !proven {
				kept, err := values(other.url, name, from, to)
				proven = err == nil && covers(kept, doomed)
			}
		}
		if !proven {
			w.report("%s deletes %d points of %s that nobody else has", b.url, len(doomed), name)
		}
	}
}

func covers(kept, doomed map[int64]int64) bool {
	for at, v := range doomed {
		if have, ok := kept[at]; !ok || have < v {
			return false
		}
	}
	return true
}

// values asks a server directly.
func values(server, measurement string, from, to int64) (map[int64]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	statement := fmt.Sprintf(`SELECT value FROM "%s" WHERE time >= %d AND time <= %d`, measurement, from, to)
	q := url.Values{"db": {database}, "epoch": {"ns"}, "q": {statement}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/query?"+q.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return traffic.Values(string(raw))
}

// contend takes leases and gives them up again over a connection of its own, and looks
// whether a lease that it gets is surely another's, until ctx ends.
func (w *witness) contend(ctx context.Context, b *bus.Bus, who string) {
	leases, err := b.Leases(ctx)
	for err != nil && ctx.Err() == nil {
		leases, err = b.Leases(ctx)
	}
	for i := 0; ctx.Err() == nil; i++ {
		w.holdOne(ctx, leases, fmt.Sprint("chaos.", i%2), who, i%3)
	}
}

// holdOne takes a lease, if it can, and renews it some times.
func (w *witness) holdOne(ctx context.Context, leases *bus.Leases, key, who string, renewals int) {
	l, err := leases.Acquire(ctx, key, []byte(who))
	if err != nil {
		rest(ctx, 100*time.Millisecond)
		return
	}
	for n := 0; ; n++ {
		w.holds(key, who, l.Expires())
		if n == renewals {
			break
		}
		rest(ctx, leases.TTL()/4)
		if l.Renew(ctx) != nil && !l.Held() {
			return // another may have it by now
		}
	}
	w.givesUp(key, who)
	_ = l.Release(ctx) // it runs out by itself
}

func (w *witness) holds(key, who string, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !now.Before(until) {
		return // it has run out before the answer came: its holder does not take it for his
	}
	w.leases++
	if h := w.held[key]; h.by != who && now.Before(h.until) {
		w.seen = append(w.seen, fmt.Sprintf("%s holds lease %s until %s, which %s holds until %s", who, key, until, h.by, h.until))
	}
	w.held[key] = holding{who, until}
}

func (w *witness) givesUp(key, who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[key].by == who {
		w.held[key] = holding{}
	}
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// attempts looks into what the workers have printed: no attempt of a task is carried
// out twice.
func (w *witness) attempts(s *site) {
	claimed := map[string]string{}
	for _, p := range s.workers {
		for life, out := range p.outputs() {
			who := fmt.Sprint(p.name, " in life ", life)
			for line := range strings.Lines(out) {
				var entry struct {
					Msg, Operation, Task string
					Attempt              int
				}
				if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "task claimed" {
					continue
				}
				name := fmt.Sprintf("%s/%s/%d", entry.Operation, entry.Task, entry.Attempt)
				if other, ok := claimed[name]; ok {
					w.report("attempt %s was claimed by %s and by %s", name, other, who)
				}
				claimed[name] = who
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(claimed) == 0 {
		w.seen = append(w.seen, "no task was claimed at all")
	}
}

// missing compares what the owners hold with what was acknowledged.
func (s *site) missing() error {
	var errs []error
	for _, m := range slices.Sorted(slices.Values(s.traffic.Measurements())) {
		owners, err := s.owners(m)
		if err != nil {
			return err
		}
		for _, at := range slices.Sorted(maps.Keys(owners)) {
			held, err := values(owners[at], m, 0, time.Now().Add(365*24*time.Hour).UnixNano())
			if err != nil {
				return err
			}
			if missed := s.traffic.Missed(m, held); len(missed) > 0 {
				errs = append(errs, fmt.Errorf("circle %d: %d of %s: %s", at, len(missed), m, missed[0]))
			}
		}
	}
	return errors.Join(errs...)
}

// owners asks who owns a measurement in each circle.
func (s *site) owners(measurement string) (map[int]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var where struct {
		Owners []struct {
			CircleID int    `json:"circle_id"`
			URL      string `json:"url"`
		} `json:"owners"`
	}
	query := url.Values{"db": {database}, "measurement": {measurement}}
	if err := s.gateways[0].cluster.Client.Get(ctx, "/v1/where?"+query.Encode(), &where); err != nil {
		return nil, err
	}
	owners := map[int]string{}
	for _, o := range where.Owners {
		for _, b := range s.backends {
			if b.proxy.URL() == o.URL {
				owners[o.CircleID] = b.url
			}
		}
	}
	if len(owners) != 2 {
		return nil, fmt.Errorf("%s has the owners %v", measurement, where.Owners)
	}
	return owners, nil
}

// findings is what every backend lacks of what was acknowledged, and how the gateways
// see them, for who looks for the cause of a failure.
func (s *site) findings() string {
	var out strings.Builder
	for i, b := range s.backends {
		fmt.Fprintf(&out, "backend %d of circle %d is %s, process %s\n", i, b.circle, b.proxy.URL(), b.url)
	}
	for _, m := range slices.Sorted(slices.Values(s.traffic.Measurements())) {
		owners, err := s.owners(m)
		fmt.Fprintf(&out, "%s: owners %v %v\n", m, owners, err)
		for i, b := range s.backends {
			held, err := values(b.url, m, 0, time.Now().Add(365*24*time.Hour).UnixNano())
			if missed := s.traffic.Missed(m, held); len(held) > 0 && len(missed) > 0 || err != nil {
				fmt.Fprintf(&out, "  backend %d has %d of it and lacks %d %v: %s\n", i, len(held), len(missed), err, strings.Join(missed[:min(len(missed), 3)], "; "))
			}
		}
	}
	for _, g := range s.gateways {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, raw, err := g.cluster.Client.Do(ctx, http.MethodGet, "/v1/topology", nil, nil)
		cancel()
		fmt.Fprintf(&out, "%s: %v %s\n", g.name, err, raw)
	}
	return out.String()
}
