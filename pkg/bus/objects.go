package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

// Objects is a store of what is too large for a record. Objects are stored in
// chunks with a SHA-256 digest.
type Objects struct {
	bus   *Bus
	store jetstream.ObjectStore
	name  string
}

// Object describes a stored object.
type Object struct {
	Name string
	Size uint64
	// Digest is `SHA-256=` and the digest in URL-safe base64.
	Digest string
}

// Objects opens the object store of this name, which Apply has created.
func (b *Bus) Objects(ctx context.Context, name string) (*Objects, error) {
	ctx, cancel := b.bounded(ctx)
	defer cancel()
	o := &Objects{bus: b, name: name}
	err := b.repeat(ctx, func(ctx context.Context) (err error) {
		o.store, err = b.js.ObjectStore(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening object store %s: %w", name, err)
	}
	return o, nil
}

// Put stores what r gives under name, in place of an object that is there. It
// returns when all of it is acknowledged. r is read once, so it is not repeated.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader) (Object, error) {
	if err := o.bus.connected(ctx); err != nil {
		return Object{}, fmt.Errorf("storing object %s: %w", name, err)
	}
	info, err := o.store.Put(ctx, jetstream.ObjectMeta{Name: name}, r)
	if err != nil {
		return Object{}, fmt.Errorf("storing object %s: %w", name, classify(err))
	}
	return object(info), nil
}

// PutBytes stores data under name, in place of an object that is there.
func (o *Objects) PutBytes(ctx context.Context, name string, data []byte) (Object, error) {
	var stored Object
	ctx, cancel := o.bus.bounded(ctx)
	defer cancel()
	err := o.bus.repeat(ctx, func(ctx context.Context) (err error) {
		stored, err = o.Put(ctx, name, bytes.NewReader(data))
		return err
	})
	return stored, err
}

// Get opens an object, or returns ErrNotFound. Read fails at the end if the
// content does not have the object's digest: until io.EOF nothing is proven. The
// caller closes it.
func (o *Objects) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	var result jetstream.ObjectResult
	err := o.repeatBounded(ctx, func(context.Context) (err error) {
		// The result reads until the context it was opened with ends.
		result, err = o.store.Get(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening object %s: %w", name, err)
	}
	return result, nil
}

// GetBytes returns a whole object, its digest checked, or ErrNotFound.
func (o *Objects) GetBytes(ctx context.Context, name string) ([]byte, error) {
	var data []byte
	err := o.repeatBounded(ctx, func(ctx context.Context) (err error) {
		data, err = o.store.GetBytes(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading object %s: %w", name, err)
	}
	return data, nil
}

// Delete removes an object. One that is gone already is no error.
func (o *Objects) Delete(ctx context.Context, name string) error {
	err := o.repeatBounded(ctx, func(ctx context.Context) error {
		return o.store.Delete(ctx, name)
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("deleting object %s: %w", name, err)
	}
	return nil
}

// List returns all objects.
func (o *Objects) List(ctx context.Context) ([]Object, error) {
	var objects []Object
	err := o.repeatBounded(ctx, func(ctx context.Context) error {
		infos, err := o.store.List(ctx)
		if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
			return err
		}
		objects = objects[:0]
		for _, info := range infos {
			objects = append(objects, object(info))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing object store %s: %w", o.name, err)
	}
	return objects, nil
}

// repeatBounded repeats a call also when a replica that is behind has given
// only a part of the object.
func (o *Objects) repeatBounded(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := o.bus.bounded(ctx)
	defer cancel()
	return o.bus.repeat(ctx, func(ctx context.Context) error {
		err := try(ctx)
		switch {
		case errors.Is(err, jetstream.ErrObjectNotFound):
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case errors.Is(err, jetstream.ErrDigestMismatch):
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	})
}

func object(info *jetstream.ObjectInfo) Object {
	return Object{Name: info.Name, Size: info.Size, Digest: info.Digest}
}
