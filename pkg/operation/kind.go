package operation

import "slices"

// Kind is what an operation does.
type Kind string

// The kinds that have a command on the wire.
const (
	KindRebalance             Kind = "rebalance"
	KindRecovery              Kind = "recovery"
	KindResync                Kind = "resync"
	KindClear                 Kind = "clear"
	KindVerify                Kind = "verify"
	KindReindex               Kind = "reindex"
	KindDeleteMissingSegments Kind = "delete_missing_segments"
)

// Kinds lists every kind in the order documents name them.
func Kinds() []Kind {
	return []Kind{KindRebalance, KindRecovery, KindResync, KindClear, KindVerify, KindReindex, KindDeleteMissingSegments}
}

// Valid reports whether k is one of Kinds.
func (k Kind) Valid() bool { return slices.Contains(Kinds(), k) }

// Implemented reports whether this release carries the kind out. The others
// are on the wire already, so that commands and scripts need not change later.
func (k Kind) Implemented() bool { return k.Move() }

// Move reports whether the kind works on the points of circles: it moves them,
// removes the copies that are left behind, or compares them.
func (k Kind) Move() bool {
	return k == KindRebalance || k == KindRecovery || k == KindResync || k == KindClear || k == KindVerify
}

// Work is the phase that a move of this kind does its work in; PhaseVerify
// follows it.
func (k Kind) Work() Phase {
	switch k {
	case KindClear:
		return PhaseDrop
	case KindVerify:
		return PhaseCompare
	default:
		return PhaseCopy
	}
}

// Carries reports whether this release carries out tasks of the kind in that phase. A
// task that a later release has made may be of neither: it is left to who knows it.
func (k Kind) Carries(p Phase) bool {
	return k.Implemented() && (p == k.Work() || p == PhaseVerify)
}

// Carried lists what Carries reports true for, as `<kind>/<phase>`.
func Carried() []string {
	var all []string
	for _, k := range Kinds() {
		for _, p := range []Phase{k.Work(), PhaseVerify} {
			if k.Carries(p) {
				all = append(all, k.TaskName(p))
			}
		}
	}
	return all
}

// TaskName names the tasks of a kind in a phase, as Carried does.
func (k Kind) TaskName(p Phase) string { return string(k) + "/" + string(p) }
