package ingest

import (
	"time"

	"ringmaster/pkg/lineproto"
)

// fieldName names a field within a lane.
type fieldName struct{ measurement, field string }

// use is the first use of a field in a group.
type use struct {
	kind lineproto.Kind
	part int
	at   int64
}

// nearby are times that lie in one shard, whatever its duration: none is shorter.
const nearby = int64(time.Hour)

// contradicting answers the part that has a new field in two types by itself: when a
// group is refused for such a field, InfluxDB has stored nothing, yet made the field
// in the first type, so that this request alone would not be refused any more as it
// would have been at first. That is only so if it is the first in the group to have
// the field, and no other field of the group has two types. The others are returned:
// they are sent one after the other, as if they had come so.
func (l *lane) contradicting(parts []*part, o outcome) []*part {
	first := map[fieldName]use{}
	guilty, ambiguous := -1, fieldName{}
	s := &lineproto.Scanner{}
	for i, p := range parts {
		for s.Reset(p.lines.data, lineproto.Nanoseconds, 0); s.Next(); {
			name, at := string(s.Measurement()), s.Time()
			eachField(s.AppendLine(nil)[len(s.Key()):], func(field string, kind lineproto.Kind) bool {
				f := fieldName{name, field}
				u, seen := first[f]
				switch {
				case !seen:
					first[f] = use{kind, i, at}
				case u.kind == kind:
				case guilty >= 0 && ambiguous != f:
					guilty = len(parts) // two fields: whose fault it was nobody can say
				case guilty < 0:
					guilty, ambiguous = len(parts), f
					if u.part == i && u.at-at < nearby && at-u.at < nearby {
						guilty = i
					}
				}
				return true
			})
		}
	}
	if guilty < 0 || guilty == len(parts) {
		return parts
	}
	l.ingest.stats.count(o, parts[guilty:guilty+1])
	l.finish([]*part{parts[guilty]}, o)
	return append(parts[:guilty:guilty], parts[guilty+1:]...)
}
