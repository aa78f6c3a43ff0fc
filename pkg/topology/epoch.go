package topology

import "time"

// Decision is what a process does with the topology of its configuration.
type Decision uint8

// The decisions of Decide.
const (
	// Keep runs with the current epoch: the configuration says the same.
	Keep Decision = iota
	// Revise stores the current epoch again with other names of circles,
	// credentials or write_only: things that place no data.
	Revise
	// Adopt stores a new epoch.
	Adopt
	// Stale runs with the current epoch although the configuration differs: it
	// says what an earlier epoch said, so its file is taken for an old one.
	Stale
)

// String returns the decision's name.
func (d Decision) String() string {
	switch d {
	case Keep:
		return "keep"
	case Revise:
		return "revise"
	case Adopt:
		return "adopt"
	case Stale:
		return "stale"
	default:
		return "unknown"
	}
}

// Ancestor is an earlier epoch, as far as Decide needs it.
type Ancestor struct {
	Epoch  uint64 `json:"epoch"`
	Digest string `json:"digest"`
}

// Decide compares the topology of a configuration with the current record and
// returns the decision and the topology to run with. For Adopt and Revise that is
// the record to store, by compare-and-set on current, as it was read; it carries
// now as its time of creation if it is a new epoch.
//
//   - No current record: the candidate becomes epoch 1.
//   - The digest of the current epoch: the epoch stays. If only its names,
//     credentials or write_only differ, the record is revised. Credentials are
//     compared in clear: current must have been opened; a backend whose credentials
//     current holds only sealed counts as unchanged.
//   - The digest of an earlier epoch: not applied unless accept says that the
//     operator means it, since a process restarted with an old file would
//     otherwise turn the cluster back.
//   - Any other digest: a new epoch with the current one as parent.
//
// Neither current nor candidate is changed.
func Decide(current *Topology, earlier []Ancestor, candidate *Topology, accept bool, now time.Time) (Decision, *Topology) {
	next := candidate.Clone()
	next.Digest = candidate.ComputeDigest()
	next.CreatedAt = now.UTC()

	if current == nil {
		next.Epoch, next.Parent = 1, 0

		return Adopt, next
	}

	if next.Digest == current.Digest {
		if !revised(current, next) {
			return Keep, current
		}

		next.Epoch, next.Parent, next.CreatedAt = current.Epoch, current.Parent, current.CreatedAt

		return Revise, next
	}

	if _, old := FindAncestor(earlier, next.Digest); old && !accept {
		return Stale, current
	}

	next.Epoch, next.Parent = current.Epoch+1, current.Epoch

	return Adopt, next
}

// FindAncestor returns the latest of the earlier epochs that has this digest.
func FindAncestor(earlier []Ancestor, digest string) (Ancestor, bool) {
	var (
		found Ancestor
		ok    bool
	)

	for _, a := range earlier {
		if a.Digest == digest && (!ok || a.Epoch > found.Epoch) {
			found, ok = a, true
		}
	}

	return found, ok
}

// revised reports whether next differs from current, which places data alike, in
// anything that the record keeps about circles and backends.
func revised(current, next *Topology) bool {
	for i := range next.Circles {
		// Equal digests mean equal circles and backends, but a record is only
		// data from elsewhere: nothing may be indexed on the strength of its word.
		if i >= len(current.Circles) || len(current.Circles[i].Backends) != len(next.Circles[i].Backends) {
			return true
		}

		was, is := &current.Circles[i], &next.Circles[i]
		if was.Name != is.Name {
			return true
		}

		for j := range is.Backends {
			was, is := &was.Backends[j], &is.Backends[j]
			if was.WriteOnly != is.WriteOnly {
				return true
			}

			unopened := was.Sealed != "" && was.Credentials.IsZero()
			if !unopened && was.Credentials != is.Credentials {
				return true
			}
		}
	}

	return false
}
