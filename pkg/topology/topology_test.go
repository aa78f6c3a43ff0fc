package topology_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"ringmaster/pkg/ring"
	"ringmaster/pkg/topology"
)

// sample is a topology with two circles and a password.
func sample() *topology.Topology {
	config := topology.Config{
		Source: "sample", HashKey: "exi", ShardKey: "%db,%mm", VNodes: 256, Databases: []string{"b", "a"},
		Circles: []topology.Circle{
			{ID: 0, Name: "one", Backends: []topology.Backend{
				{Name: "a", URL: "http://a:8086", Credentials: topology.Credentials{Username: "root", Password: "hunter2"}},
				{Name: "b", URL: "http://b:8086"},
			}},
			{ID: 1, Name: "two", Backends: []topology.Backend{{Name: "c", URL: "http://c:8086", WriteOnly: true}}},
		},
	}

	return config.Topology()
}

func TestPlacement(t *testing.T) {
	t.Parallel()

	shape := sample()
	placement, err := shape.Placement(0)
	require.NoError(t, err)

	r := ring.New([]string{"|0", "|1"}, 256)

	var callers sync.WaitGroup

	for range 4 {
		callers.Go(func() {
			for i := range 200 {
				measurement := fmt.Sprintf("m%d", i)
				if want := shape.Circles[0].Backends[r.Owner("db,"+measurement)].Name; placement.Owner("db", measurement).Name != want {
					t.Errorf("%s is not placed on %s", measurement, want)
				}
			}
		})
	}

	callers.Wait()
	require.Equal(t, r.Ranges(), placement.Ranges())

	_, err = shape.Placement(2)
	require.ErrorIs(t, err, topology.ErrNoCircle)

	shape.HashKey = "other"
	_, err = shape.Placement(0)
	require.ErrorIs(t, err, ring.ErrHashKey)

	shape.HashKey, shape.ShardKey = "idx", "other"
	_, err = shape.Placement(0)
	require.ErrorIs(t, err, ring.ErrShardKey)

	empty := topology.Topology{HashKey: "idx", ShardKey: "%mm", Circles: []topology.Circle{{}}}
	placement, err = empty.Placement(0)
	require.NoError(t, err)
	require.Nil(t, placement.Owner("db", "m"))
}

func TestLookups(t *testing.T) {
	t.Parallel()

	shape := sample()
	circle, ok := shape.Circle(1)
	require.True(t, ok)
	require.Equal(t, "two", circle.Name)

	_, ok = shape.Circle(-1)
	require.False(t, ok)

	backend, ok := circle.Backend("c")
	require.True(t, ok)
	require.True(t, backend.WriteOnly)

	_, ok = circle.Backend("a")
	require.False(t, ok)
}

func TestSameServer(t *testing.T) {
	t.Parallel()

	for _, same := range [][2]string{
		{"http://h:8086", "http://H:8086/"},
		{"http://h", "http://h:80"},
		{"http://h:", "http://h:80"},
		{"https://h/p/", "HTTPS://h:443/p"},
		{"http://[::1]:8086", "http://[::1]:8086"},
		{"%zz", "%zz"},
	} {
		require.True(t, topology.SameServer(same[0], same[1]), same)
	}

	for _, other := range [][2]string{
		{"http://h:8086", "http://h:8087"}, {"http://h", "https://h"}, {"http://h/a", "http://h/A"}, {"http://h", "http://i"},
	} {
		require.False(t, topology.SameServer(other[0], other[1]), other)
	}
}

// TestDigest changes one thing at a time: what places data changes the digest, and
// nothing else does.
func TestDigest(t *testing.T) {
	t.Parallel()

	digest := sample().Digest
	require.Len(t, digest, 64)

	places := map[string]func(*topology.Topology){
		"hash key":      func(s *topology.Topology) { s.HashKey = "idx" },
		"shard key":     func(s *topology.Topology) { s.ShardKey = "%mm" },
		"points":        func(s *topology.Topology) { s.VNodes = 255 },
		"database":      func(s *topology.Topology) { s.Databases = []string{"a"} },
		"all databases": func(s *topology.Topology) { s.Databases = nil },
		"backend name":  func(s *topology.Topology) { s.Circles[0].Backends[0].Name = "z" },
		"backend url":   func(s *topology.Topology) { s.Circles[0].Backends[0].URL += "/" },
		"order": func(s *topology.Topology) {
			b := s.Circles[0].Backends
			b[0], b[1] = b[1], b[0]
		},
		"removed backend": func(s *topology.Topology) { s.Circles[0].Backends = s.Circles[0].Backends[:1] },
		"removed circle":  func(s *topology.Topology) { s.Circles = s.Circles[:1] },
		"moved backend": func(s *topology.Topology) {
			moved := s.Circles[0].Backends[1]
			s.Circles[0].Backends = s.Circles[0].Backends[:1]
			s.Circles[1].Backends = append([]topology.Backend{moved}, s.Circles[1].Backends...)
		},
		"quotes": func(s *topology.Topology) { s.Databases = []string{`a" "b`} },
	}

	seen := map[string]string{digest: "the original"}

	for name, change := range places {
		s := sample()
		change(s)
		require.NotContains(t, seen, s.ComputeDigest(), "%s looks like %s", name, seen[s.ComputeDigest()])
		seen[s.ComputeDigest()] = name
	}

	for name, change := range map[string]func(*topology.Topology){
		"credentials":     func(s *topology.Topology) { s.Circles[0].Backends[0].Credentials.Password = "other" },
		"sealed":          func(s *topology.Topology) { s.Circles[0].Backends[0].Sealed = "text" },
		"write only":      func(s *topology.Topology) { s.Circles[0].Backends[0].WriteOnly = true },
		"circle name":     func(s *topology.Topology) { s.Circles[0].Name = "z" },
		"database order":  func(s *topology.Topology) { s.Databases = []string{"a", "b", "a"} },
		"epoch":           func(s *topology.Topology) { s.Epoch, s.Parent = 8, 7 },
		"source and time": func(s *topology.Topology) { s.Source, s.CreatedAt = "z", time.Now() },
	} {
		s := sample()
		change(s)
		require.Equal(t, digest, s.ComputeDigest(), name)
	}
}

// reversal is a Sealer that hides nothing but a text's direction, bound to its
// context; enough to see what is sealed with what.
type reversal struct{ refuses error }

func (r reversal) Seal(plain, context []byte) (string, error) {
	return reverse(string(plain)) + "@" + string(context), r.refuses
}

func (r reversal) Open(sealed string, context []byte) ([]byte, error) {
	text, bound, _ := strings.Cut(sealed, "@")
	if bound != string(context) {
		return nil, errors.New("wrong context")
	}

	return []byte(reverse(text)), r.refuses
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}

	return string(b)
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()

	shape := sample()
	sealed, err := shape.Seal(reversal{}, "topology/7")
	require.NoError(t, err)
	require.Equal(t, sample(), shape, "the original is left alone")

	a, b := sealed.Circles[0].Backends[0], sealed.Circles[0].Backends[1]
	require.True(t, a.Credentials.IsZero())
	require.Contains(t, a.Sealed, `@"topology/7" "a" "http://a:8086"`)
	require.Empty(t, b.Sealed, "no credentials are not sealed")

	// Through the record store and back.
	raw, err := json.Marshal(sealed)
	require.NoError(t, err)

	var stored topology.Topology

	require.NoError(t, json.Unmarshal(raw, &stored))
	require.Equal(t, sealed, &stored)

	opened, err := stored.Open(reversal{}, "topology/7")
	require.NoError(t, err)
	require.Equal(t, shape.Circles[0].Backends[0].Credentials, opened.Circles[0].Backends[0].Credentials)

	again, err := stored.Seal(reversal{}, "topology/7")
	require.NoError(t, err)
	require.Equal(t, &stored, again, "what is only there sealed stays sealed")

	// A sealed password opens for its backend at its address and place only.
	_, err = stored.Open(reversal{}, "topology/8")
	require.ErrorContains(t, err, `backend "a": opening credentials: wrong context`)

	stored.Circles[0].Backends[0].URL = "http://attacker"
	_, err = stored.Open(reversal{}, "topology/7")
	require.Error(t, err)

	broken := errors.New("broken")
	_, err = shape.Seal(reversal{broken}, "x")
	require.ErrorIs(t, err, broken)

	text, err := reversal{}.Seal([]byte("hunter2"), []byte("c"))
	require.NoError(t, err)
	_, err = topology.OpenCredentials(reversal{}, text, []byte("c"))
	require.ErrorIs(t, err, topology.ErrSealed)
	require.NotContains(t, err.Error(), "hunter2")
}

// TestCredentialsNeverShow prints everything that holds a password in every way
// there is.
func TestCredentialsNeverShow(t *testing.T) {
	t.Parallel()

	secret := topology.Credentials{Username: "root-user", Password: "hunter2"}
	shape := sample()
	shape.Circles[0].Backends[0].Credentials = secret
	sealed, err := shape.Seal(reversal{}, "x")
	require.NoError(t, err)

	opened, err := sealed.Open(reversal{}, "x")
	require.NoError(t, err)

	values := map[string]any{
		"credentials": secret, "pointer": &secret, "list": []topology.Credentials{secret},
		"map":     map[string]topology.Credentials{"c": secret},
		"keyed":   map[topology.Credentials]int{secret: 1},
		"backend": shape.Circles[0].Backends[0], "circle": shape.Circles[0], "topology": shape, "value": *shape,
		"opened": opened, "config": topology.Config{Credentials: secret, Circles: shape.Circles},
	}

	for name, value := range values {
		var out bytes.Buffer

		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%T", "%e", "%c"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}

		fmt.Fprintln(&out, secret.String(), secret.GoString())

		raw, err := json.Marshal(value)
		require.NoError(t, err, name)
		out.Write(raw)

		raw, err = yaml.Marshal(value)
		require.NoError(t, err, name)
		out.Write(raw)

		slog.New(slog.NewTextHandler(&out, nil)).Info("said", "value", value, slog.Group("group", "value", value))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("said", "value", value, slog.Group("group", "value", value))

		for _, word := range []string{"hunter2", "root-user", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
			require.NotContains(t, out.String(), word, name)
		}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.FixedZone("CEST", 2*60*60))
	before := now.Add(-time.Hour).UTC()

	decision, first := topology.Decide(nil, nil, sample(), false, now)
	require.Equal(t, topology.Adopt, decision)
	require.Equal(t, uint64(1), first.Epoch)
	require.Zero(t, first.Parent)
	require.Equal(t, now.UTC(), first.CreatedAt)
	require.Equal(t, first.ComputeDigest(), first.Digest)

	first.CreatedAt = before

	// The same again.
	decision, kept := topology.Decide(first, nil, sample(), false, now)
	require.Equal(t, topology.Keep, decision)
	require.Same(t, first, kept)

	// Another password, name or role: the same epoch, written once more.
	for name, change := range map[string]func(*topology.Topology){
		"password":    func(s *topology.Topology) { s.Circles[0].Backends[0].Credentials.Password = "new" },
		"no password": func(s *topology.Topology) { s.Circles[0].Backends[0].Credentials = topology.Credentials{} },
		"added":       func(s *topology.Topology) { s.Circles[0].Backends[1].Credentials.Password = "new" },
		"circle name": func(s *topology.Topology) { s.Circles[1].Name = "renamed" },
		"write only":  func(s *topology.Topology) { s.Circles[0].Backends[1].WriteOnly = true },
	} {
		candidate := sample()
		change(candidate)
		decision, revised := topology.Decide(first, nil, candidate, false, now)
		require.Equal(t, topology.Revise, decision, name)
		require.Equal(t, uint64(1), revised.Epoch)
		require.Zero(t, revised.Parent)
		require.Equal(t, before, revised.CreatedAt, "the epoch is as old as it was")
		require.Equal(t, candidate.Circles, revised.Circles)
	}

	// A record that could not be opened says nothing about its passwords.
	sealed, err := first.Seal(reversal{}, "x")
	require.NoError(t, err)
	decision, _ = topology.Decide(sealed, nil, sample(), false, now)
	require.Equal(t, topology.Keep, decision)

	// A record that lies about its digest is no reason to panic.
	liar := first.Clone()
	liar.Circles = nil
	decision, _ = topology.Decide(liar, nil, sample(), false, now)
	require.Equal(t, topology.Revise, decision)

	// A backend more: the next epoch.
	grown := sample()
	grown.Circles[0].Backends = append(grown.Circles[0].Backends, topology.Backend{Name: "d", URL: "http://d:8086"})
	decision, second := topology.Decide(first, nil, grown, false, now)
	require.Equal(t, topology.Adopt, decision)
	require.Equal(t, uint64(2), second.Epoch)
	require.Equal(t, uint64(1), second.Parent)

	// The old file again: only for those who mean it.
	earlier := []topology.Ancestor{{Epoch: 1, Digest: first.Digest}}
	decision, stale := topology.Decide(second, earlier, sample(), false, now)
	require.Equal(t, topology.Stale, decision)
	require.Same(t, second, stale)

	decision, third := topology.Decide(second, earlier, sample(), true, now)
	require.Equal(t, topology.Adopt, decision)
	require.Equal(t, uint64(3), third.Epoch)
	require.Equal(t, uint64(2), third.Parent)
	require.Equal(t, first.Digest, third.Digest)

	found, ok := topology.FindAncestor([]topology.Ancestor{{Epoch: 3, Digest: "x"}, {Epoch: 1, Digest: "x"}, {Epoch: 2, Digest: "y"}}, "x")
	require.True(t, ok)
	require.Equal(t, uint64(3), found.Epoch)

	for decision, name := range map[topology.Decision]string{
		topology.Keep: "keep", topology.Revise: "revise", topology.Adopt: "adopt", topology.Stale: "stale", 99: "unknown",
	} {
		require.Equal(t, name, decision.String())
	}
}

// TestEpochsNeverTurnBack lets a process with any file of the past restart at any
// time: without acceptance, no digest ever comes back.
func TestEpochsNeverTurnBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var (
			current *topology.Topology
			earlier []topology.Ancestor
		)

		seen := map[string]uint64{}

		for range rapid.IntRange(1, 20).Draw(t, "starts") {
			candidate := sample()
			candidate.VNodes = rapid.IntRange(1, 5).Draw(t, "vnodes")
			candidate.Digest = candidate.ComputeDigest()

			decision, next := topology.Decide(current, earlier, candidate, false, time.Unix(0, 0))
			switch decision {
			case topology.Adopt:
				require.NotContains(t, seen, next.Digest)

				if current != nil {
					require.Equal(t, current.Epoch+1, next.Epoch)
					require.Equal(t, current.Epoch, next.Parent)
					earlier = append(earlier, topology.Ancestor{Epoch: current.Epoch, Digest: current.Digest})
				}

				seen[next.Digest] = next.Epoch
			case topology.Keep:
				require.Equal(t, candidate.Digest, current.Digest)
				require.Same(t, current, next)
			case topology.Stale:
				require.Less(t, seen[candidate.Digest], current.Epoch)
				require.Same(t, current, next)
			default:
				t.Fatalf("decided to %v", decision)
			}

			current = next
		}
	})
}

func TestCipher(t *testing.T) {
	t.Parallel()

	// The pair in influx-proxy's documentation.
	text, err := topology.EncryptCredential(topology.CipherKey, "admin")
	require.NoError(t, err)
	require.Equal(t, "YgvEyuPZlDYAH8sGDkC!Ag", text)

	plain, err := topology.DecryptCredential(topology.CipherKey, text)
	require.NoError(t, err)
	require.Equal(t, "admin", plain)

	for _, key := range []string{"", "consistentciphe", "consistentcipherx", "Consistentcipher"} {
		_, err := topology.EncryptCredential(key, "admin")
		require.ErrorIs(t, err, topology.ErrCipherKey)
		_, err = topology.DecryptCredential(key, text)
		require.ErrorIs(t, err, topology.ErrCipherKey)
	}

	for _, bad := range []string{"admin", "YgvEyuPZlDYAH8sGDkC!Ag==", "YgvEyuPZlDYAH8sGDkC-Ag", "YgvE\nyuPZlDYAH8sGDkC!Ag", "AAAAAAAAAAAAAAAAAAAAAA"} {
		_, err := topology.DecryptCredential(topology.CipherKey, bad)
		require.ErrorIs(t, err, topology.ErrCipherText, bad)
	}
}

func TestCipherRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.StringMatching(`[ -~äöü日本語]{0,40}`).Draw(t, "message")
		text, err := topology.EncryptCredential(topology.CipherKey, message)
		require.NoError(t, err)
		require.Regexp(t, `^[A-Za-z0-9_!]*$`, text)

		// The zero filling adds nothing to whole blocks: 16 bytes are 22 characters.
		require.Len(t, text, ((len(message)+15)/16*16*8+5)/6)

		plain, err := topology.DecryptCredential(topology.CipherKey, text)
		require.NoError(t, err)
		require.Equal(t, message, plain)
	})
}

// Decipher gives every message back, of which DecryptCredential takes text only.
func TestDecipherAnyMessage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		message := strings.TrimRight(string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "message")), "\x00")
		text, err := topology.EncryptCredential(topology.CipherKey, message)
		require.NoError(t, err)
		plain, err := topology.Decipher(topology.CipherKey, text)
		require.NoError(t, err)
		require.Equal(t, message, plain)
	})
	_, err := topology.Decipher("", "YgvEyuPZlDYAH8sGDkC!Ag")
	require.ErrorIs(t, err, topology.ErrCipherKey)
	_, err = topology.Decipher(topology.CipherKey, "admin")
	require.ErrorIs(t, err, topology.ErrCipherText)
}
