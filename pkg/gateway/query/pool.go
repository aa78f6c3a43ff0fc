package query

import (
	"sync"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/topology"
)

// Opener opens a client with the credentials that a backend's record holds.
type Opener interface {
	Open(b *topology.Backend) (*influx.Client, error)
}

// Pool keeps a client for each backend.
type Pool struct {
	opener Opener

	mu      sync.Mutex
	clients map[string]pooled
}

type pooled struct {
	sealed      string
	credentials topology.Credentials
	client      *influx.Client
}

// NewPool returns a pool without clients. The opener's connections may be silent for
// as long as a query may think before it answers.
func NewPool(o Opener) *Pool { return &Pool{opener: o, clients: map[string]pooled{}} }

// Client returns the client of a backend; another one when its credentials have
// changed.
func (p *Pool) Client(b *topology.Backend) (*influx.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, ok := p.clients[b.URL]
	if ok && was.sealed == b.Sealed && was.credentials == b.Credentials {
		return was.client, nil
	}
	c, err := p.opener.Open(b)
	if err != nil {
		return nil, err
	}
	if ok {
		was.client.Close()
	}
	p.clients[b.URL] = pooled{b.Sealed, b.Credentials, c}
	return c, nil
}

// Close ends the idle connections of all clients.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.client.Close()
	}
	clear(p.clients)
}
