package dataset

import (
	"context"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
)

// Tally counts what a set holds, by measurement.
type Tally map[string]*Counts

// Counts are the points of a measurement and the values of each of its fields.
type Counts struct {
	Points int64
	Values map[string]int64
}

// Points is the number of points of all measurements.
func (t Tally) Points() int64 {
	var n int64
	for _, c := range t {
		n += c.Points
	}
	return n
}

func (t Tally) add(p *Point) {
	c := t[p.Series.Measurement]
	if c == nil {
		c = &Counts{Values: map[string]int64{}}
		t[p.Series.Measurement] = c
	}
	c.Points++
	for i, f := range p.Fields {
		if p.Values[i].Kind != lineproto.Null {
			c.Values[f]++
		}
	}
}

// batchBytes is the size from which a batch is written; pending is how many
// batches of one server may wait or be under way.
const (
	batchBytes = 1 << 20
	pending    = 2
)

// Load writes a set to the servers that own its measurements, as owner says, and
// returns what it has written. The servers must have been prepared by [Prepare].
// When it fails, what was written before stays.
func Load(ctx context.Context, s *Set, files fs.FS, owner func(db, measurement string) (*influx.Client, error)) (Tally, error) {
	l := &loader{set: s, owner: owner, lanes: map[*influx.Client]*lane{}, routes: map[string]*lane{}, tally: Tally{}}
	l.writers, l.ctx = errgroup.WithContext(ctx)
	err := l.readAll(files)
	for _, to := range l.lanes {
		close(to.batches)
	}
	if failed := l.writers.Wait(); failed != nil {
		err = failed // what stopped the reader too
	}
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", s.Name, err)
	}
	return l.tally, nil
}

// loader is one run of Load.
type loader struct {
	set     *Set
	owner   func(db, measurement string) (*influx.Client, error)
	ctx     context.Context //nolint:containedctx // of one call of Load
	writers *errgroup.Group
	lanes   map[*influx.Client]*lane
	routes  map[string]*lane
	tally   Tally
}

// lane is the way to one server.
type lane struct {
	encoder lineproto.Encoder
	series  *lineproto.Series
	batch   []byte
	batches chan []byte
}

func (l *loader) readAll(files fs.FS) error {
	for p, err := range l.set.Points(files) {
		if err != nil {
			return err
		}
		to, err := l.route(p.Series.Measurement)
		if err != nil {
			return err
		}
		if err := to.append(p); err != nil {
			return err
		}
		l.tally.add(p)
		if len(to.batch) >= batchBytes {
			if err := to.send(l.ctx); err != nil {
				return err
			}
		}
	}
	for _, to := range l.lanes {
		if len(to.batch) == 0 {
			continue
		}
		if err := to.send(l.ctx); err != nil {
			return err
		}
	}
	return nil
}

// route finds the lane of a measurement.
func (l *loader) route(measurement string) (*lane, error) {
	if to, ok := l.routes[measurement]; ok {
		return to, nil
	}
	server, err := l.owner(l.set.Database, measurement)
	if err != nil {
		return nil, err
	}
	to, ok := l.lanes[server]
	if !ok {
		to = &lane{batches: make(chan []byte, pending)}
		l.lanes[server] = to
		l.writers.Go(func() error {
			for batch := range to.batches {
				if err := server.Write(l.ctx, l.set.Database, l.set.Policy.Name, batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	l.routes[measurement] = to
	return to, nil
}

func (l *lane) append(p *Point) error {
	if l.series != p.Series {
		if err := l.encoder.SetSeries(p.Series, p.Fields); err != nil {
			return err
		}
		l.series = p.Series
	}
	var err error
	l.batch, err = l.encoder.AppendRow(l.batch, p.Time, p.Values)
	return err
}

// send hands the batch to the lane's writer. The writer ends early only when it
// fails, and ctx with it.
func (l *lane) send(ctx context.Context) error {
	select {
	case l.batches <- l.batch:
		l.batch = make([]byte, 0, batchBytes+batchBytes/16)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Prepare makes the databases and retention policies of the sets at a server, and
// no others. Of each database the set with the default policy must come first.
func Prepare(ctx context.Context, server *influx.Client, sets ...Set) error {
	for i := range sets {
		create := server.CreateRetentionPolicy
		if sets[i].Policy.Default {
			create = server.CreateDatabaseWith // CREATE DATABASE alone would add a policy
		}
		if err := create(ctx, sets[i].Database, sets[i].Policy); err != nil {
			return fmt.Errorf("preparing %s at %s: %w", sets[i].Name, server.URL(), err)
		}
	}
	return nil
}
