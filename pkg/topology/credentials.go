package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that printing credentials shows.
const redacted = "[redacted]"

// Credentials are what a backend, or the proxy itself, asks its clients for.
// However they are printed, logged or marshalled, they show nothing.
type Credentials struct {
	Username, Password string
}

// IsZero reports whether there are no credentials.
func (c Credentials) IsZero() bool { return c == Credentials{} }

// String returns a fixed text.
func (Credentials) String() string { return redacted }

// GoString returns a fixed text.
func (Credentials) GoString() string { return redacted }

// Format writes a fixed text for every verb; String alone would leave the verbs
// that are not for strings, such as %d, to print the fields.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a fixed text.
func (Credentials) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a fixed text; JSON, YAML and TOML encoders all use it.
func (Credentials) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Sealer encrypts what a record must not show. The context is bound to the
// ciphertext: Open must be given the same one. The text that Seal returns is
// printable.
type Sealer interface {
	Seal(plain, context []byte) (string, error)
	Open(sealed string, context []byte) ([]byte, error)
}

// ErrSealed is returned by Open for a sealed text that decrypts to something else
// than credentials.
var ErrSealed = errors.New("sealed text holds no credentials")

// sealedCredentials is the plaintext inside a sealed text.
type sealedCredentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Seal encrypts the credentials. No credentials are the empty text.
func (c Credentials) Seal(s Sealer, context []byte) (string, error) {
	if c.IsZero() {
		return "", nil
	}

	plain, err := json.Marshal(sealedCredentials(c)) //nolint:gosec // in the clear only here: the next step encrypts it
	if err != nil {
		return "", fmt.Errorf("encoding credentials: %w", err)
	}

	sealed, err := s.Seal(plain, context)
	if err != nil {
		return "", fmt.Errorf("sealing credentials: %w", err)
	}

	return sealed, nil
}

// OpenCredentials decrypts what Credentials.Seal made with the same context.
func OpenCredentials(s Sealer, sealed string, context []byte) (Credentials, error) {
	if sealed == "" {
		return Credentials{}, nil
	}

	plain, err := s.Open(sealed, context)
	if err != nil {
		return Credentials{}, fmt.Errorf("opening credentials: %w", err)
	}

	var c sealedCredentials
	if err := json.Unmarshal(plain, &c); err != nil {
		// The decoder's own words could quote the plaintext.
		return Credentials{}, ErrSealed
	}

	return Credentials(c), nil
}

// Seal returns a copy of t whose backends carry their credentials sealed and no
// longer in clear. The context names the place of the record (bucket and key);
// beside it, each ciphertext is bound to its backend's name and URL, so that
// whoever can write the record cannot have a password sent to another address.
// Credentials that t holds only sealed stay as they are.
func (t *Topology) Seal(s Sealer, context string) (*Topology, error) {
	sealed := t.Clone()

	for b := range sealed.backends() {
		if b.Credentials.IsZero() {
			continue
		}

		text, err := b.Credentials.Seal(s, sealContext(context, b))
		if err != nil {
			return nil, fmt.Errorf("backend %q: %w", b.Name, err)
		}

		b.Credentials, b.Sealed = Credentials{}, text
	}

	return sealed, nil
}

// Open returns a copy of t whose backends carry in clear the credentials that Seal
// made with the same context.
func (t *Topology) Open(s Sealer, context string) (*Topology, error) {
	opened := t.Clone()

	for b := range opened.backends() {
		if b.Sealed == "" {
			continue
		}

		c, err := OpenCredentials(s, b.Sealed, sealContext(context, b))
		if err != nil {
			return nil, fmt.Errorf("backend %q: %w", b.Name, err)
		}

		b.Credentials = c
	}

	return opened, nil
}

func sealContext(context string, b *Backend) []byte {
	return fmt.Appendf(nil, "%q %q %q", context, b.Name, b.URL)
}

// backends yields every backend of every circle, to be changed in place.
func (t *Topology) backends() func(yield func(*Backend) bool) {
	return func(yield func(*Backend) bool) {
		for i := range t.Circles {
			for j := range t.Circles[i].Backends {
				if !yield(&t.Circles[i].Backends[j]) {
					return
				}
			}
		}
	}
}
