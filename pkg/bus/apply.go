package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// ErrIncompatible says that a stream exists with a setting that Ringmaster's
// guarantees rest on and that must not be changed under it.
var ErrIncompatible = errors.New("incompatible stream")

// IncompatibleError names the setting; it matches ErrIncompatible.
type IncompatibleError struct {
	Stream, Setting string
	Found, Wanted   string
}

// Error names stream, setting, found and wanted.
func (e *IncompatibleError) Error() string {
	return fmt.Sprintf("%v %s: %s is %s, needs %s", ErrIncompatible, e.Stream, e.Setting, e.Found, e.Wanted)
}

// Is makes errors.Is(err, ErrIncompatible) true.
func (e *IncompatibleError) Is(target error) bool { return target == ErrIncompatible }

const (
	// clusterReplicas is how many servers hold each stream in a cluster.
	clusterReplicas = 3
	// markerTTL is how long the marker of a deleted lease or an expired key stays.
	markerTTL = 5 * time.Minute
	// defaultDuplicates is the server's own duplicate window.
	defaultDuplicates = 2 * time.Minute
)

// ApplyOption changes what Apply asks for.
type ApplyOption func(*applying)

type applying struct {
	leaseTTL time.Duration
}

// WithLeaseTTL sets how long a lease lives after its last renewal. All
// processes read it from the bucket when they start. Without it a bucket that
// exists keeps what it has, and a new one gets events.LeaseTTL. So does a bucket in
// which somebody holds a lease and that would get a shorter TTL: he reckons with
// what he has read, and would think that he holds what has long run out.
func WithLeaseTTL(d time.Duration) ApplyOption {
	return func(a *applying) { a.leaseTTL = d }
}

// Apply creates every stream, bucket, object store and consumer of package
// events that is missing, and brings limits of existing ones up to date. What
// exists with another meaning is refused with an *IncompatibleError, before
// anything is changed. Applying twice, or by several processes at once, is
// harmless.
//
// replicas 0 means 1 on a single server and 3 in a cluster, where fewer are an
// error, not a fallback. Replicas that exist are never taken away.
func (b *Bus) Apply(ctx context.Context, replicas int, options ...ApplyOption) error {
	var a applying
	for _, o := range options {
		o(&a)
	}
	if replicas == 0 {
		replicas = 1
		if b.clustered() {
			replicas = clusterReplicas
		}
	}
	specs := events.All(replicas)
	configs := make([]jetstream.StreamConfig, 0, len(specs.Streams)+len(specs.Buckets)+len(specs.Objects))
	for _, s := range specs.Streams {
		configs = append(configs, streamConfig(s, replicas))
	}
	for _, s := range specs.Buckets {
		switch s.Name {
		case events.BucketLeases:
			var err error
			if s.TTL, err = b.leaseTTL(ctx, a); err != nil {
				return err
			}
			a.leaseTTL = s.TTL
		case events.BucketClaims: // which comes after the leases
			s.TTL = a.leaseTTL
		}
		configs = append(configs, bucketConfig(s, replicas))
	}
	for _, s := range specs.Objects {
		configs = append(configs, objectStoreConfig(s, replicas))
	}
	if err := b.renewUnsynced(ctx, specs.Buckets, replicas); err != nil {
		return err
	}
	found := make([]*jetstream.StreamConfig, len(configs))
	for i, wanted := range configs {
		var err error
		if found[i], err = b.existing(ctx, wanted); err != nil {
			return err
		}
	}
	for i, wanted := range configs {
		if err := b.applyStream(ctx, wanted, found[i]); err != nil {
			return err
		}
	}
	for _, s := range specs.Consumers {
		if err := b.applyConsumer(ctx, s, a.leaseTTL); err != nil {
			return err
		}
	}
	return nil
}

// leaseTTL is the TTL of leases: what was asked for, unless that must not be yet,
// else what there is, else the default.
func (b *Bus) leaseTTL(ctx context.Context, a applying) (time.Duration, error) {
	found, err := b.lookUp(ctx, bucketStream(events.BucketLeases))
	if err != nil {
		return 0, err
	}
	switch {
	case found == nil || found.MaxAge <= 0:
		return cmp.Or(a.leaseTTL, events.LeaseTTL), nil
	case a.leaseTTL == 0:
		return found.MaxAge, nil
	case a.leaseTTL >= found.MaxAge:
		return a.leaseTTL, nil
	}
	for lease, err := range b.Bucket(events.BucketLeases).List(ctx, "") {
		if err != nil {
			return 0, fmt.Errorf("looking whether leases are held: %w", err)
		}
		b.log.WarnContext(ctx, "leases keep their time to live, since some are held; it can be made shorter when all other processes are stopped",
			"ttl", found.MaxAge.String(), "wanted", a.leaseTTL.String(), "held", lease.Key)
		return found.MaxAge, nil
	}
	return a.leaseTTL, nil
}

// renewUnsynced removes a bucket that nothing rests on if it is to have more replicas
// than it has: the server does not let an unsynced stream have several, and does not
// change the one for the other.
func (b *Bus) renewUnsynced(ctx context.Context, buckets []events.BucketSpec, replicas int) error {
	for _, s := range buckets {
		if !s.Unsynced || replicas == 1 {
			continue
		}
		name := bucketStream(s.Name)
		found, err := b.lookUp(ctx, name)
		if err != nil {
			return err
		}
		if found == nil || found.PersistMode != jetstream.AsyncPersistMode {
			continue
		}
		limited, cancel := b.bounded(ctx)
		err = b.repeat(limited, func(ctx context.Context) error {
			err := b.js.DeleteStream(ctx, name)
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				return nil
			}
			return err
		})
		cancel()
		if err != nil {
			return fmt.Errorf("making stream %s anew, for %d replicas (the NATS user must be allowed to publish on $JS.API.STREAM.DELETE.%s, as in deploy/nats/nats.conf): %w", name, replicas, name, err)
		}
	}
	return nil
}

func streamConfig(s events.StreamSpec, replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:                 s.Name,
		Description:          s.Reason,
		Subjects:             s.Subjects,
		Retention:            jetstream.LimitsPolicy,
		MaxMsgs:              -1,
		MaxBytes:             unlimited(s.MaxBytes),
		MaxMsgsPerSubject:    unlimited(s.MaxMessagesPerSubject),
		MaxMsgSize:           -1,
		MaxConsumers:         -1,
		MaxAge:               s.MaxAge,
		Discard:              jetstream.DiscardOld,
		DiscardNewPerSubject: s.DiscardNewPerSubject,
		Storage:              jetstream.FileStorage,
		Replicas:             replicas,
		Duplicates:           duplicates(s.DuplicateWindow, s.MaxAge),
		AllowAtomicPublish:   s.AtomicPublish,
		AllowDirect:          true,
		Metadata:             s.Metadata,
	}
	if s.Retention == events.RetentionWorkQueue {
		c.Retention = jetstream.WorkQueuePolicy
	}
	if s.DiscardNew {
		c.Discard = jetstream.DiscardNew
	}
	return c
}

// bucketConfig is what other NATS clients expect of a key-value bucket, so that
// their tools can read it.
func bucketConfig(s events.BucketSpec, replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:               bucketStream(s.Name),
		Description:        s.Reason,
		Subjects:           []string{bucketSubject(s.Name, ">")},
		Retention:          jetstream.LimitsPolicy,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgsPerSubject:  int64(s.History),
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		MaxAge:             s.TTL,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		Replicas:           replicas,
		Duplicates:         duplicates(0, s.TTL),
		AllowAtomicPublish: s.AtomicPublish,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowDirect:        true, // for lists; single keys are read from the leader
		AllowMsgTTL:        true,
	}
	if s.Unsynced && replicas == 1 {
		c.PersistMode = jetstream.AsyncPersistMode
	}
	if s.TTL > 0 {
		c.SubjectDeleteMarkerTTL = markerTTL // so that watchers see an expiry
	}
	return c
}

func objectStoreConfig(s events.ObjectStoreSpec, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              objectStream(s.Name),
		Description:       s.Reason,
		Subjects:          []string{"$O." + s.Name + ".C.>", "$O." + s.Name + ".M.>"},
		Retention:         jetstream.LimitsPolicy,
		MaxMsgs:           -1,
		MaxBytes:          unlimited(s.MaxBytes),
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Duplicates:        defaultDuplicates,
		AllowRollup:       true,
		AllowDirect:       true, // for chunks; names are read from the leader
	}
}

func unlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// duplicates is a window the server accepts: not longer than messages live.
func duplicates(window, maxAge time.Duration) time.Duration {
	if window == 0 {
		window = defaultDuplicates
	}
	if maxAge > 0 {
		window = min(window, maxAge)
	}
	return window
}

// existing returns the configuration of the wanted stream as it stands, nil
// when there is none, and refuses one with another meaning.
func (b *Bus) existing(ctx context.Context, wanted jetstream.StreamConfig) (*jetstream.StreamConfig, error) {
	found, err := b.lookUp(ctx, wanted.Name)
	if err != nil || found == nil {
		return nil, err
	}
	if found.Replicas > 1 {
		// Replicas are not taken away, so it stays synced, too.
		wanted.PersistMode = jetstream.DefaultPersistMode
	}
	return found, compatible(*found, wanted)
}

// lookUp returns the configuration of a stream, nil when there is none.
func (b *Bus) lookUp(ctx context.Context, name string) (*jetstream.StreamConfig, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var found *jetstream.StreamConfig
	err := b.ask(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found = &s.CachedInfo().Config
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking up stream %s: %w", name, err)
	}
	return found, nil
}

// compatible compares the settings that give a stream its meaning.
func compatible(found, wanted jetstream.StreamConfig) error {
	slices.Sort(found.Subjects)
	wanted.Subjects = slices.Sorted(slices.Values(wanted.Subjects))
	for _, c := range []struct {
		setting       string
		found, wanted any
	}{
		{"retention", found.Retention, wanted.Retention},
		{"storage", found.Storage, wanted.Storage},
		{"persist mode", found.PersistMode, wanted.PersistMode},
		{"subjects", strings.Join(found.Subjects, ", "), strings.Join(wanted.Subjects, ", ")},
		{"discard", found.Discard, wanted.Discard},
		{"discard new per subject", found.DiscardNewPerSubject, wanted.DiscardNewPerSubject},
		{"maximum messages per subject", found.MaxMsgsPerSubject, wanted.MaxMsgsPerSubject},
		{"maximum messages", found.MaxMsgs, wanted.MaxMsgs},
		{"maximum message size", found.MaxMsgSize, wanted.MaxMsgSize},
		{"deny delete", found.DenyDelete, wanted.DenyDelete},
		{"deny purge", found.DenyPurge, wanted.DenyPurge},
		{"sealed", found.Sealed, wanted.Sealed},
		{"no acknowledgement", found.NoAck, wanted.NoAck},
		{"mirror", found.Mirror != nil, wanted.Mirror != nil},
		{"sources", len(found.Sources), len(wanted.Sources)},
		{"subject transform", found.SubjectTransform != nil, wanted.SubjectTransform != nil},
	} {
		if c.found != c.wanted {
			return &IncompatibleError{
				Stream: found.Name, Setting: c.setting,
				Found: fmt.Sprint(c.found), Wanted: fmt.Sprint(c.wanted),
			}
		}
	}
	return nil
}

// applyStream creates the stream or brings its limits up to date.
func (b *Bus) applyStream(ctx context.Context, wanted jetstream.StreamConfig, found *jetstream.StreamConfig) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	if found == nil {
		err := b.repeat(ctx, func(ctx context.Context) error {
			_, err := b.js.CreateStream(ctx, wanted)
			if apiCode(err) == codeNoPeers { // the cluster may be starting
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			return err
		})
		switch {
		case err == nil:
			return nil
		case apiCode(err) == codeNoPeers || apiCode(err) == codeReplicasNotSupported:
			return fmt.Errorf("creating stream %s: %d servers must be up to hold it: %w", wanted.Name, wanted.Replicas, err)
		case !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
			return fmt.Errorf("creating stream %s: %w", wanted.Name, err)
		}
		// Another process was faster, with other limits.
		if found, err = b.existing(ctx, wanted); err != nil {
			return err
		}
		if found == nil {
			return fmt.Errorf("creating stream %s: it was removed at the same time", wanted.Name)
		}
	}
	next := *found
	next.Description = wanted.Description
	next.MaxAge = wanted.MaxAge
	next.MaxBytes = wanted.MaxBytes
	next.Duplicates = wanted.Duplicates
	next.Replicas = max(found.Replicas, wanted.Replicas)
	next.AllowAtomicPublish = wanted.AllowAtomicPublish
	next.AllowDirect = wanted.AllowDirect
	next.AllowRollup = wanted.AllowRollup
	next.AllowMsgTTL = wanted.AllowMsgTTL
	next.SubjectDeleteMarkerTTL = wanted.SubjectDeleteMarkerTTL
	if sameLimits(next, *found) {
		return nil
	}
	err := b.repeat(ctx, func(ctx context.Context) error {
		_, err := b.js.UpdateStream(ctx, next)
		return err
	})
	if err != nil {
		return fmt.Errorf("updating stream %s: %w", wanted.Name, err)
	}
	return nil
}

// sameLimits compares what applyStream may change.
func sameLimits(a, b jetstream.StreamConfig) bool {
	return a.Description == b.Description && a.MaxAge == b.MaxAge && a.MaxBytes == b.MaxBytes &&
		a.Duplicates == b.Duplicates && a.Replicas == b.Replicas && a.AllowAtomicPublish == b.AllowAtomicPublish &&
		a.AllowDirect == b.AllowDirect && a.AllowRollup == b.AllowRollup && a.AllowMsgTTL == b.AllowMsgTTL &&
		a.SubjectDeleteMarkerTTL == b.SubjectDeleteMarkerTTL
}

// applyConsumer creates or updates a durable consumer. A nudge whose worker
// died comes back when the worker's lease has run out.
func (b *Bus) applyConsumer(ctx context.Context, s events.ConsumerSpec, ackWait time.Duration) error {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	err := b.repeat(ctx, func(ctx context.Context) error {
		_, err := b.js.CreateOrUpdateConsumer(ctx, s.Stream, jetstream.ConsumerConfig{
			Durable:       s.Name,
			Description:   s.Reason,
			DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       ackWait,
			MaxDeliver:    -1,
			MaxAckPending: s.MaxAckPending,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("applying consumer %s of %s: %w", s.Name, s.Stream, err)
	}
	return nil
}
