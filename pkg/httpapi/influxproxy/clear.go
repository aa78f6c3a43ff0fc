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
	// Elsewhere a parameter that is not known is passed over, as influx-proxy does.
	// Here a slip of the pen would delete more than was meant.
	if err := p.only(clearParameters()...); err != nil {
		return nil, nil, err
	}
	older, err := p.natural("older_than_seconds", operation.MaxSeconds, errOlder)
	if err != nil {
		return nil, nil, err
	}
	move := &operation.Clear{CircleID: circle.ID, OlderThanSeconds: older}
	return move, &move.Tuning, p.noBody()
}

// clearParameters are those that a clear takes, in both generations' names.
func clearParameters() []string {
	return []string{
		"circle_id", "older_than_seconds", "db", "dbs", "cpus", "worker", "batch", "limit", "depth", "dry_run", "hold", "reason",
		"ha_addrs", "u", "p", "pretty",
	}
}
