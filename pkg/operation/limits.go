package operation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Limits bound what is taken from the backends; nil means no bound.
type Limits struct {
	// PointsPerSecond and BytesPerSecond are for all workers together.
	PointsPerSecond *int64 `json:"points_per_second,omitempty"`
	BytesPerSecond  *int64 `json:"bytes_per_second,omitempty"`
	// SlotsPerBackend is how many tasks read from or write to one backend at once.
	SlotsPerBackend *int `json:"slots_per_backend,omitempty"`
}

// The largest limits; more is none. They keep arithmetic with them exact.
const (
	MaxPointsPerSecond = 1_000_000_000
	MaxBytesPerSecond  = 1_000_000_000_000
	MaxSlotsPerBackend = 10_000
)

// None reports whether nothing is limited.
func (l Limits) None() bool { return l == Limits{} }

// Check returns an *InvalidError, whose field begins with prefix, for a limit that
// is out of bounds.
func (l Limits) Check(prefix string) error {
	for _, one := range l.all() {
		if err := one.check(prefix); err != nil {
			return err
		}
	}
	return nil
}

// String names the limits for a person.
func (l Limits) String() string {
	var parts []string
	for _, one := range l.all() {
		if one.value != nil {
			parts = append(parts, one.name+" "+strconv.FormatInt(*one.value, 10))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// limit is one of the limits, by name.
type limit struct {
	name  string
	value *int64
	most  int64
}

func (l Limits) all() []limit {
	var slots *int64
	if l.SlotsPerBackend != nil {
		n := int64(*l.SlotsPerBackend)
		slots = &n
	}
	return []limit{
		{"points_per_second", l.PointsPerSecond, MaxPointsPerSecond},
		{"bytes_per_second", l.BytesPerSecond, MaxBytesPerSecond},
		{"slots_per_backend", slots, MaxSlotsPerBackend},
	}
}

func (l limit) check(prefix string) error {
	if l.value == nil || 1 <= *l.value && *l.value <= l.most {
		return nil
	}
	return &InvalidError{
		Field: prefix + l.name, Problem: fmt.Sprintf("is %d", *l.value),
		Hint: fmt.Sprintf("use a whole number from 1 to %d, or null for no limit", l.most),
	}
}

// LimitsPatch changes limits: what is not given stays, null lifts a limit.
type LimitsPatch struct {
	PointsPerSecond LimitChange `json:"points_per_second"`
	BytesPerSecond  LimitChange `json:"bytes_per_second"`
	SlotsPerBackend LimitChange `json:"slots_per_backend"`
}

// LimitChange is the change of one limit.
type LimitChange struct {
	// Given says that there is one; To is nil where it lifts the limit.
	Given bool
	To    *int64
}

// UnmarshalJSON implements json.Unmarshaler: null is a change, too.
func (c *LimitChange) UnmarshalJSON(raw []byte) error {
	c.Given, c.To = true, nil
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return json.Unmarshal(raw, &c.To)
}

// None reports whether the patch changes nothing.
func (p LimitsPatch) None() bool { return p == LimitsPatch{} }

// Check returns an *InvalidError for a limit that is out of bounds.
func (p LimitsPatch) Check() error {
	for _, one := range []limit{
		{"points_per_second", p.PointsPerSecond.To, MaxPointsPerSecond},
		{"bytes_per_second", p.BytesPerSecond.To, MaxBytesPerSecond},
		{"slots_per_backend", p.SlotsPerBackend.To, MaxSlotsPerBackend},
	} {
		if err := one.check(""); err != nil {
			return err
		}
	}
	return nil
}

// Apply returns the limits as the patch, which has been checked, leaves them.
func (p LimitsPatch) Apply(l Limits) Limits {
	if p.PointsPerSecond.Given {
		l.PointsPerSecond = p.PointsPerSecond.To
	}
	if p.BytesPerSecond.Given {
		l.BytesPerSecond = p.BytesPerSecond.To
	}
	if c := p.SlotsPerBackend; c.Given {
		l.SlotsPerBackend = nil
		if c.To != nil {
			n := int(*c.To)
			l.SlotsPerBackend = &n
		}
	}
	return l
}

// Equal compares the values of limits.
func (l Limits) Equal(o Limits) bool {
	return same(l.PointsPerSecond, o.PointsPerSecond) && same(l.BytesPerSecond, o.BytesPerSecond) && same(l.SlotsPerBackend, o.SlotsPerBackend)
}

func same[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// BackendLimits are the limits of backends, for all operations together.
type BackendLimits struct {
	// Default is of the backends that are not named.
	Default Limits `json:"default"`
	// Backends are those of backends, by URL, complete: they don't add to Default.
	Backends map[string]Limits `json:"backends,omitempty"`
}

// Of returns the limits of one backend.
func (b *BackendLimits) Of(url string) Limits {
	if own, ok := b.Backends[url]; ok {
		return own
	}
	return b.Default
}

// Equal compares the values of the limits.
func (b *BackendLimits) Equal(o BackendLimits) bool {
	return b.Default.Equal(o.Default) && maps.EqualFunc(b.Backends, o.Backends, Limits.Equal)
}
