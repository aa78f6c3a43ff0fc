package influxproxy

import (
	"math"
	"time"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// readResync reads how far back; every circle takes part.
func readResync(p params, _ *topology.Topology) (operation.Move, *operation.Tuning, error) {
	since, err := p.since()
	if err != nil {
		return nil, nil, err
	}
	move := &operation.Resync{Since: since}
	return move, &move.Tuning, p.noBody()
}

// since reads how far back a move goes: days, hours, minutes and seconds before
// now, which add up (2.4), or since, a Unix time in seconds that 2.5 has also
// called tick. Without any, or with 0, it is all of time.
func (p params) since() (operation.Since, error) {
	var none operation.Since
	var ago int64
	for _, unit := range []struct {
		name    string
		seconds int64
	}{{"days", 86400}, {"hours", 3600}, {"minutes", 60}, {"seconds", 1}} {
		n, err := p.natural(unit.name, operation.MaxSeconds/unit.seconds, errSeconds)
		if err != nil {
			return none, err
		}
		ago += n * unit.seconds
	}
	if ago > operation.MaxSeconds {
		return none, errSeconds
	}
	const latest = math.MaxInt64 / int64(time.Second)
	moment, err := p.natural("since", latest, errSince)
	if err != nil {
		return none, err
	}
	tick, err := p.natural("tick", latest, errTick)
	if err != nil {
		return none, err
	}
	if moment == 0 {
		moment = tick
	}
	switch {
	case moment == 0:
		return operation.Since{SinceSeconds: ago}, nil
	case ago > 0:
		return none, errSinceTwice
	default:
		at := time.Unix(moment, 0).UTC()
		return operation.Since{Since: &at}, nil
	}
}
