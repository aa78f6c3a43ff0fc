package influxproxy

import (
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// readClear reads the circle and, beyond influx-proxy, the age below which
// nothing is dropped.
func readClear(p params, t *topology.Topology) (operation.Move, *operation.Tuning, error) {
	circle, err := p.circle("circle_id", t)
	if err != nil {
		return nil, nil, err
	}
	older, err := p.natural("older_than_seconds", operation.MaxSeconds, errOlder)
	if err != nil {
		return nil, nil, err
	}
	move := &operation.Clear{CircleID: circle.ID, OlderThanSeconds: older}
	return move, &move.Tuning, p.noBody()
}
