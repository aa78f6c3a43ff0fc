package ledger_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/bus/bustest"
	"ringmaster/pkg/ledger"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

func newKeys(t *testing.T) *secrets.Keyring {
	t.Helper()
	keys, err := secrets.Create(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	return keys
}

// newKeyEnv is a bus of its own: a cluster gets its key once.
func newKeyEnv(t *testing.T) env {
	t.Helper()
	b, _ := bustest.Start(t)
	return newEnv(t, b, b)
}

func TestTheFirstKeyIsTheClusters(t *testing.T) {
	t.Parallel()
	e := newKeyEnv(t)
	keys, other := newKeys(t), newKeys(t)
	var none *secrets.Keyring

	for _, k := range []*secrets.Keyring{other, none} {
		require.NoError(t, e.here.VerifyKey(t.Context(), k), "nothing is sealed yet")
	}
	require.ErrorIs(t, e.here.CheckKey(t.Context(), none), secrets.ErrNoKey)
	require.NoError(t, e.here.CheckKey(t.Context(), keys))
	for _, l := range []*ledger.Ledger{e.here, e.there} {
		require.NoError(t, l.CheckKey(t.Context(), keys))
		require.NoError(t, l.VerifyKey(t.Context(), keys))
		for _, k := range []*secrets.Keyring{other, none} {
			require.ErrorIs(t, l.CheckKey(t.Context(), k), ledger.ErrOtherKey)
			require.ErrorIs(t, l.VerifyKey(t.Context(), k), ledger.ErrOtherKey)
		}
	}
	require.ErrorIs(t, e.here.VerifyKey(t.Context(), other), secrets.ErrWrongKey, "the cause is kept")
	require.NoError(t, e.here.CheckKey(t.Context(), keys), "what was refused has changed nothing")
}

func TestOneKeyOfManyBecomesTheClusters(t *testing.T) {
	t.Parallel()
	e := newKeyEnv(t)
	const processes = 12
	keys := make([]*secrets.Keyring, processes)
	for i := range keys {
		keys[i] = newKeys(t)
	}
	var accepted, refused atomic.Int64
	together(processes, func(i int) {
		switch err := e.here.CheckKey(context.Background(), keys[i]); {
		case err == nil:
			accepted.Add(1)
		case errors.Is(err, ledger.ErrOtherKey):
			refused.Add(1)
		default:
			t.Errorf("checking the key: %v", err)
		}
	})
	require.EqualValues(t, 1, accepted.Load())
	require.EqualValues(t, processes-1, refused.Load())
}

// A cluster that is older than the check has credentials in its topology. The key
// that opens them is the cluster's, and no other may take its place.
func TestAnOlderClustersKeyIsThatOfItsTopology(t *testing.T) {
	t.Parallel()
	e := newKeyEnv(t)
	keys, other := newKeys(t), newKeys(t)
	configured := candidate("old", 2)
	configured.Circles[0].Backends[0].Credentials = topology.Credentials{Username: "u", Password: "p"}
	_, next := topology.Decide(nil, nil, configured, false, time.Now())
	sealed, err := next.Seal(keys, ledger.SealContext)
	require.NoError(t, err)
	require.NoError(t, e.here.StoreTopology(t.Context(), ledger.Versioned[ledger.Epochs]{}, sealed, serving.State{}))

	var none *secrets.Keyring
	require.ErrorIs(t, e.here.VerifyKey(t.Context(), none), ledger.ErrOtherKey)
	require.ErrorIs(t, e.here.CheckKey(t.Context(), other), ledger.ErrOtherKey)
	require.NoError(t, e.here.VerifyKey(t.Context(), keys))
	require.NoError(t, e.here.CheckKey(t.Context(), keys))
	require.ErrorIs(t, e.here.VerifyKey(t.Context(), other), ledger.ErrOtherKey)
}

func TestAKeyCheckThatCannotBeRead(t *testing.T) {
	t.Parallel()
	e := newKeyEnv(t)
	_, err := e.bus.Bucket(events.BucketTopology).Create(t.Context(), "key-check", []byte("{"))
	require.NoError(t, err)
	err = e.here.CheckKey(t.Context(), newKeys(t))
	require.ErrorIs(t, err, ledger.ErrUnreadable)
	require.NotErrorIs(t, err, ledger.ErrOtherKey, "it says nothing about the key")
}
