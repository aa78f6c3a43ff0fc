package controller_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/topology"
)

// atlas0 knows no topology.
func (r *rig) atlas0() *controller.Atlas { return &controller.Atlas{} }

func TestAnAtlasAdoptsKeepsAndRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	open := func(backends int, accept bool) *controller.Atlas {
		a, err := controller.OpenAtlas(t.Context(), r.ledger, r.keys, config(t, backends), accept, r.log, time.Now)
		require.NoError(t, err)
		return a
	}
	require.Equal(t, uint64(1), r.atlas.Current().Epoch)
	require.Equal(t, uint64(1), open(3, false).Current().Epoch, "the same again")
	require.Equal(t, uint64(2), open(4, false).Current().Epoch)
	require.Equal(t, uint64(2), open(3, false).Current().Epoch, "an old file is not applied")
	require.Len(t, open(3, false).Current().Circles[0].Backends, 4)
	require.Equal(t, uint64(3), open(3, true).Current().Epoch, "unless it is meant")
	for _, b := range open(3, false).Current().Circles[0].Backends {
		require.True(t, b.Credentials.IsZero(), "what is kept in memory is sealed")
		require.NotEmpty(t, b.Sealed)
	}

	other, err := secrets.OpenOrCreate(t.TempDir() + "/other")
	require.NoError(t, err)
	_, err = controller.OpenAtlas(t.Context(), r.ledger, other, config(t, 3), false, r.log, time.Now)
	require.ErrorIs(t, err, secrets.ErrWrongKey)
}

func TestProcessesThatStartAtOnceAgree(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	configs := make([]*topology.Topology, 8)
	for i := range configs {
		configs[i] = config(t, 4+i%2)
	}
	var all sync.WaitGroup
	for _, c := range configs {
		all.Go(func() {
			if _, err := controller.OpenAtlas(context.Background(), r.ledger, r.keys, c, false, r.log, time.Now); err != nil {
				t.Errorf("opening: %v", err)
			}
		})
	}
	all.Wait()
	v, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(3), v.Value.Current.Epoch, "each configuration is one epoch")
}

// The atlas follows what other processes do, and outlives a record that is gone.
func TestAnAtlasFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	r.run("atlas", r.atlas.Run)
	r.adopt(config(t, 4))
	require.Eventually(t, func() bool { return r.atlas.Current().Epoch == 2 }, patience, tick)
	bucket := r.bus.Bucket(events.BucketTopology)
	e, err := bucket.Get(t.Context(), "current")
	require.NoError(t, err)
	require.NoError(t, bucket.Delete(t.Context(), "current", e.Revision))
	op, _, err := r.intake.Submit(t.Context(), request(add))
	require.NoError(t, err)
	r.control()
	require.Eventually(t, func() bool { return r.read(op.ID).State.Terminal() }, patience, tick)
	require.Equal(t, "epoch_changed", r.read(op.ID).Error.Code)
	require.Equal(t, uint64(2), r.atlas.Current().Epoch, "what was last known goes on to be shown")
}

func TestFlagsAreShared(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	require.NoError(t, errors.Join(
		r.atlas.SetMigrating(t.Context(), 1, true), r.atlas.SetMigrating(t.Context(), 0, true),
		r.atlas.SetMigrating(t.Context(), 1, true), r.atlas.SetResyncing(t.Context(), true)))
	other, err := controller.OpenAtlas(t.Context(), r.ledger, r.keys, config(t, 3), false, r.log, time.Now)
	require.NoError(t, err)
	migrating, resyncing, err := other.Flags(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []int{0, 1}, migrating)
	require.True(t, resyncing)
	require.NoError(t, errors.Join(other.SetMigrating(t.Context(), 1, false), other.SetResyncing(t.Context(), false)))
	migrating, resyncing, err = r.atlas.Flags(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{0}, migrating)
	require.False(t, resyncing)
}
