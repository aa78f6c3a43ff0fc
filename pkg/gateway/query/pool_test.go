package query_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/gateway/query"
	gatewaysession "ringmaster/pkg/gateway/session"
	backends "ringmaster/pkg/health"
	"ringmaster/pkg/topology"
)

// What the program has fits.
var (
	_ query.Session = query.Reads[*gatewaysession.Pass](&gatewaysession.Session{})
	_ query.Health  = (*backends.Prober)(nil)
	_ query.Opener  = (*backends.Clients)(nil)
)

func TestPoolKeepsAClientForEachBackend(t *testing.T) {
	t.Parallel()
	p := query.NewPool(opener{})
	defer p.Close()
	b := &topology.Backend{Name: "a", URL: "http://127.0.0.1:1"}
	first, err := p.Client(b)
	require.NoError(t, err)
	again, err := p.Client(&topology.Backend{Name: "a", URL: b.URL})
	require.NoError(t, err)
	require.Same(t, first, again)
	other, err := p.Client(&topology.Backend{Name: "a", URL: b.URL, Sealed: "new credentials"})
	require.NoError(t, err)
	require.NotSame(t, first, other)
	_, err = p.Client(&topology.Backend{URL: "no URL"})
	require.Error(t, err)
}
