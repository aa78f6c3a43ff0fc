package influxproxy

import (
	"fmt"
	"slices"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// readRecovery reads the two circles, the backends to fill and how far back.
func readRecovery(p params, t *topology.Topology) (operation.Move, *operation.Tuning, error) {
	from, err := p.circle("from_circle_id", t)
	if err != nil {
		return nil, nil, err
	}
	to, err := p.circle("to_circle_id", t)
	if err != nil {
		return nil, nil, err
	}
	if from.ID == to.ID {
		return nil, nil, errSameCircle
	}
	move := &operation.Recovery{FromCircleID: from.ID, ToCircleID: to.ID}
	if move.Since, err = p.since(); err != nil {
		return nil, nil, err
	}
	if move.BackendURLs, err = p.backends("backend_urls", to); err != nil {
		return nil, nil, err
	}
	return move, &move.Tuning, p.noBody()
}

// backends reads a comma list of backends of a circle and returns their addresses
// as the configuration spells them, each once.
func (p params) backends(name string, circle *topology.Circle) ([]string, error) {
	given, err := p.list(name)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, address := range given {
		b := circle.On(address)
		if b == nil {
			return nil, refusal(fmt.Sprintf("invalid %s, circle %d has no backend %+.200q", name, circle.ID, address))
		}
		if !slices.Contains(addresses, b.URL) {
			addresses = append(addresses, b.URL)
		}
	}
	return addresses, nil
}
