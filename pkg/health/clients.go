package health

import (
	"fmt"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// Clients opens clients of backends with the credentials that their records hold.
type Clients struct {
	sealer  topology.Sealer
	context string
	options influx.Options
}

// probeTimeout bounds every request of a probe, and the silence of a connection.
const probeTimeout = 5 * time.Second

// NewClients returns what opens the clients. sealContext is what the topology
// records were sealed for; with a nil sealer no credentials are used.
func NewClients(s topology.Sealer, sealContext string, o influx.Options) *Clients {
	if o.Timeout == 0 {
		o.Timeout = probeTimeout
	}
	return &Clients{sealer: s, context: sealContext, options: o}
}

// Open returns a client of a backend, which the caller closes.
func (c *Clients) Open(b *topology.Backend) (*influx.Client, error) {
	var credentials topology.Credentials
	if c.sealer != nil {
		one := &topology.Topology{Circles: []topology.Circle{{Backends: []topology.Backend{*b}}}}
		opened, err := one.Open(c.sealer, c.context)
		if err != nil {
			return nil, fmt.Errorf("opening the credentials of %s: %w", b.URL, err)
		}
		credentials = opened.Circles[0].Backends[0].Credentials
	}
	return influx.New(influx.Endpoint{URL: b.URL, Username: credentials.Username, Password: credentials.Password}, c.options)
}
