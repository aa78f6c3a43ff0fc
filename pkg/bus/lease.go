package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ringmaster/events"
)

var (
	// ErrHeld says that another holds the lease.
	ErrHeld = errors.New("lease is held")
	// ErrLeaseLost says that a lease ran out or was taken over.
	ErrLeaseLost = errors.New("lease is lost")
	// ErrRetaken says that a claim is held, but was away meanwhile; see Leases.Claims.
	ErrRetaken = errors.New("claim was taken again")
)

// HeldError says who holds a lease; it matches ErrHeld.
type HeldError struct {
	Key string
	// Value is what the holder gave to Acquire.
	Value []byte
}

// Error names the lease.
func (e *HeldError) Error() string { return fmt.Sprintf("lease %s is held", e.Key) }

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// Leases say who is alive: a lease that is not renewed runs out by itself. A
// lease is no fence; that is the compare-and-set on the record it is about.
type Leases struct {
	bucket *Bucket
	ttl    time.Duration
	claims *Leases // nil for the claims themselves
}

// Lease is a lease that was acquired. It is safe for use by several goroutines.
type Lease struct {
	leases *Leases
	key    string

	// changing serialises what waits for the server; mu, which never waits,
	// guards revision and expires, so that Expires always answers at once.
	changing sync.Mutex
	value    []byte
	mu       sync.Mutex
	revision uint64 // 0: lost or released
	expires  time.Time
}

// Leases returns the leases, with the TTL that the bucket has.
func (b *Bus) Leases(ctx context.Context) (*Leases, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	l := &Leases{bucket: b.Bucket(events.BucketLeases), claims: &Leases{bucket: b.Bucket(events.BucketClaims)}}
	err := b.ask(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, l.bucket.stream)
		if err == nil {
			l.ttl = s.CachedInfo().Config.MaxAge
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening leases: %w", err)
	}
	if l.ttl <= 0 {
		return nil, fmt.Errorf("opening leases: bucket %s has no TTL", l.bucket.name)
	}
	l.claims.ttl = l.ttl
	return l, nil
}

// Claims returns the leases of tasks, which have the same TTL. They are not synced: a
// server that has crashed may have forgotten them. A holder who renews one then, and
// by his own clock has held it all along, takes it again, unless anybody else has had
// it: Renew returns ErrRetaken, and the record has to say whose the task is.
func (l *Leases) Claims() *Leases {
	if l.claims == nil {
		return l
	}
	return l.claims
}

// TTL is how long a lease lives after its last renewal. Renew every quarter of it: three quarters are
// more than most elections of a new leader in a cluster take (4 to 9 s).
func (l *Leases) TTL() time.Duration { return l.ttl }

// Acquire takes the lease, or returns a *HeldError with the holder's value. It
// does not wait.
func (l *Leases) Acquire(ctx context.Context, key string, value []byte) (*Lease, error) {
	for {
		asked := time.Now()
		revision, err := l.bucket.Create(ctx, key, value)
		if err == nil {
			return &Lease{leases: l, key: key, value: value, revision: revision, expires: asked.Add(l.ttl)}, nil
		}
		if !errors.Is(err, ErrExists) {
			return nil, fmt.Errorf("acquiring lease: %w", err)
		}
		holder, err := l.bucket.Get(ctx, key)
		if err == nil {
			return nil, &HeldError{Key: key, Value: holder.Value}
		}
		if !errors.Is(err, ErrNotFound) { // not found: it ran out just now
			return nil, fmt.Errorf("acquiring lease: %w", err)
		}
	}
}

// Holder returns the value of the lease's holder, or ErrNotFound.
func (l *Leases) Holder(ctx context.Context, key string) ([]byte, error) {
	e, err := l.bucket.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading lease: %w", err)
	}
	return e.Value, nil
}

// Bucket is the bucket of the leases, to list and watch holders.
func (l *Leases) Bucket() *Bucket { return l.bucket }

// Key is the lease's key.
func (l *Lease) Key() string { return l.key }

// Expires is until when the lease is surely held: reckoned by this process's
// monotonic clock from before the last successful renewal was asked for. A
// process that was stopped past it must not go on as the holder before it has
// renewed.
func (l *Lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Held reports whether Expires lies ahead.
func (l *Lease) Held() bool { return time.Now().Before(l.Expires()) }

// Renew keeps the lease for another TTL. ErrLeaseLost means that it ran out or
// is another's and can't come back; after ErrUnavailable it may be tried again.
func (l *Lease) Renew(ctx context.Context) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.renew(ctx)
}

// RenewWith is Renew with another value, which Renew keeps from then on.
func (l *Lease) RenewWith(ctx context.Context, value []byte) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.value = value
	return l.renew(ctx)
}

func (l *Lease) renew(ctx context.Context) error {
	revision := l.current()
	if revision == 0 {
		return fmt.Errorf("renewing lease %s: %w", l.key, ErrLeaseLost)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.leases.ttl, ErrUnavailable)
	defer cancel()
	asked := time.Now()
	revision, err := l.leases.bucket.Update(ctx, l.key, l.value, revision)
	switch {
	case err == nil:
		l.set(revision, asked.Add(l.leases.ttl))
		return nil
	case errors.Is(err, ErrConflict):
		if l.leases.claims == nil && l.Held() {
			return l.retake(ctx)
		}
		l.set(0, time.Time{})
		return fmt.Errorf("renewing lease %s: %w", l.key, ErrLeaseLost)
	default:
		return fmt.Errorf("renewing lease: %w", err)
	}
}

// retake takes a claim again of which the server knows nothing. That another has had it
// and given it back leaves a marker.
func (l *Lease) retake(ctx context.Context) error {
	bucket := l.leases.bucket
	_, err := bucket.bus.last(ctx, bucket.stream, bucketSubject(bucket.name, l.key))
	asked := time.Now()
	if errors.Is(err, ErrNotFound) {
		var revision uint64
		if revision, err = bucket.Create(ctx, l.key, l.value); err == nil {
			l.set(revision, asked.Add(l.leases.ttl))
			return fmt.Errorf("renewing lease %s: %w", l.key, ErrRetaken)
		}
	}
	if err == nil || errors.Is(err, ErrExists) {
		l.set(0, time.Time{})
		return fmt.Errorf("renewing lease %s: %w", l.key, ErrLeaseLost)
	}
	return fmt.Errorf("renewing lease: %w", err)
}

// Release gives the lease up, so that another need not wait for it to run out.
// A lease that is lost already is no error.
func (l *Lease) Release(ctx context.Context) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	revision := l.current()
	if revision == 0 {
		return nil
	}
	l.set(revision, time.Time{}) // not held from here on, whatever the server says
	err := l.leases.bucket.Delete(ctx, l.key, revision)
	if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("releasing lease: %w", err)
	}
	l.set(0, time.Time{})
	return nil
}

// While calls f for as long as the lease can be kept, renews it meanwhile, and gives it
// up when f has ended. The context that f gets ends with the cause [ErrLeaseLost] when
// the lease has run out or is another's. The error is that of f alone: a lease that
// can't be given up runs out by itself. After ctx has ended, While waits for f, and for
// the server at most another TTL.
func (l *Lease) While(ctx context.Context, f func(ctx context.Context) error) error {
	held, lose := context.WithCancelCause(ctx)
	// A renewal that is cut off would leave the lease behind for its whole time, so
	// one under way is waited for.
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	var keeping sync.WaitGroup
	keeping.Go(func() { l.keep(held, calls, lose) })
	err := f(held)
	lose(nil)
	defer time.AfterFunc(l.leases.ttl, hangUp).Stop()
	keeping.Wait()
	_ = l.Release(calls) // it runs out by itself
	return err
}

// keep renews the lease until ctx ends or it is lost.
func (l *Lease) keep(ctx, calls context.Context, lose context.CancelCauseFunc) {
	ticker := time.NewTicker(l.leases.ttl / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := l.Renew(calls); errors.Is(err, ErrLeaseLost) || err != nil && !l.Held() {
			lose(ErrLeaseLost)
			return
		}
	}
}

func (l *Lease) current() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

func (l *Lease) set(revision uint64, expires time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.expires = revision, expires
}
