package controller_test

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/events"
	"ringmaster/pkg/controller"
	"ringmaster/pkg/gateway/session"
	"ringmaster/pkg/secrets"
	"ringmaster/pkg/serving"
	"ringmaster/pkg/topology"
)

// atlas0 knows no topology.
func (r *rig) atlas0() *controller.Atlas { return controller.NewAtlas(r.ledger, &session.Session{}) }

func TestAConfigurationIsAdoptedKeptOrRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	epoch := func(backends int, accept bool) uint64 {
		require.NoError(t, r.configure(config(t, backends), accept))
		v, err := r.ledger.Topology(t.Context())
		require.NoError(t, err)
		for _, b := range v.Value.Current.Circles[0].Backends {
			require.True(t, b.Credentials.IsZero(), "what is stored is sealed")
			require.NotEmpty(t, b.Sealed)
		}
		return v.Value.Current.Epoch
	}
	require.Equal(t, uint64(1), r.atlas.Current().Epoch)
	require.Equal(t, uint64(1), epoch(3, false), "the same again")
	require.Equal(t, uint64(2), epoch(4, false))
	require.Equal(t, uint64(2), epoch(3, false), "an old file is not applied")
	require.Equal(t, uint64(2), epoch(5, true), "a circle does not change again before it has changed")
	require.Equal(t, uint64(3), epoch(3, true), "unless it is to turn back, and that is meant")
	v, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Value.Serving.Transitions, "then its owners have everything")

	other, err := secrets.OpenOrCreate(t.TempDir() + "/other")
	require.NoError(t, err)
	c := controller.Configuration{Ledger: r.ledger, Sealer: other, Logger: r.log, Now: time.Now}
	require.ErrorIs(t, c.Start(t.Context(), config(t, 3)), secrets.ErrWrongKey)
}

// A changed circle opens a transition that knows the owners of before, with their
// credentials sealed.
func TestAChangedCircleOpensATransition(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	require.NoError(t, r.configure(config(t, 4), false))
	v, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Len(t, v.Value.Serving.Transitions, 1)
	open := v.Value.Serving.Transitions[0]
	require.Equal(t, serving.Opening, open.Step)
	require.Equal(t, uint64(2), open.Epoch)
	require.Len(t, open.Old.Circles[0].Backends, 3)
	for _, b := range open.Old.Circles[0].Backends {
		require.NotEmpty(t, b.Sealed)
	}
	raw, err := json.Marshal(v.Value)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "pass-of-")
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
			if err := r.configure(c, false); err != nil {
				t.Errorf("opening: %v", err)
			}
		})
	}
	all.Wait()
	v, err := r.ledger.Topology(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(2), v.Value.Current.Epoch, "one configuration is an epoch, the other has to wait for its end")
}

// The atlas follows what other processes do, and outlives a record that is gone.
func TestAnAtlasFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t, ttl)
	r.run("session", r.session.Run)
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
	other := controller.NewAtlas(r.ledger, r.join("there"))
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
