package bus

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"ringmaster/events"
)

// Facts is what can be seen of the NATS that the bus is connected to.
type Facts struct {
	// Server is the name of the server, Version its release, Cluster the cluster it
	// belongs to; that is empty for one that stands alone.
	Server, Version, Cluster string
	// RTT is how long an answer takes.
	RTT time.Duration
	// Used and Limit are bytes of JetStream's store for this account; a limit below
	// 1 means none is set.
	Used, Limit int64
	// Streams are those that Ringmaster keeps, buckets and object stores among them,
	// by name.
	Streams []StreamFacts
}

// StreamFacts is how a stream is kept.
type StreamFacts struct {
	Name string
	// Replicas is how many servers are to hold it, Current how many are known to hold
	// all of it, and Behind names those that do not.
	Replicas, Current int
	Behind            []string
	// Leaderless is a stream of a cluster that nobody answers for.
	Leaderless bool
	// InMemory is a stream that is gone when its servers stop; Unsynced one whose
	// messages may be acknowledged before they are on disk, though its spec does not
	// say so.
	InMemory, Unsynced bool
	Messages           uint64
	Bytes, MaxBytes    int64
	// Refuses is whether it refuses what is new when it is full, rather than to drop
	// what is old.
	Refuses bool
}

// Facts asks for them.
func (b *Bus) Facts(ctx context.Context) (Facts, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	var f Facts
	err := b.repeat(ctx, func(ctx context.Context) error {
		asked := time.Now()
		account, err := b.js.AccountInfo(ctx)
		if err != nil {
			return err
		}
		f = Facts{
			Server: b.conn.ConnectedServerName(), Version: b.conn.ConnectedServerVersion(), Cluster: b.conn.ConnectedClusterName(),
			RTT: time.Since(asked), Used: int64(account.Store), Limit: account.Limits.MaxStore,
		}
		lister := b.js.ListStreams(ctx)
		for info := range lister.Info() {
			if ours(info.Config.Name) {
				f.Streams = append(f.Streams, streamFacts(info))
			}
		}
		return lister.Err()
	})
	if err != nil {
		return Facts{}, fmt.Errorf("looking at NATS: %w", err)
	}
	slices.SortFunc(f.Streams, func(x, y StreamFacts) int { return strings.Compare(x.Name, y.Name) })
	return f, nil
}

// ours reports whether a stream is one of Ringmaster's.
func ours(name string) bool {
	if strings.HasPrefix(name, events.StreamHintsPrefix) {
		return true
	}
	specs := events.All(1)
	return slices.ContainsFunc(specs.Streams, func(s events.StreamSpec) bool { return s.Name == name }) ||
		slices.ContainsFunc(specs.Buckets, func(s events.BucketSpec) bool { return bucketStream(s.Name) == name }) ||
		slices.ContainsFunc(specs.Objects, func(s events.ObjectStoreSpec) bool { return objectStream(s.Name) == name })
}

// mayBeUnsynced reports whether nothing that must last is in a stream.
func mayBeUnsynced(name string) bool {
	return slices.ContainsFunc(events.Buckets(), func(s events.BucketSpec) bool { return s.Unsynced && bucketStream(s.Name) == name })
}

func streamFacts(info *jetstream.StreamInfo) StreamFacts {
	c := &info.Config
	f := StreamFacts{
		Name: c.Name, Replicas: max(c.Replicas, 1), Current: 1,
		InMemory: c.Storage == jetstream.MemoryStorage,
		Unsynced: c.PersistMode == jetstream.AsyncPersistMode && !mayBeUnsynced(c.Name),
		Messages: info.State.Msgs, Bytes: int64(info.State.Bytes), MaxBytes: max(c.MaxBytes, 0), Refuses: c.Discard == jetstream.DiscardNew,
	}
	if info.Cluster == nil || info.Cluster.Name == "" {
		return f
	}
	f.Leaderless = info.Cluster.Leader == ""
	if f.Leaderless {
		f.Current = 0
	}
	for _, peer := range info.Cluster.Replicas {
		if peer.Current && !peer.Offline {
			f.Current++
		} else {
			f.Behind = append(f.Behind, peer.Name)
		}
	}
	return f
}

// Clock returns how far the server's clock is ahead of this process's, and how far
// off that may be: it stores a message and reads back when it was stored.
func (b *Bus) Clock(ctx context.Context) (ahead, within time.Duration, err error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	// A subject of its own: each holds one message, and others ask, too.
	subject := events.ProbeSubject("clock-" + rand.Text())
	var asked, answered time.Time
	var stored *jetstream.PubAck
	err = b.attempt(ctx, func(ctx context.Context) error {
		var err error
		asked = time.Now()
		stored, err = b.js.Publish(ctx, subject, nil, jetstream.WithExpectStream(events.StreamProbe), jetstream.WithRetryAttempts(0))
		answered = time.Now()
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("comparing clocks: %w", err)
	}
	record, err := b.get(ctx, events.StreamProbe, messageRequest{Sequence: stored.Sequence})
	if err != nil {
		return 0, 0, fmt.Errorf("comparing clocks: %w", err)
	}
	half := answered.Sub(asked) / 2
	return record.Time.Sub(asked.Add(half)), half, nil
}
