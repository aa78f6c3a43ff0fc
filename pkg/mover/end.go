package mover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/lineproto"
	"ringmaster/pkg/operation"
)

// end is one of the two backends of a task.
type end struct {
	*influx.Client

	mover *Mover
	types influx.MixedTypes
	// void says that it does not know the policy at hand, and so holds nothing of
	// what is compared; asked, it would answer with an error.
	void bool
}

// unsigned remembers which backends may hold unsigned integers, for all tasks of
// this process: to find out takes a request that looks odd in a server's log.
type unsigned struct {
	mu    sync.Mutex
	known map[string]unsignedAnswer
}

type unsignedAnswer struct {
	at    time.Time
	takes bool
}

// unsignedFor is how long an answer holds: a server may be replaced.
const unsignedFor = 10 * time.Minute

// mayHoldUnsigned reports whether the backend may hold unsigned integers.
func (e *end) mayHoldUnsigned(ctx context.Context, db string) (bool, error) {
	u := &e.mover.unsigned
	now := e.mover.config.Now()
	u.mu.Lock()
	known, ok := u.known[e.URL()]
	u.mu.Unlock()
	if ok && now.Sub(known.at) < unsignedFor {
		return known.takes, nil
	}
	takes, err := e.TakesUnsigned(ctx, db)
	var refusal *influx.Error
	if errors.As(err, &refusal) && refusal.Status != 0 {
		// It takes no writes now, which is no reason not to read it.
		return true, nil
	}
	if err != nil {
		return false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known[e.URL()] = unsignedAnswer{now, takes}
	return takes, nil
}

// read asks for the points of slices; nil stands for none at all. A server does not
// tell small unsigned integers from others, so where there may be any, their fields
// are named.
func (e *end) read(ctx context.Context, all []operation.Slice) (*influx.Stream, error) {
	if e.void {
		return nil, nil //nolint:nilnil // a stream without a point
	}
	sels := selections(all)
	if err := e.nameUnsigned(ctx, sels); err != nil {
		return nil, err
	}
	rows, err := e.Read(ctx, sels)
	if err != nil {
		e.observe(e.mover.config.Now(), err)
	}
	return rows, err
}

// nameUnsigned names the unsigned fields of the selections.
func (e *end) nameUnsigned(ctx context.Context, sels []influx.Selection) error {
	may, err := e.mayHoldUnsigned(ctx, sels[0].Database)
	if err != nil || !may {
		return err
	}
	for i := range sels {
		if i > 0 && sels[i].SameMeasurement(&sels[i-1]) {
			sels[i].Unsigned = sels[i-1].Unsigned
			continue
		}
		if sels[i].Unsigned, err = e.unsignedFields(ctx, &sels[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *end) unsignedFields(ctx context.Context, sel *influx.Selection) ([]string, error) {
	fields, err := e.FieldKeys(ctx, sel.Database, sel.RetentionPolicy, sel.Measurement)
	if err != nil {
		return nil, err
	}
	var unsigned []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		switch kinds := fields[name]; {
		case !slices.Contains(kinds, lineproto.Unsigned):
		case slices.Contains(kinds, lineproto.Integer):
			return nil, &operation.Error{
				Code: "type_ambiguous",
				Detail: operation.Clip(fmt.Sprintf("field %q has signed and unsigned integers in different shard groups of %s, which InfluxDB does not tell apart when it is read; "+
					"rewrite the field with one type and start the operation again", name, e.URL())),
			}
		default:
			unsigned = append(unsigned, name)
		}
	}
	return unsigned, nil
}
