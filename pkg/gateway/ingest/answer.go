package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"ringmaster/pkg/lineproto"
)

// admits refuses a database that the configuration does not allow.
func (g *Ingest) admits(db string) error {
	if db == "" {
		return &Refusal{Status: http.StatusBadRequest, Message: "database is required"}
	}
	v := g.options.Session.View()
	if v == nil {
		return unavailable("no topology is known yet")
	}
	if allowed := v.Topology.Databases; len(allowed) > 0 && !slices.Contains(allowed, db) {
		return &Refusal{Status: http.StatusBadRequest, Message: "database forbidden: " + db}
	}
	return nil
}

// unread answers a request whose body can't be read. A database that is not there
// comes first.
func (g *Ingest) unread(ctx context.Context, w *write, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errFull):
		return g.full()
	case errors.Is(err, errTooLarge):
		return g.first(ctx, w.db, &Refusal{Status: statusTooLarge, Message: http.StatusText(statusTooLarge)})
	default:
		return g.first(ctx, w.db, &Refusal{Status: http.StatusBadRequest, Message: err.Error()})
	}
}

// nothing answers a request of which nothing is to be stored: it has no points, or
// no line of it can be read, or its consistency is none.
func (g *Ingest) nothing(ctx context.Context, w *write, words string, bad int, consistent bool) error {
	switch {
	case w.points == 0 && bad > 0:
		return g.first(ctx, w.db, &Refusal{Status: http.StatusBadRequest, Message: words})
	case !consistent:
		return g.first(ctx, w.db, &Refusal{Status: http.StatusBadRequest, Message: "invalid consistency level"})
	default:
		return g.empty(ctx, w.db, w.rp)
	}
}

// knownConsistency reports whether InfluxDB knows a consistency level.
func knownConsistency(level string) bool {
	switch strings.ToLower(level) {
	case "", "any", "one", "quorum", "all":
		return true
	default:
		return false
	}
}

// answer puts together what has become of the parts, and of the lines that could
// not be read, as one server would answer that had got everything.
func (w *write) answer(words string, bad int) error {
	var refusals []*part
	for i := range w.parts {
		p := &w.parts[i]
		switch {
		case p.points == 0 || p.outcome.state == unsent || p.outcome.state == stored || p.outcome.state == hinted:
		case p.outcome.state == refused:
			refusals = append(refusals, p)
		default:
			return perhaps(p.outcome.reason)
		}
	}
	if len(refusals) == 0 {
		if bad > 0 {
			return &Refusal{Status: http.StatusBadRequest, Message: lineproto.PartialWrite(words, 0)}
		}
		return nil
	}
	w.ingest.known.learn(w.client, refusals, w.ingest.router.Load())
	// The circles have the same points, so the first one that refuses speaks for
	// all; the owners that a transition adds only when no other one does.
	first := slices.MinFunc(refusals, func(a, b *part) int { return rank(a) - rank(b) })
	return w.joined(slices.DeleteFunc(refusals, func(p *part) bool { return rank(p) != rank(first) }))
}

func rank(p *part) int {
	r := 2 * p.target.circle
	if p.target.secondary {
		r += 1 << 20
	}
	return r
}

// joined makes one refusal of those of several owners.
func (w *write) joined(parts []*part) error {
	if len(parts) == 1 {
		return parts[0].outcome.refusal()
	}
	// In the order in which one server would come upon them.
	for _, means := range []meaning{noDatabase, noPolicy, other, conflict} {
		if i := slices.IndexFunc(parts, func(p *part) bool { return p.outcome.means == means }); i >= 0 {
			return parts[i].outcome.refusal()
		}
	}
	for _, means := range []meaning{invalid, expired} {
		dropped, first, at := 0, "", 0
		for _, p := range parts {
			if p.outcome.means != means {
				continue
			}
			dropped += p.outcome.dropped
			if where := w.place(p); first == "" || where < at {
				first, at = p.outcome.detail, where
			}
		}
		if first != "" {
			return &Refusal{Status: http.StatusBadRequest, Message: lineproto.PartialWrite(first, dropped)}
		}
	}
	return parts[0].outcome.refusal()
}

// The reasons that InfluxDB looks for before all others, over all points. Limits
// are found later, but said instead of anything else.
const (
	tagReason   = "invalid tag key: "
	keyReason   = "key contains invalid unicode: "
	limitReason = "max-"
	// timeReason is about a point that has no field but "time".
	timeReason = "invalid field name: "
)

// place is how early one server would have come upon the reason of a part's
// refusal.
func (w *write) place(p *part) int {
	detail := p.outcome.detail
	switch {
	case p.outcome.means != invalid:
		return 0
	case strings.HasPrefix(detail, limitReason):
		return -len(w.body.data) - 1
	case strings.HasPrefix(detail, tagReason), strings.HasPrefix(detail, keyReason):
		return w.line(p, detail) - len(w.body.data)
	default:
		return w.line(p, detail)
	}
}

// line is the number of the first line of the request that a refusal's reason fits,
// among those that its backend has got.
func (w *write) line(p *part, detail string) int {
	s, r := &w.scanner, w.ingest.routerOf(w.pass.View())
	n := 0
	for s.Reset(w.body.data, lineproto.Nanoseconds, 0); s.Next(); n++ {
		to := r.owners(nil, w.db, s.Measurement())
		if !slices.ContainsFunc(to.targets, func(t *target) bool {
			return t.url == p.target.url && t.circle == p.target.circle && t.secondary == p.target.secondary
		}) {
			continue
		}
		if fits(detail, s.AppendLine(nil), len(s.Key()), string(s.Measurement())) {
			return n
		}
	}
	return n
}

// fits reports whether a reason is about a line.
func fits(detail string, line []byte, key int, measurement string) bool {
	if strings.HasPrefix(detail, timeReason) && hasField(line[min(key, len(line)):]) {
		return false
	}
	if !strings.HasPrefix(detail, conflictPrefix) {
		return strings.Contains(detail, fmt.Sprintf("on measurement \"%s\"", measurement)) || strings.Contains(detail, string(line[:key]))
	}
	found := false
	eachField(line[min(key, len(line)):], func(name string, kind lineproto.Kind) bool {
		found = strings.HasPrefix(detail, fmt.Sprintf("%s: input field \"%s\" on measurement \"%s\" is type %s, ", conflictPrefix, name, measurement, kind))
		return !found
	})
	return found
}

// hasField reports whether there is a field that InfluxDB stores.
func hasField(fields []byte) (found bool) {
	eachField(fields, func(name string, _ lineproto.Kind) bool {
		found = name != "time"
		return !found
	})
	return found
}
