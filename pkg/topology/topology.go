// Package topology knows what a cluster consists of: circles of backends, the
// rule that places measurements on them, and the epochs of that rule.
//
// It reads configurations (influx-proxy's of both generations and Ringmaster's
// own), turns them into the topology record that all processes share, and says
// which backend owns a measurement. It is pure: bytes in, values out. Files, clocks
// and the record store belong to the callers.
package topology

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"ringmaster/pkg/ring"
)

// ErrNoCircle is returned for a circle that the topology does not have.
var ErrNoCircle = errors.New("no such circle")

// Topology is one version of the cluster's shape: the record that all processes
// share. Its JSON never contains a password; credentials travel in it sealed.
type Topology struct {
	// Epoch numbers the versions, from 1; Parent is the epoch that this one
	// replaced, 0 for the first.
	Epoch  uint64 `json:"epoch"`
	Parent uint64 `json:"parent"`
	// Digest identifies everything that decides where data lies, and nothing
	// else: two topologies of one digest place every point alike. See
	// [Topology.ComputeDigest].
	Digest   string   `json:"digest"`
	Circles  []Circle `json:"circles"`
	HashKey  string   `json:"hash_key"`
	ShardKey string   `json:"shard_key"`
	// VNodes is the number of points of a backend on its circle's ring.
	VNodes int `json:"vnodes"`
	// Databases is the allow-list of databases; empty allows all.
	Databases []string  `json:"databases"`
	CreatedAt time.Time `json:"created_at"`
	// Source says where the topology came from: the name of a configuration.
	Source string `json:"source"`
}

// Circle is one full replica of all data, spread over its backends by a ring.
type Circle struct {
	// ID is the circle's index in the configuration; commands name circles by it.
	ID       int       `json:"id"`
	Name     string    `json:"name"`
	Backends []Backend `json:"backends"`
}

// Backend is one InfluxDB server of a circle. Its name is unique in the topology.
type Backend struct {
	Name string `json:"name"`
	// URL is kept letter for letter: it may be the key that places the backend.
	URL string `json:"url"`
	// WriteOnly takes the backend out of the reads.
	WriteOnly bool `json:"write_only"`
	// Credentials are known only after reading a configuration or opening a
	// record; Sealed is their encrypted form. See [Topology.Seal].
	Credentials Credentials `json:"-"`
	Sealed      string      `json:"sealed,omitempty"`
}

// Circle returns the circle with this ID.
func (t *Topology) Circle(id int) (*Circle, bool) {
	for i := range t.Circles {
		if t.Circles[i].ID == id {
			return &t.Circles[i], true
		}
	}

	return nil, false
}

// Backend returns the backend with this name in the circle.
func (c *Circle) Backend(name string) (*Backend, bool) {
	for i := range c.Backends {
		if c.Backends[i].Name == name {
			return &c.Backends[i], true
		}
	}

	return nil, false
}

// On returns the backend on the server with this address, however it is spelled
// (see SameServer); nil if there is none.
func (c *Circle) On(address string) *Backend {
	for i := range c.Backends {
		if SameServer(c.Backends[i].URL, address) {
			return &c.Backends[i]
		}
	}

	return nil
}

// ComputeDigest returns the SHA-256, in hexadecimal, of what places data: the
// circles with their backends' names and URLs in order, hash key, shard key, points
// a backend, and the set of allowed databases. The circles' names, credentials and
// write_only place nothing and are left out.
func (t *Topology) ComputeDigest() string {
	databases := slices.Clone(t.Databases)
	slices.Sort(databases)
	databases = slices.Compact(databases)

	// %q keeps any two different lists of strings different.
	h := sha256.New()
	fmt.Fprintf(h, "topology.v1 %q %q %d %q\n", t.HashKey, t.ShardKey, t.VNodes, databases)

	for i := range t.Circles {
		fmt.Fprintf(h, "circle %d\n", t.Circles[i].ID)

		for j := range t.Circles[i].Backends {
			b := &t.Circles[i].Backends[j]
			fmt.Fprintf(h, "backend %q %q\n", b.Name, b.URL)
		}
	}

	return hex.EncodeToString(h.Sum(nil))
}

// Clone returns a copy that shares nothing with t.
func (t *Topology) Clone() *Topology {
	c := *t
	c.Databases = slices.Clone(t.Databases)
	c.Circles = cloneCircles(t.Circles)

	return &c
}

func cloneCircles(circles []Circle) []Circle {
	circles = slices.Clone(circles)
	for i := range circles {
		circles[i].Backends = slices.Clone(circles[i].Backends)
	}

	return circles
}

// Placement says which backend of one circle owns a measurement. It is built once
// and safe for concurrent use.
type Placement struct {
	ring     *ring.Ring
	shardKey ring.ShardKey
	backends []Backend
}

// Placement builds the placement of a circle. It returns ErrNoCircle for a circle
// that t does not have, and ring.ErrHashKey or ring.ErrShardKey for a record whose
// keys this version does not know.
func (t *Topology) Placement(circle int) (*Placement, error) {
	c, ok := t.Circle(circle)
	if !ok {
		return nil, fmt.Errorf("placing on circle %d: %w", circle, ErrNoCircle)
	}

	hashKey, err := ring.ParseHashKey(t.HashKey)
	if err != nil {
		return nil, fmt.Errorf("placing on circle %d: %w", circle, err)
	}

	shardKey, err := ring.ParseShardKey(t.ShardKey)
	if err != nil {
		return nil, fmt.Errorf("placing on circle %d: %w", circle, err)
	}

	return &Placement{
		ring:     ring.New(ringKeys(hashKey, c.Backends), t.VNodes),
		shardKey: shardKey,
		backends: slices.Clone(c.Backends),
	}, nil
}

func ringKeys(hashKey ring.HashKey, backends []Backend) []string {
	keys := make([]string, len(backends))
	for i := range backends {
		keys[i] = hashKey.Key(i, backends[i].Name, backends[i].URL)
	}

	return keys
}

// Owner returns the backend that owns a measurement, given by its unescaped names.
// The backend belongs to the placement and must not be changed. It is nil only for
// a circle without backends.
func (p *Placement) Owner(db, measurement string) *Backend {
	i := p.ring.OwnerOf(p.shardKey, db, measurement)
	if i < 0 {
		return nil
	}

	return &p.backends[i]
}

// Ranges returns the arcs of the circle's ring; Owner of a range is the index of
// the backend in the circle.
func (p *Placement) Ranges() []ring.Range { return p.ring.Ranges() }
