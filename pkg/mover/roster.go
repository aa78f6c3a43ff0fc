package mover

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"ringmaster/pkg/bus"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/topology"
)

// Epochs reads topology records, credentials sealed.
type Epochs interface {
	TopologyAt(ctx context.Context, epoch uint64) (*topology.Topology, error)
}

// Roster gives clients for the backends of operations: those of the topology
// epoch that the operation is pinned to, and the removed ones it names itself.
type Roster struct {
	epochs  Epochs
	sealer  topology.Sealer
	context string
	options influx.Options
}

// NewRoster returns a roster that opens sealed credentials with sealer;
// sealContext is what topology records were sealed for.
func NewRoster(e Epochs, sealer topology.Sealer, sealContext string, o influx.Options) *Roster {
	return &Roster{epochs: e, sealer: sealer, context: sealContext, options: o}
}

// Client implements Backends.
func (r *Roster) Client(ctx context.Context, op *operation.Operation, address string, guard func() error) (*influx.Client, error) {
	credentials, err := r.credentials(ctx, op, address)
	if err != nil {
		return nil, err
	}
	o := r.options
	o.Guard = guard
	// Line protocol shrinks to about a tenth: over a network that is worth the
	// work, on one host it only costs both ends time.
	o.Gzip = o.Gzip || !onLoopback(address)
	return influx.New(influx.Endpoint{URL: address, Username: credentials.Username, Password: credentials.Password}, o)
}

// onLoopback reports whether an address names this host itself.
func onLoopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (r *Roster) credentials(ctx context.Context, op *operation.Operation, address string) (topology.Credentials, error) {
	// A backend that has left a circle is in an epoch before.
	for epoch, looked := op.Epoch, 0; epoch != 0 && looked < maxEpochs; looked++ {
		sealed, err := r.epochs.TopologyAt(ctx, epoch)
		if looked > 0 && errors.Is(err, bus.ErrNotFound) {
			break
		}
		if err != nil {
			return topology.Credentials{}, err
		}
		if known, ok := backendIn(sealed, address); ok {
			return r.open(known)
		}
		epoch = sealed.Parent
	}
	if op.Kind != operation.KindRebalance {
		return topology.Credentials{}, fmt.Errorf("operation %s has no backend %s", op.ID, address)
	}
	p, err := operation.ParseRebalance(op.Parameters)
	if err != nil {
		return topology.Credentials{}, err
	}
	for _, b := range p.RemovedBackends {
		if b.URL == address {
			return openRemoved(r.sealer, op.ID, b)
		}
	}
	return topology.Credentials{}, fmt.Errorf("operation %s has no backend %s", op.ID, address)
}

// maxEpochs bounds how far back a former backend is looked for.
const maxEpochs = 100

// backendIn returns a topology with the backend of this address alone.
func backendIn(t *topology.Topology, address string) (*topology.Topology, bool) {
	for i := range t.Circles {
		for j := range t.Circles[i].Backends {
			if b := t.Circles[i].Backends[j]; b.URL == address {
				return &topology.Topology{Circles: []topology.Circle{{Backends: []topology.Backend{b}}}}, true
			}
		}
	}
	return nil, false
}

// open returns the credentials of a topology with one backend.
func (r *Roster) open(one *topology.Topology) (topology.Credentials, error) {
	opened, err := one.Open(r.sealer, r.context)
	if err != nil {
		return topology.Credentials{}, fmt.Errorf("opening the credentials of %s: %w", one.Circles[0].Backends[0].URL, err)
	}
	return opened.Circles[0].Backends[0].Credentials, nil
}

// SealRemoved replaces the credentials of removed backends by their sealed form,
// bound to the operation and the address.
func SealRemoved(s topology.Sealer, operationID string, backends []operation.RemovedBackend) error {
	for i := range backends {
		b := &backends[i]
		c := topology.Credentials{Username: b.Username, Password: b.Password}
		b.Username, b.Password, b.Sealed = "", "", ""
		if c.IsZero() {
			continue
		}
		sealed, err := c.Seal(s, removedContext(operationID, b.URL))
		if err != nil {
			return fmt.Errorf("sealing the credentials of removed backend %s: %w", b.Name, err)
		}
		b.Sealed = sealed
	}
	return nil
}

func openRemoved(s topology.Sealer, operationID string, b operation.RemovedBackend) (topology.Credentials, error) {
	if b.Sealed == "" {
		return topology.Credentials{}, nil
	}
	c, err := topology.OpenCredentials(s, b.Sealed, removedContext(operationID, b.URL))
	if err != nil {
		return c, fmt.Errorf("opening the credentials of removed backend %s: %w", b.Name, err)
	}
	return c, nil
}

func removedContext(operationID, url string) []byte {
	return []byte("ringmaster.operation " + operationID + " " + url)
}
