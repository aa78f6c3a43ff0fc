package operation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// PlanSchema is what a plan was made from, as far as its slices depend on it: the
// databases, retention policies and measurements of the backends it looked at. Fields
// and shard groups are no part of it, since clients go on writing.
type PlanSchema struct {
	// Circles are those of the plan, and by which rules values are chosen there.
	Circles  []CircleSchema  `json:"circles"`
	Backends []BackendSchema `json:"backends"`
}

// CircleSchema is what decides in a circle whose value stays.
type CircleSchema struct {
	Circle int `json:"circle"`
	// FormerRules: the owners before the change that is under way are read, so their
	// values count. Proven: the owners have been proven since anybody else was one.
	FormerRules bool `json:"former_rules,omitempty"`
	Proven      bool `json:"proven,omitempty"`
}

// BackendSchema is what one backend has; the databases are in the order of their
// names.
type BackendSchema struct {
	URL       string           `json:"url"`
	Databases []DatabaseSchema `json:"databases"`
}

// DatabaseSchema is what one database has at one backend.
type DatabaseSchema struct {
	Name     string         `json:"name"`
	Policies []PolicySchema `json:"policies"`
	// Measurements counts them, and Digest stands for their names; Names has these
	// as long as a plan has no more than MaxSchemaNames.
	Measurements int      `json:"measurements"`
	Digest       string   `json:"digest"`
	Names        []string `json:"names,omitempty"`
}

// PolicySchema is a retention policy with all its attributes.
type PolicySchema struct {
	Name          string        `json:"name"`
	Duration      time.Duration `json:"duration"`
	ShardDuration time.Duration `json:"shard_duration"`
	Replication   int           `json:"replication"`
	Default       bool          `json:"default"`
}

// MaxSchemaNames bounds the names of measurements that a plan keeps to tell later
// which one is new.
const MaxSchemaNames = 100_000

// SetNames notes the measurements of a database, in any order, and keeps their names
// if told to. It sorts them in place.
func (d *DatabaseSchema) SetNames(names []string, keep bool) {
	slices.Sort(names)
	h := sha256.New()
	var length []byte
	for _, n := range names {
		length = strconv.AppendInt(length[:0], int64(len(n)), 10)
		_, _ = h.Write(append(length, ':')) // a hash takes everything
		_, _ = h.Write([]byte(n))
	}
	d.Measurements, d.Digest, d.Names = len(names), hex.EncodeToString(h.Sum(nil)), nil
	if keep {
		d.Names = names
	}
}

// maxDifferences is how many differences are named.
const maxDifferences = 5

// Difference says in a sentence how things are now where they are not as the plan
// was made from; "" when nothing has changed. now needs all names. A measurement that
// the plan knows elsewhere, and that is new where foreseen says that clients bring it
// before the plan is carried out, is no difference.
func (s *PlanSchema) Difference(now *PlanSchema, foreseen func(url, database, measurement string) bool) string {
	d := differences{foreseen: func(url, database, measurement string) bool {
		return s.has(database, measurement) && foreseen(url, database, measurement)
	}}
	for _, was := range s.Circles {
		at := slices.IndexFunc(now.Circles, func(c CircleSchema) bool { return c.Circle == was.Circle })
		if at < 0 || now.Circles[at] != was {
			d.add("whose values count in circle %d has changed", was.Circle)
		}
	}
	for i := range s.Backends {
		was := &s.Backends[i]
		at := slices.IndexFunc(now.Backends, func(b BackendSchema) bool { return b.URL == was.URL })
		if at < 0 {
			d.add("%s is not looked at any more", was.URL)
			continue
		}
		d.backend(was, &now.Backends[at])
	}
	for i := range now.Backends {
		b := &now.Backends[i]
		if !slices.ContainsFunc(s.Backends, func(o BackendSchema) bool { return o.URL == b.URL }) {
			d.add("%s was not looked at", b.URL)
		}
	}
	return d.String()
}

// has reports whether the plan knows a measurement by name, at any backend.
func (s *PlanSchema) has(database, measurement string) bool {
	for i := range s.Backends {
		for j := range s.Backends[i].Databases {
			d := &s.Backends[i].Databases[j]
			if _, ok := slices.BinarySearch(d.Names, measurement); ok && d.Name == database {
				return true
			}
		}
	}
	return false
}

// differences collects sentences, and counts those beyond the bound.
type differences struct {
	foreseen func(url, database, measurement string) bool
	said     []string
	more     int
}

func (d *differences) add(format string, args ...any) {
	if len(d.said) == maxDifferences {
		d.more++
		return
	}
	d.said = append(d.said, fmt.Sprintf(format, args...))
}

func (d *differences) String() string {
	text := strings.Join(d.said, "; ")
	if d.more > 0 {
		text += fmt.Sprintf("; and %d more differences", d.more)
	}
	return text
}

func (d *differences) backend(was, is *BackendSchema) {
	merge(was.Databases, is.Databases, func(a, b *DatabaseSchema) int { return strings.Compare(a.Name, b.Name) },
		func(a, b *DatabaseSchema) {
			switch {
			case a == nil:
				if !d.allForeseen(b, was.URL) {
					d.add("database %s is new on %s", plain(b.Name), was.URL)
				}
			case b == nil:
				d.add("database %s is gone from %s", plain(a.Name), was.URL)
			default:
				d.policies(a, b, was.URL)
				d.measurements(a, b, was.URL)
			}
		})
}

// allForeseen reports whether a database holds nothing but what is foreseen there.
func (d *differences) allForeseen(is *DatabaseSchema, url string) bool {
	return is.Measurements > 0 && !slices.ContainsFunc(is.Names, func(name string) bool { return !d.foreseen(url, is.Name, name) })
}

func (d *differences) policies(was, is *DatabaseSchema, url string) {
	byName := func(a, b *PolicySchema) int { return strings.Compare(a.Name, b.Name) }
	merge(sortedPolicies(was.Policies), sortedPolicies(is.Policies), byName, func(a, b *PolicySchema) {
		switch {
		case a == nil:
			d.add("retention policy %s.%s is new on %s", plain(was.Name), plain(b.Name), url)
		case b == nil:
			d.add("retention policy %s.%s is gone from %s", plain(was.Name), plain(a.Name), url)
		case *a != *b:
			d.add("retention policy %s.%s on %s was %s and is %s", plain(was.Name), plain(a.Name), url, a, b)
		}
	})
}

func sortedPolicies(all []PolicySchema) []PolicySchema {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b PolicySchema) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// String says what the policy is like.
func (p *PolicySchema) String() string {
	text := fmt.Sprintf("duration %s, shard duration %s, replication %d", p.Duration, p.ShardDuration, p.Replication)
	if p.Default {
		text += ", the default"
	}
	return text
}

func (d *differences) measurements(was, is *DatabaseSchema, url string) {
	if was.Digest == is.Digest {
		return
	}
	if len(was.Names) != was.Measurements || len(is.Names) != is.Measurements {
		d.add("database %s on %s had %d measurements and has %d, not all of them the same", plain(was.Name), url, was.Measurements, is.Measurements)
		return
	}
	merge(was.Names, is.Names, func(a, b *string) int { return strings.Compare(*a, *b) }, func(a, b *string) {
		switch {
		case a == nil:
			if !d.foreseen(url, was.Name, *b) {
				d.add("measurement %s.%s is new on %s", plain(was.Name), plain(*b), url)
			}
		case b == nil:
			d.add("measurement %s.%s is gone from %s", plain(was.Name), plain(*a), url)
		}
	})
}

// merge walks two sorted lists together; each is given nil for what only the other
// list has.
func merge[T any](a, b []T, compare func(x, y *T) int, each func(x, y *T)) {
	for len(a) > 0 || len(b) > 0 {
		var order int
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = compare(&a[0], &b[0])
		}
		switch {
		case order < 0:
			each(&a[0], nil)
			a = a[1:]
		case order > 0:
			each(nil, &b[0])
			b = b[1:]
		default:
			each(&a[0], &b[0])
			a, b = a[1:], b[1:]
		}
	}
}

// plain writes a name as it is where a sentence can hold it, and quoted elsewhere.
func plain(name string) string {
	odd := func(r rune) bool {
		return r == unicode.ReplacementChar || r == '"' || r == '.' || !unicode.IsGraphic(r) || unicode.IsSpace(r)
	}
	if name == "" || len(name) > 200 || strings.ContainsFunc(name, odd) {
		return strconv.Quote(name[:min(len(name), 200)])
	}
	return name
}
