package bus

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// chunkSize is how much of an object one message holds.
const chunkSize = 256 << 10

// ErrDamaged says that an object's content is not what was put: chunks are
// missing or the digest is another.
var ErrDamaged = errors.New("object is damaged")

// Objects is a store of what is too large for a record, laid out as other NATS
// clients do it: chunks under an id of their own, and one message that names the
// object and is published when every chunk is acknowledged. So an object is
// there whole or not at all.
type Objects struct {
	bus    *Bus
	name   string
	stream string
}

// Object describes a stored object.
type Object struct {
	Name string
	// Size is in bytes.
	Size uint64
	// Digest is `SHA-256=` and the digest in URL-safe base64.
	Digest string
	// Stored is when the object was put, by the server's clock; zero in the
	// answer of Put.
	Stored time.Time

	id     string
	chunks int
}

// objectInfo is the content of the message that names an object.
type objectInfo struct {
	Name     string    `json:"name"`
	Bucket   string    `json:"bucket"`
	ID       string    `json:"nuid"`
	Size     uint64    `json:"size"`
	Modified time.Time `json:"mtime"`
	Chunks   int       `json:"chunks"`
	Digest   string    `json:"digest"`
	Deleted  bool      `json:"deleted,omitempty"`
}

// Objects opens the object store of this name, which Apply has created.
func (b *Bus) Objects(ctx context.Context, name string) (*Objects, error) {
	o := &Objects{bus: b, name: name, stream: objectStream(name)}
	if _, _, err := b.bounds(ctx, o.stream); err != nil {
		return nil, fmt.Errorf("opening object store %s: %w", name, err)
	}
	return o, nil
}

func objectStream(name string) string { return "OBJ_" + name }

func (o *Objects) chunkSubject(id string) string { return "$O." + o.name + ".C." + id }

func (o *Objects) infoSubject(name string) string {
	return "$O." + o.name + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// Put stores what r gives under name, in place of an object that is there. When
// it returns, all of it is acknowledged. If it fails, the object that was there
// still is.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader) (_ Object, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("storing object %s: %w", name, err)
		}
	}()
	old, err := o.info(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Object{}, err
	}
	object := Object{Name: name, id: rand.Text()}
	digest := sha256.New()
	if err := o.putChunks(ctx, &object, io.TeeReader(r, digest)); err != nil {
		return Object{}, errors.Join(err, o.purge(context.WithoutCancel(ctx), object.id))
	}
	object.Digest = formatDigest(digest)
	content, err := json.Marshal(objectInfo{
		Name: name, Bucket: o.name, ID: object.id, Size: object.Size, Modified: time.Now().UTC(),
		Chunks: object.chunks, Digest: object.Digest,
	})
	if err != nil {
		return Object{}, err
	}
	m := nats.NewMsg(o.infoSubject(name))
	m.Header.Set(headerRollup, "sub")
	m.Data = content
	if err := o.publish(ctx, m); err != nil {
		return Object{}, err // perhaps stored: its chunks stay
	}
	if old.id != "" {
		return object, o.purge(ctx, old.id)
	}
	return object, nil
}

// PutBytes stores data under name; see Put.
func (o *Objects) PutBytes(ctx context.Context, name string, data []byte) (Object, error) {
	return o.Put(ctx, name, bytes.NewReader(data))
}

func (o *Objects) putChunks(ctx context.Context, object *Object, r io.Reader) error {
	chunk := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			m := nats.NewMsg(o.chunkSubject(object.id))
			// A chunk whose acknowledgement was lost is sent again under its id.
			m.Header.Set(jetstream.MsgIDHeader, object.id+"/"+strconv.Itoa(object.chunks))
			m.Data = chunk[:n]
			if err := o.publish(ctx, m); err != nil {
				return err
			}
			object.chunks++
			object.Size += uint64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// publish stores one message. Repeating it is harmless: a chunk has a message
// id, a name replaces itself.
func (o *Objects) publish(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := o.bus.bounded(ctx)
	defer cancel()
	m.Header.Set(jetstream.ExpectedStreamHeader, o.stream)
	err := o.bus.repeat(ctx, func(ctx context.Context) error {
		_, err := o.bus.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		return err
	})
	if apiCode(err) == codeStoreFailed && isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// purge removes the chunks of one put.
func (o *Objects) purge(ctx context.Context, id string) error {
	return o.bus.purge(ctx, o.stream, o.chunkSubject(id))
}

// Get opens an object, or returns ErrNotFound. Until Read has returned io.EOF
// nothing is proven: at the end the digest is compared, and Read returns
// ErrDamaged if it differs. ctx bounds all reading.
func (o *Objects) Get(ctx context.Context, name string) (*ObjectReader, error) {
	object, err := o.info(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("opening object %s: %w", name, err)
	}
	return &ObjectReader{ctx: ctx, objects: o, object: object, digest: sha256.New()}, nil
}

// GetBytes returns a whole object, its digest checked, or ErrNotFound.
func (o *Objects) GetBytes(ctx context.Context, name string) ([]byte, error) {
	r, err := o.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	content.Grow(int(r.object.Size) + bytes.MinRead)
	if _, err := content.ReadFrom(r); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

// Delete removes an object. One that is gone already is no error.
func (o *Objects) Delete(ctx context.Context, name string) error {
	object, err := o.info(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil { // the name first: an object is there whole or not at all
		err = errors.Join(o.bus.purge(ctx, o.stream, o.infoSubject(name)), o.purge(ctx, object.id))
	}
	if err != nil {
		return fmt.Errorf("deleting object %s: %w", name, err)
	}
	return nil
}

// List returns all objects, in the order in which they were put.
func (o *Objects) List(ctx context.Context) ([]Object, error) {
	// Of a name that was replaced, a replica that is behind may show both.
	latest := map[string]Record{}
	for r, err := range o.bus.scan(ctx, o.stream, "$O."+o.name+".M.>") {
		if err != nil {
			return nil, fmt.Errorf("listing object store %s: %w", o.name, err)
		}
		latest[r.Subject] = r
	}
	objects := make([]Object, 0, len(latest))
	for _, r := range slices.SortedFunc(maps.Values(latest), bySequence) {
		object, err := decodeObject(r)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing object store %s: %w", o.name, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func bySequence(a, b Record) int { return cmp.Compare(a.Sequence, b.Sequence) }

// info reads the message that names an object.
func (o *Objects) info(ctx context.Context, name string) (Object, error) {
	r, err := o.bus.boundedLast(ctx, o.stream, o.infoSubject(name))
	if err != nil {
		return Object{}, err
	}
	return decodeObject(r)
}

// decodeObject reads such a message; other clients leave one for a deleted
// object.
func decodeObject(r Record) (Object, error) {
	var info objectInfo
	if err := json.Unmarshal(r.Data, &info); err != nil {
		return Object{}, fmt.Errorf("reading object description: %w", err)
	}
	if info.Deleted {
		return Object{}, ErrNotFound
	}
	return Object{Name: info.Name, Size: info.Size, Digest: info.Digest, Stored: r.Time, id: info.ID, chunks: info.Chunks}, nil
}

// ObjectReader reads an object, holding one page of chunks in memory.
type ObjectReader struct {
	ctx     context.Context //nolint:containedctx // of Get: io.Reader has no other way
	objects *Objects
	object  Object
	digest  hash.Hash

	page   []Record
	rest   []byte // of the chunk that is being read
	next   uint64 // first sequence not read yet
	chunks int    // read
	err    error
}

// Object describes what is read.
func (r *ObjectReader) Object() Object { return r.object }

// Read implements io.Reader.
func (r *ObjectReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err == nil {
			r.err = r.nextChunk()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// nextChunk goes to the next chunk; after the last one it returns io.EOF if the
// digest is right.
func (r *ObjectReader) nextChunk() error {
	if r.chunks == r.object.chunks {
		if formatDigest(r.digest) != r.object.Digest {
			return fmt.Errorf("reading object %s: %w: another digest", r.object.Name, ErrDamaged)
		}
		return io.EOF
	}
	if len(r.page) == 0 {
		if err := r.nextPage(); err != nil {
			return fmt.Errorf("reading object %s: %w", r.object.Name, err)
		}
	}
	chunk := r.page[0]
	r.page, r.rest, r.next = r.page[1:], chunk.Data, chunk.Sequence+1
	r.chunks++
	r.digest.Write(chunk.Data)
	return nil
}

// nextPage reads chunks. A replica that is behind does not have all of them yet;
// the leader knows whether there are more.
func (r *ObjectReader) nextPage() (err error) {
	o := r.objects
	ctx, cancel := o.bus.bounded(r.ctx)
	defer cancel()
	subject := o.chunkSubject(r.object.id)
	for {
		r.page, _, err = o.bus.page(ctx, o.stream, subject, r.next, pageBytes/chunkSize)
		if err != nil || len(r.page) > 0 {
			return err
		}
		newest, err := o.bus.last(ctx, o.stream, subject)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && newest.Sequence < r.next:
			return fmt.Errorf("%w: %d of %d chunks", ErrDamaged, r.chunks, r.object.chunks)
		case err != nil:
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

func formatDigest(h hash.Hash) string {
	return "SHA-256=" + base64.URLEncoding.EncodeToString(h.Sum(nil))
}
