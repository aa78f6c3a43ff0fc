package influxproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// removedBackend is a backend as the body of a rebalance names it: an entry of
// influx-proxy's configuration.
type removedBackend struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
	// AuthEncrypt says that username and password are encrypted as in the
	// configuration file (2.5).
	AuthEncrypt bool `json:"auth_encrypt"`
	WriteOnly   bool `json:"write_only"`
}

// readRebalance reads circle and operation, and for rm the body.
func readRebalance(p params, t *topology.Topology) (operation.Move, *operation.Tuning, error) {
	circle, err := p.circle("circle_id", t)
	if err != nil {
		return nil, nil, err
	}
	move := &operation.Rebalance{CircleID: circle.ID, Operation: operation.RebalanceMode(p.get("operation"))}
	switch move.Operation {
	case operation.RebalanceAdd:
	case operation.RebalanceRemove:
		if move.RemovedBackends, err = removedBackends(p.body); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, errOperation
	}
	return move, &move.Tuning, nil
}

// removedBackends reads the body of operation rm: at least one backend, no key
// that is not known.
func removedBackends(body []byte) ([]operation.RemovedBackend, error) {
	var in struct {
		Backends []removedBackend `json:"backends"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, errBackends
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) || len(in.Backends) == 0 {
		return nil, errBackends
	}
	out := make([]operation.RemovedBackend, len(in.Backends))
	for i, b := range in.Backends {
		if b.AuthEncrypt {
			var failed [2]error
			b.Username, failed[0] = topology.DecryptCredential(topology.CipherKey, b.Username)
			b.Password, failed[1] = topology.DecryptCredential(topology.CipherKey, b.Password)
			if errors.Join(failed[:]...) != nil {
				return nil, errBackends
			}
		}
		out[i] = operation.RemovedBackend{Name: b.Name, URL: b.URL, Username: b.Username, Password: b.Password}
	}
	return out, nil
}
