package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"ringmaster/events"
	"ringmaster/pkg/influx"
)

// mostRestored is how often on end a database is made before that counts as failed.
const mostRestored = 2

// store sends pieces of one database and policy to a server, together, and returns
// when all of their points are stored there, or are among the dead letters since the
// server refuses them for good. An *unreachableError says that it may store them
// another time.
func (a *attendance) store(ctx context.Context, url string, server Server, pieces []piece) error {
	err := a.send(ctx, url, server, pieces)
	if err == nil {
		a.failures = 0
		a.keeper.count(a.url, Counts{Replayed: points(pieces)})
		return nil
	}
	if nowhere, ok := errors.AsType[*nowhereError](err); ok {
		return a.bury(ctx, url, pieces, nowhere.refusal)
	}
	if refusal, ok := forGood(err); ok {
		return a.part(ctx, url, server, pieces, refusal)
	}
	return err
}

// nowhereError says that no backend has the database or policy.
type nowhereError struct{ refusal *influx.Error }

func (e *nowhereError) Error() string { return e.refusal.Error() }

// send sends pieces once, or once more after making what the server lacks.
func (a *attendance) send(ctx context.Context, url string, server Server, pieces []piece) error {
	k := a.keeper
	db, rp := pieces[0].of.Database, pieces[0].of.RetentionPolicy
	lines := join(pieces)
	for restored := 0; ; restored++ {
		sending, cancel := context.WithTimeout(ctx, k.options.WriteTimeout)
		err := a.guarded(sending, func(ctx context.Context) error { return server.Write(ctx, db, rp, lines) })
		cancel()
		if _, good := forGood(err); err == nil || good {
			return err
		}
		switch {
		case errors.Is(err, errLeaseLost), errors.Is(err, influx.ErrGuard):
			return errLeaseLost
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !missing(err) || k.options.Restorer == nil || restored >= mostRestored:
			return &unreachableError{err}
		}
		made := k.options.Restorer.Restore(ctx, url, db, rp)
		switch {
		case errors.Is(made, ErrNowhere):
			var refusal *influx.Error
			errors.As(err, &refusal)
			return &nowhereError{refusal}
		case made != nil:
			return &unreachableError{fmt.Errorf("%w (making it again: %w)", err, made)}
		}
	}
}

// part finds which of the points a server refuses: it sends halves, in their order,
// until what is refused is a point. A point that is stored twice is one point; that
// an older value of it stands there for a moment ends before anything else is sent,
// and a successor would begin before all of it.
func (a *attendance) part(ctx context.Context, url string, server Server, pieces []piece, refusal *influx.Error) error {
	var all []piece
	var names []string
	for i := range pieces {
		lines, rest, refused := scan(pieces[i].lines)
		if refused > 0 { // no InfluxDB takes them, and they are not among the others
			whole := pieces[i]
			whole.points = refused
			if err := a.bury(ctx, url, []piece{whole}, malformed(rest)); err != nil {
				return err
			}
			refusal = nil // perhaps of these alone
		}
		for j := range lines {
			all = append(all, lines[j].single(pieces[i].of))
			names = append(names, lines[j].measurement)
		}
	}
	// Points of different measurements do not overwrite one another: those of the
	// one that is named go apart.
	if named, others := apart(all, names, refusal); len(named) > 0 && len(others) > 0 {
		if err := a.halve(ctx, url, server, others, nil); err != nil {
			return err
		}
		return a.halve(ctx, url, server, named, nil)
	}
	return a.halve(ctx, url, server, all, refusal)
}

// malformed is the refusal of lines that no InfluxDB takes.
func malformed(said string) *influx.Error {
	return &influx.Error{Class: influx.Permanent, Status: http.StatusBadRequest, Message: said}
}

// apart takes the lines of the measurement that a field type conflict names from the
// others.
func apart(lines []piece, names []string, refusal *influx.Error) (named, others []piece) {
	if refusal == nil {
		return nil, lines
	}
	known := map[string]bool{}
	for i, name := range names {
		is, ok := known[name]
		if !ok {
			is = strings.Contains(refusal.Message, fmt.Sprintf(` on measurement "%s" is type `, name))
			known[name] = is
		}
		if is {
			named = append(named, lines[i])
		} else {
			others = append(others, lines[i])
		}
	}
	return named, others
}

// halve stores single lines, of which refusal, if there is one, was said when they
// were sent together.
func (a *attendance) halve(ctx context.Context, url string, server Server, lines []piece, refusal *influx.Error) error {
	if len(lines) == 0 {
		return nil
	}
	if refusal == nil {
		err := a.send(ctx, url, server, lines)
		if nowhere, ok := errors.AsType[*nowhereError](err); ok {
			return a.bury(ctx, url, lines, nowhere.refusal)
		}
		var ok bool
		if refusal, ok = forGood(err); !ok {
			if err == nil {
				a.failures = 0
				a.keeper.count(a.url, Counts{Replayed: points(lines)})
			}
			return err
		}
	}
	if len(lines) == 1 || refusal.StoredRest && refusal.Dropped >= len(lines) {
		return a.bury(ctx, url, lines, refusal) // all of them
	}
	middle := len(lines) / 2
	if err := a.halve(ctx, url, server, lines[:middle], nil); err != nil {
		return err
	}
	return a.halve(ctx, url, server, lines[middle:], nil)
}

// bury puts points among the dead letters, with what the server said.
func (a *attendance) bury(ctx context.Context, url string, pieces []piece, refusal *influx.Error) error {
	for from := 0; from < len(pieces); {
		to := from + 1
		for to < len(pieces) && pieces[to].of == pieces[from].of {
			to++
		}
		of, some := pieces[from].of, pieces[from:to]
		err := a.letter(ctx, events.PointsRefuse{
			Backend: url, Database: of.Database, RetentionPolicy: of.RetentionPolicy,
			Reason: refusal.Message, Status: refusal.Status, Epoch: of.Epoch, Circles: of.Circles,
			WrittenAt: of.WrittenAt, Points: int(points(some)), Lines: join(some),
		})
		if err != nil {
			return err
		}
		a.keeper.count(a.url, Counts{Refused: points(some)})
		a.keeper.options.Logger.WarnContext(ctx, "a backend refuses points that were acknowledged; they are kept among the dead letters",
			"backend", url, "database", of.Database, "points", points(some), "reason", refusal.Message)
		from = to
	}
	return nil
}

// letter keeps a dead letter, under an id by which the same one is known again.
func (a *attendance) letter(ctx context.Context, p events.PointsRefuse) error {
	if err := a.guard(); err != nil {
		return err
	}
	if p.Reason == "" {
		p.Reason = "it gave no reason"
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n%d\n", p.Backend, p.Database, p.RetentionPolicy, p.WrittenAt.UnixNano())
	h.Write(p.Lines)
	return a.keeper.options.Letters.Refuse(ctx, "refused/"+hex.EncodeToString(h.Sum(nil)[:16]), p)
}
