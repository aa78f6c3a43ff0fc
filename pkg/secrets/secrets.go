// Package secrets encrypts what records must not show, such as the credentials of
// backends, with a keyset that lies in a file beside the data and never in a record.
//
// Every process that has to read such records needs the same file. A ciphertext is
// bound to a context, the place of the record that holds it (bucket and key): moved
// to another place it does not open.
package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Errors that decide what a caller does.
var (
	// ErrNoKey: there is no key file, or the keyring is nil.
	ErrNoKey = errors.New("no key")
	// ErrWrongKey: the text was sealed with a key that this keyring does not hold.
	ErrWrongKey = errors.New("sealed with another key")
	// ErrDamaged: the text was sealed with a key of this keyring but was changed
	// since, or belongs to another context.
	ErrDamaged = errors.New("sealed text is damaged or belongs to another record")
	// ErrKeyFile: the key file cannot be used as it is; the error says what to do.
	ErrKeyFile = errors.New("key file is unusable")
)

// Keyring seals and opens texts. It is safe for concurrent use. A nil Keyring
// stands for a process without a key: all it answers is ErrNoKey.
type Keyring struct {
	aead tink.AEAD
	ids  map[uint32]bool
}

// mostKeyBytes bounds what is read of a key file; a keyset of a hundred keys has a
// third of it.
const mostKeyBytes = 64 << 10

// OpenOrCreate opens the key file at path, making it first if there is none. Of
// several processes that start at once, one makes the key and all open that one.
func OpenOrCreate(path string) (*Keyring, error) {
	keys, err := Open(path)
	if !errors.Is(err, ErrNoKey) {
		return keys, err
	}

	keys, err = Create(path)
	if errors.Is(err, fs.ErrExist) {
		return Open(path)
	}

	return keys, err
}

// Open reads the key file at path. It returns ErrNoKey if there is none and
// ErrKeyFile if others than its owner can read it or it holds no keyset.
func Open(path string) (*Keyring, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading key file %s: %w", path, ErrNoKey)
	}

	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}

	defer func() { _ = file.Close() }() // nothing was written

	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}

	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file", ErrKeyFile, path)
	}

	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: others can access %s (mode %04o): run chmod 600 on it, and replace the key if anyone may have read it",
			ErrKeyFile, path, mode)
	}

	text, err := io.ReadAll(io.LimitReader(file, mostKeyBytes))
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}

	// The reader's own error says no more, and must not quote a key.
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s holds no keyset: copy it again from where it was made; if it is lost, what was sealed with it is lost, too: start anew, with an empty data directory or NATS",
			ErrKeyFile, path)
	}

	keys, err := newKeyring(handle)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}

	return keys, nil
}

// Create makes a key file at path, readable by its owner only. The file appears
// complete or not at all, and never in place of another: if there is one already,
// the error is fs.ErrExist.
func Create(path string) (*Keyring, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}

	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}

	if err := publish(path, text.Bytes()); err != nil {
		return nil, fmt.Errorf("writing key file: %w", err)
	}

	return newKeyring(handle)
}

// publish writes a file beside path and links it to path, which fails where a
// rename would replace.
func publish(path string, text []byte) (err error) {
	dir := filepath.Dir(path)

	file, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()

	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}

	if err := os.Link(file.Name(), path); err != nil {
		return err
	}

	// The name has to last, too: what is sealed from now on needs this key.
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}

	return errors.Join(parent.Sync(), parent.Close())
}

func newKeyring(handle *keyset.Handle) (*Keyring, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("reading keyset: %w", err)
	}

	keys := &Keyring{aead: primitive, ids: map[uint32]bool{}}
	for _, info := range handle.KeysetInfo().GetKeyInfo() {
		keys.ids[info.GetKeyId()] = true
	}

	return keys, nil
}

// Seal encrypts plain for a context and returns printable text.
func (k *Keyring) Seal(plain, context []byte) (string, error) {
	if k == nil {
		return "", ErrNoKey
	}

	sealed, err := k.aead.Encrypt(plain, context)
	if err != nil {
		return "", fmt.Errorf("sealing: %w", err)
	}

	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open decrypts what Seal made with the same context. It returns ErrNoKey for a nil
// keyring, ErrWrongKey for a text of a key that k does not hold, and ErrDamaged for
// one that was changed or belongs to another context.
func (k *Keyring) Open(sealed string, context []byte) ([]byte, error) {
	if k == nil {
		return nil, ErrNoKey
	}

	text, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, ErrDamaged
	}

	// Tink's output begins with a version byte and the number of the key.
	const version, prefix = 1, 5
	if len(text) < prefix || text[0] != version {
		return nil, ErrDamaged
	}

	if !k.ids[binary.BigEndian.Uint32(text[1:prefix])] {
		return nil, ErrWrongKey
	}

	plain, err := k.aead.Decrypt(text, context)
	if err != nil {
		return nil, ErrDamaged // the cause says no more than that
	}

	return plain, nil
}
