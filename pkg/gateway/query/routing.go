package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/serving"
	"ringmaster/pkg/statement"
	"ringmaster/pkg/topology"
)

// look is how often a read that waits looks again at the backends.
const look = 100 * time.Millisecond

// place is where something is read: the backends of a circle, or of several.
type place struct {
	pass     Pass
	circle   statement.Circle
	backends map[string]*topology.Backend // by URL
	// unfit says why a backend must not be read, for those of circle that must not.
	unfit map[string]string
	// missing is what a stale read may lack.
	missing []string
}

// fits says why what is asked can't be read here, "" if it can.
func (p *place) fits(asks ...statement.Ask) string {
	for _, ask := range asks {
		if why, bad := p.unfit[ask.Backend]; bad {
			return fmt.Sprintf("backend %s %s", ask.Backend, why)
		}
		if p.backends[ask.Backend] == nil {
			return "it has no backend for this"
		}
	}
	return ""
}

// attempt tries to read at a place. A reason says that it can't be done there; an
// error ends the trying.
type attempt func(ctx context.Context, p *place) (reason string, err error)

// search says where a read may go.
type search struct {
	// stale allows a read of what there is when the time is over.
	stale bool
	// mixed allows to take owners from several circles.
	mixed bool
	// broken are backends that have failed this request, and how. Whether they fail
	// others is not said: it may be the request.
	broken map[string]string
}

// failed keeps a backend that has broken, if that is what err says.
func (s *search) failed(err error) (broken bool) {
	b, ok := errors.AsType[*brokenError](err)
	if ok {
		if s.broken == nil {
			s.broken = map[string]string{}
		}
		s.broken[b.backend] = b.cause.Error()
	}
	return ok
}

// read tries the circles, best first, until one will do, and waits for a while if
// none does. The place that was taken is returned with its pass, which the caller
// ends.
func (r *Runner) read(ctx context.Context, s search, try attempt) (*place, error) {
	allowed := s.stale
	s.stale = false
	changed := r.o.Session.Changed()
	p, _, err := r.readNow(ctx, &s, try)
	if p != nil || err != nil {
		return p, err
	}
	began := r.o.Now()
	timer := time.NewTimer(r.o.Wait)
	defer timer.Stop()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for over := false; ; {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			over = true
		case <-changed:
		case <-ticker.C:
		}
		changed = r.o.Session.Changed()
		s.stale = allowed && over
		p, reasons, err := r.readNow(ctx, &s, try)
		if p != nil || err != nil {
			return p, err
		}
		if over {
			return nil, &UnavailableError{Reasons: reasons, Waited: r.o.Now().Sub(began).Round(time.Millisecond)}
		}
	}
}

func (r *Runner) readNow(ctx context.Context, s *search, try attempt) (*place, []string, error) {
	pass, err := r.o.Session.BeginRead()
	if err != nil {
		return nil, []string{err.Error()}, nil
	}
	taken := false
	defer func() {
		if !taken {
			pass.End()
		}
	}()
	var reasons []string
	for _, p := range r.places(pass, s) {
		reason := p.refused
		var err error
		if reason == "" {
			reason, err = try(ctx, p.place)
		}
		if err != nil {
			broken, is := errors.AsType[*brokenError](err)
			if !is {
				return nil, nil, err
			}
			reason = fmt.Sprintf("backend %s failed: %v", broken.backend, broken.cause)
		}
		if reason == "" {
			taken = true
			return p.place, nil, nil
		}
		if p.name != "" {
			reasons = append(reasons, p.name+": "+reason)
		}
	}
	if len(reasons) == 0 {
		reasons = []string{"there are no circles"}
	}
	return nil, reasons, nil
}

// candidate is a place that may do; refused says why it is not even to be tried.
type candidate struct {
	*place

	name, refused string
}

// places lists where can be read, best first: circles in which nothing is being
// copied before others, in turn; then, if that is possible, all of them together.
func (r *Runner) places(pass Pass, s *search) []candidate {
	v := pass.View()
	ids := v.Circles()
	if n := len(ids); n > 1 {
		turn := int(r.turn.Add(1) % uint64(n))
		ids = slices.Concat(ids[turn:], ids[:turn])
	}
	slices.SortStableFunc(ids, func(a, b int) int { return restless(v, a) - restless(v, b) })
	var all []candidate
	var readable []int
	for _, id := range ids {
		c := candidate{name: circleName(v, id), refused: r.unreadable(v, id)}
		c.place = r.whole(pass, id, s)
		if s.stale && c.refused != "" {
			c.missing, c.refused = append(c.missing, c.refused), ""
		}
		if c.refused == "" {
			readable = append(readable, id)
		}
		all = append(all, c)
	}
	if s.mixed && len(readable) > 1 {
		all = append(all, candidate{place: r.mixed(pass, readable, s)})
	}
	return all
}

// restless ranks circles: one in which an operation copies stands behind others, and
// one whose values may give way to those of a moment ago behind all.
func restless(v *serving.View, circle int) int {
	switch {
	case v.Avoided(circle):
		return 2
	case len(v.Noting(circle)) > 0:
		return 1
	default:
		return 0
	}
}

func circleName(v *serving.View, id int) string {
	if c, ok := v.Topology.Circle(id); ok && c.Name != "" {
		return "circle " + c.Name
	}
	return fmt.Sprintf("circle %d", id)
}

// unreadable says why a circle must not be read at all, "" if it may be.
func (r *Runner) unreadable(v *serving.View, circle int) string {
	if why := v.Unreadable(circle); why != "" {
		return why
	}
	if r.o.Flags != nil && r.o.Flags.Migrating(circle) {
		return "an operator has marked it as migrating"
	}
	return ""
}

// unfit says why a backend must not be read, "" if it may be. A stale read takes
// what answers; what it may lack is the second.
func (r *Runner) unfit(v *serving.View, b *topology.Backend, s *search) (why, missing string) {
	switch mode := v.Mode(b.URL); {
	case b.WriteOnly:
		why = "is write_only"
	case mode != serving.Direct:
		why = fmt.Sprintf("has writes waiting for it (%s)", mode)
	}
	if why != "" && s.stale {
		why, missing = "", fmt.Sprintf("backend %s %s", b.URL, why)
	}
	if why != "" {
		return why, ""
	}
	if reason, is := s.broken[b.URL]; is {
		return "has failed this request: " + reason, missing
	}
	if reason := r.lessons.of(b.URL); reason != "" {
		return "has just failed: " + reason, missing
	}
	if !r.o.Health.Active(b.URL) {
		return "does not answer", missing
	}
	return "", missing
}

// whole is the place of one circle.
func (r *Runner) whole(pass Pass, id int, s *search) *place {
	v := pass.View()
	p := &place{pass: pass, backends: map[string]*topology.Backend{}, unfit: map[string]string{}}
	readers := v.Readers(id)
	for i := range readers {
		p.add(r, &readers[i], s)
	}
	p.circle.Owner = func(db, measurement string) string {
		if b := v.Reader(id, db, measurement); b != nil {
			return b.URL
		}
		return ""
	}
	return p
}

func (p *place) add(r *Runner, b *topology.Backend, s *search) {
	if p.backends[b.URL] != nil {
		return
	}
	p.backends[b.URL] = b
	p.circle.Backends = append(p.circle.Backends, b.URL)
	why, missing := r.unfit(p.pass.View(), b, s)
	if why != "" {
		p.unfit[b.URL] = why
	}
	if missing != "" {
		p.missing = append(p.missing, missing)
	}
}

// mixed is the place of several circles: each measurement is read in the first
// circle whose owner can be.
func (r *Runner) mixed(pass Pass, ids []int, s *search) *place {
	v := pass.View()
	p := &place{pass: pass, backends: map[string]*topology.Backend{}, unfit: map[string]string{}}
	for _, id := range ids {
		readers := v.Readers(id)
		for i := range readers {
			p.add(r, &readers[i], s)
		}
	}
	p.circle.Owner = func(db, measurement string) string {
		first := ""
		for _, id := range ids {
			b := v.Reader(id, db, measurement)
			if b == nil {
				continue
			}
			if _, bad := p.unfit[b.URL]; !bad {
				return b.URL
			}
			if first == "" {
				first = b.URL
			}
		}
		return first
	}
	return p
}

// anyFirst puts the backends that can be read first, for statements that any of
// them can answer.
func (p *place) anyFirst() {
	slices.SortStableFunc(p.circle.Backends, func(a, b string) int {
		return strings.Compare(p.unfit[a], p.unfit[b])
	})
}
