package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"time"

	"ringmaster/integration/harness"
)

// fault is something that goes wrong, and what makes it good again.
type fault struct {
	name string
	// target is what it happens to; one thing happens to it at a time.
	target string
	begin  func() error
	heal   func(ctx context.Context) error
}

// faults keeps what is wrong at present.
type faults struct {
	site *site
	dice *rand.Rand

	mu     sync.Mutex
	active map[string]bool
	all    sync.WaitGroup
	count  int
}

// mostFaults is how much goes wrong at a time.
const mostFaults = 3

// one lets something go wrong for a while, unless enough is wrong.
func (f *faults) one(ctx context.Context) {
	chosen := f.choose()
	lasting := 200*time.Millisecond + time.Duration(f.dice.Int64N(int64(6*time.Second)))
	f.mu.Lock()
	taken := f.active[chosen.target] || len(f.active) >= mostFaults
	if !taken {
		f.active[chosen.target] = true
		f.count++
	}
	f.mu.Unlock()
	if taken {
		return
	}
	f.site.t.Logf("%s for %s", chosen.name, lasting.Round(10*time.Millisecond))
	f.all.Go(func() {
		err := chosen.begin()
		rest(ctx, lasting)
		healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		defer cancel()
		if err = errors.Join(err, chosen.heal(healing)); err != nil {
			f.site.witness.report("%s: %v", chosen.name, err)
		}
		f.mu.Lock()
		delete(f.active, chosen.target)
		f.mu.Unlock()
	})
}

// calm waits until nothing is wrong any more.
func (f *faults) calm() { f.all.Wait() }

func (f *faults) choose() fault {
	switch f.dice.IntN(10) {
	case 0, 1, 2:
		return f.ofNATS()
	case 3, 4, 5:
		return f.ofBackend()
	case 6, 7:
		return f.ofProcess(f.site.gateways[f.dice.IntN(len(f.site.gateways))].process)
	default:
		return f.ofProcess(f.site.workers[f.dice.IntN(len(f.site.workers))])
	}
}

// ofNATS is trouble of one server; the target is all of them, since they are there
// to outlive one.
func (f *faults) ofNATS() fault {
	n, i := f.site.nats, f.dice.IntN(3)
	none := func() error { return nil }
	one := fault{target: "nats"}
	switch f.dice.IntN(4) {
	case 0:
		one.name, one.begin = fmt.Sprintf("NATS server %d is killed", i), func() error { n.Kill(i); return nil }
		one.heal = func(context.Context) error { return n.Start(i) }
	case 1:
		one.name, one.begin = fmt.Sprintf("NATS server %d is stopped", i), func() error { return n.Pause(i) }
		one.heal = func(context.Context) error { return n.Resume(i) }
	case 2:
		one.name, one.begin = fmt.Sprintf("NATS server %d is cut off from the others", i), func() error { n.Isolate(i); return nil }
		one.heal = func(context.Context) error { n.Rejoin(i); return nil }
	default:
		leaders := []string{"KV_ringmaster_tasks_v1", "KV_ringmaster_operations_v1", "RINGMASTER_TASKS_V1", "RINGMASTER_COMMANDS_V1", "KV_ringmaster_leases_v1", "KV_ringmaster_topology_v1"}
		stream := leaders[f.dice.IntN(len(leaders))]
		killed := -1
		one.name = "the leader of " + stream + " is killed"
		one.begin = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if leader, err := n.Leader(ctx, stream); err == nil && leader >= 0 {
				killed = leader
				n.Kill(killed)
			}
			return none()
		}
		one.heal = func(context.Context) error {
			if killed < 0 {
				return nil
			}
			return n.Start(killed)
		}
	}
	heal := one.heal
	one.heal = func(ctx context.Context) error { return errors.Join(heal(ctx), n.AwaitReady(ctx)) }
	return one
}

// ofBackend is trouble of one InfluxDB server.
func (f *faults) ofBackend() fault {
	i := f.dice.IntN(len(f.site.backends))
	b := f.site.backends[i]
	one := fault{target: fmt.Sprint("backend ", i), heal: func(context.Context) error { f.site.serve(b, nil); return nil }}
	broken := func(h http.HandlerFunc) func() error {
		return func() error { f.site.serve(b, h); return nil }
	}
	switch f.dice.IntN(4) {
	case 0:
		one.name, one.begin = fmt.Sprintf("backend %d is killed", i), func() error { b.process.Kill(); return nil }
		one.heal = b.restart
	case 1:
		one.name, one.begin = fmt.Sprintf("backend %d is a black hole", i), broken(b.proxy.Swallow)
	case 2:
		one.name, one.begin = fmt.Sprintf("backend %d answers 503", i), broken(harness.Refuse(http.StatusServiceUnavailable, "chaos"))
	default:
		one.name, one.begin = fmt.Sprintf("the answers of backend %d are lost", i), broken(func(w http.ResponseWriter, r *http.Request) {
			// What deletes is not carried out behind the back of the witness.
			if r.URL.Path == "/query" {
				harness.Hangup()
			}
			b.proxy.CutAnswer(0)(w, r)
		})
	}
	return one
}

// ofProcess is trouble of a gateway or a worker.
func (f *faults) ofProcess(p *process) fault {
	one := fault{target: p.name, heal: p.launch}
	switch f.dice.IntN(5) {
	case 0, 1:
		one.name, one.begin = p.name+" is killed", func() error { return p.end(true) }
	case 2:
		one.name = p.name + " is restarted"
		one.begin = func() error { return p.end(false) }
	case 3:
		one.name, one.begin = p.name+" is stopped", func() error { return p.running().Signal(syscall.SIGSTOP) }
		one.heal = func(context.Context) error { return p.running().Signal(syscall.SIGCONT) }
	default:
		one.name, one.begin = p.name+" is cut off from NATS", func() error { p.eachLine((*harness.Line).Cut); return nil }
		one.heal = func(context.Context) error { p.eachLine((*harness.Line).Mend); return nil }
	}
	return one
}

func (p *process) eachLine(do func(*harness.Line)) {
	for _, l := range p.lines {
		do(l)
	}
}
