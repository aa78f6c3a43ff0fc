package planner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// dryPatience is how long a dry run puts up with a backend that does not answer: it
// then goes on without it, and says so.
const dryPatience = 10 * time.Second

// preview makes what a person looks at before anything is done. It only reads.
type preview struct {
	*Planner

	op      *operation.Operation
	sources []*survey
	router  *router
	// largest are the measurements with most to move.
	largest []operation.PlanMeasurement

	mu       sync.Mutex
	refusals []operation.Refusal
	// unread are the measurements whose refusal has been told.
	unread map[operation.Slice]bool
	// sizes are bytes on disk by place and database; unsized are backends that do not
	// tell.
	sizes   map[int]map[string]int64
	unsized []string
}

// asked reports whether a person is going to look at the plan before anything is done.
func (v *preview) asked() bool { return v.op.DryRun || v.op.Hold }

func (v *preview) refuse(r operation.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refusals = append(v.refusals, r)
}

// all calls f for every source that can be asked. In a dry run one that does not answer
// is left out from then on; otherwise its error ends the plan.
func (v *preview) all(ctx context.Context, f func(context.Context, *survey) error) error {
	failed := make([]error, len(v.sources))
	err := surveyAll(ctx, v.sources, func(ctx context.Context, s *survey) error {
		if s.lost {
			return nil
		}
		err := f(ctx, s)
		if err == nil || !v.op.DryRun || ctx.Err() != nil || !ofBackend(err) {
			return err
		}
		failed[s.index] = err
		return nil
	})
	if err != nil {
		return err
	}
	// Only now: while they are asked, others look at what a source has.
	for i, err := range failed {
		if err != nil {
			v.lose(v.sources[i], err)
		}
	}
	return nil
}

// ofBackend reports whether an error is what a backend did.
func ofBackend(err error) bool {
	var refusal *influx.Error
	var gaveUp *patience.GaveUpError
	return errors.As(err, &refusal) || errors.As(err, &gaveUp)
}

// lose goes on without a source.
func (v *preview) lose(s *survey, err error) {
	*s = survey{
		index: s.index, url: s.url, circle: s.circle, place: s.place, client: s.client, backend: s.backend, began: s.began, waiter: s.waiter,
		lost: true,
	}
	detail := err.Error()
	if own, ok := errors.AsType[*operation.Error](err); ok {
		detail = own.Detail
	}
	v.refuse(operation.Refusal{
		Code: operation.RefusalUnreachable, Backend: s.url, Detail: operation.Clip(detail),
		Hint: "make it answer, or correct its address and credentials; the plan leaves out what it holds",
	})
}

// reach asks every backend once whether it is there, so that one that hangs does not
// hold up a dry run.
func (v *preview) reach(ctx context.Context) error {
	if !v.op.DryRun {
		return nil
	}
	return v.all(ctx, func(ctx context.Context, s *survey) error {
		ctx, cancel := context.WithTimeout(ctx, dryPatience)
		defer cancel()
		if _, err := s.client.Ping(ctx); err != nil {
			return &influx.Error{Class: influx.Transient, Op: "pinging " + s.url, Message: operation.Clip(err.Error())}
		}
		return nil
	})
}

// movers are the largest measurements of what has been found, by points.
func movers(sources []*survey, found [][]look) []operation.PlanMeasurement {
	var out []operation.PlanMeasurement
	for i, s := range sources {
		type key struct{ database, moving int32 }
		sums := map[key]*operation.PlanMeasurement{}
		for k := range found[i] {
			l := &found[i][k]
			c := s.candidate(l)
			if c.Window.Expired {
				continue
			}
			at := key{l.database, l.moving}
			if sums[at] == nil {
				sums[at] = &operation.PlanMeasurement{From: c.From, To: c.To, Database: c.Database, Measurement: c.Measurement}
			}
			sums[at].Slices++
			sums[at].Points += c.Points
			sums[at].Bytes += c.Points * c.PointBytes
		}
		for _, m := range sums {
			out = append(out, *m)
		}
		out = largest(out)
	}
	return out
}

func largest(all []operation.PlanMeasurement) []operation.PlanMeasurement {
	slices.SortFunc(all, func(a, b operation.PlanMeasurement) int {
		return cmp.Or(
			cmp.Compare(b.Points, a.Points), strings.Compare(a.Database, b.Database), strings.Compare(a.Measurement, b.Measurement),
			cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return all[:min(len(all), operation.MaxTopMovers)]
}

// show completes a plan: balance, skew, movers, refusals and where the numbers come
// from. found is what the estimation has seen.
func (v *preview) show(ctx context.Context, plan *operation.Plan, e *estimation, found [][]look) error {
	v.largest = movers(v.sources, found)
	large := map[measurementName]bool{}
	for _, m := range v.largest {
		large[measurementName{m.Database, m.Measurement}] = true
		plan.TopMovers = append(plan.TopMovers, operation.PlanMover{
			Database: m.Database, Measurement: m.Measurement, From: v.sources[m.From].url, To: v.sources[m.To].url, Points: m.Points, Bytes: m.Bytes,
		})
	}
	if err := v.all(ctx, v.size); err != nil {
		return err
	}
	s := sampling{
		Planner: v.Planner, sources: v.sources, period: e.period, cohorts: cohortsOf(v.sources, e.units, large),
		started: func(p *influx.RetentionPolicy) cutoff {
			return cutoff{at: e.started.Add(-p.Duration).UnixNano(), set: p.Duration > 0 && !e.units}
		},
	}
	err := s.sample(ctx)
	if err != nil {
		if !v.op.DryRun || ctx.Err() != nil {
			return err
		}
		plan.Notes = append(plan.Notes, "the balance is incomplete: "+err.Error())
	}
	v.balance(plan, tallied(s.cohorts))
	if err := v.trips(ctx, plan, found); err != nil {
		return err
	}
	slices.SortStableFunc(v.refusals, func(a, b operation.Refusal) int {
		return cmp.Or(strings.Compare(a.Code, b.Code), strings.Compare(a.Backend, b.Backend), strings.Compare(a.Detail, b.Detail))
	})
	plan.Refuse(v.refusals...)
	plan.EstimateSource = v.source(&s)
	return nil
}

// size asks a server what its databases take on its disk. One that does not tell is
// only noted: nothing depends on it.
func (v *preview) size(ctx context.Context, s *survey) error {
	if !v.router.asks(s) || s.place != s.index {
		return nil
	}
	var sizes map[string]int64
	err := s.patiently(ctx, v.Planner, "asking for the size of", s, func(ctx context.Context) (err error) {
		sizes, err = s.client.DiskBytes(ctx)
		return err
	})
	var refusal *influx.Error
	if errors.As(err, &refusal) && refusal.Class == influx.Permanent {
		err, sizes = nil, nil
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if sizes == nil {
		v.unsized = append(v.unsized, s.url)
	}
	v.sizes[s.place] = sizes
	return nil
}

// source says where the numbers come from.
func (v *preview) source(s *sampling) string {
	b := strings.Builder{}
	fmt.Fprintf(&b, "points of moves: in each window of a measurement the first and the last point are looked for and the middle %d-th of the time between them is counted, "+
		"by the field with the most values; windows of up to about %d points are counted whole", probePart, countedWhole)
	sampled := 0
	for _, o := range v.sources {
		sampled += o.sampled
	}
	if sampled > 0 {
		fmt.Fprintf(&b, "; %d windows that were not looked at within %s have the mean of the others of their policy", sampled, surveyBudget)
	}
	fmt.Fprintf(&b, ". Points of the balance: %d of %d measurements counted in the same way at every backend that holds them (up to %d windows of each policy)", s.counted, s.all, sampledWindows)
	if s.counted < s.all {
		b.WriteString(", the others taken for like those that lie at the same places")
	}
	b.WriteString("; where two backends hold points of one window, the smaller number is taken to be part of the larger")
	fmt.Fprintf(&b, ". Bytes of moves: as line protocol, the mean of up to %d points of up to %d windows of each database", weighRows, weighLooks)
	b.WriteString(". Bytes of the balance: on disk, before as each server tells by SHOW STATS (data files and write-ahead log), after by the bytes of a point in each database; " +
		"what is deleted takes its space until it has been compacted away")
	if len(v.unsized) > 0 {
		slices.Sort(v.unsized)
		fmt.Fprintf(&b, "; not told by %s", strings.Join(v.unsized, ", "))
	}
	return b.String()
}

// balance says what each backend holds, before and after.
func (v *preview) balance(plan *operation.Plan, t tally) {
	perPoint := v.perPoint(t)
	created := map[int]int{}
	made := map[string]bool{}
	for _, p := range plan.Policies {
		s := v.sources[p.Backend]
		key := fmt.Sprintf("%d %s", p.Backend, p.Database)
		if !made[key] && s.listed(p.Database) == nil {
			created[s.place]++
		}
		made[key] = true
	}
	for _, s := range v.sources {
		if !v.router.asks(s) || s.lost {
			continue
		}
		b := operation.PlanBalance{Backend: s.backend.Name, URL: s.url, Removed: s.backend.Removed}
		for i := range s.listings {
			b.Before.Databases++
			b.Before.Measurements += len(s.listings[i].names)
			b.Before.Bytes += v.sizes[s.place][s.listings[i].name]
		}
		b.Before.Points = sum(t.before[s.place])
		b.After = b.Before
		b.After.Databases += created[s.place]
		b.After.Measurements += t.gained[s.place] - t.lost[s.place]
		b.After.Points = sum(t.after[s.place])
		b.After.Bytes = v.bytes(s, t.after, t, perPoint)
		if v.op.Kind == operation.KindRebalance {
			left := b.After
			left.Measurements -= t.leftover[s.place]
			left.Points = sum(t.left[s.place])
			left.Bytes = v.bytes(s, t.left, t, perPoint)
			b.AfterClear = &left
		}
		plan.Balance = append(plan.Balance, b)
	}
	plan.Skew = v.skew(plan.Balance)
}

func sum(points map[string]float64) int64 {
	total := 0.0
	for _, n := range points {
		total += n
	}
	return int64(total + 0.5)
}

// perPoint is what a point of each database takes on disk, over all backends that
// tell.
func (v *preview) perPoint(t tally) map[string]float64 {
	bytes, points := map[string]float64{}, map[string]float64{}
	for place, sizes := range v.sizes {
		for db, size := range sizes {
			if n := t.before[place][db]; n > 0 {
				bytes[db], points[db] = bytes[db]+float64(size), points[db]+n
			}
		}
	}
	for db := range bytes {
		bytes[db] /= points[db]
	}
	return bytes
}

// bytes are those of a backend when it holds other points: less in proportion, more by
// what a point of the database takes.
func (v *preview) bytes(s *survey, after map[int]map[string]float64, t tally, perPoint map[string]float64) int64 {
	total := 0.0
	seen := map[string]bool{}
	for _, databases := range []map[string]float64{t.before[s.place], after[s.place]} {
		for db := range databases {
			if seen[db] {
				continue
			}
			seen[db] = true
			was, is, size := t.before[s.place][db], after[s.place][db], float64(v.sizes[s.place][db])
			switch {
			case v.sizes[s.place] == nil:
			case is >= was:
				total += size + (is-was)*perPoint[db]
			default:
				total += size * is / was
			}
		}
	}
	for i := range s.listings {
		if db := s.listings[i].name; !seen[db] {
			total += float64(v.sizes[s.place][db])
		}
	}
	return int64(total + 0.5)
}

// skew is how uneven the circles are that the operation writes to, or deletes from.
func (v *preview) skew(all []operation.PlanBalance) *operation.PlanSkew {
	out := &operation.PlanSkew{}
	if v.op.Kind == operation.KindRebalance {
		out.AfterClear = new(float64)
	}
	circles := map[int][]operation.PlanBalance{}
	next := 0
	for _, s := range v.sources {
		if !v.router.asks(s) || s.lost {
			continue
		}
		b := all[next]
		next++
		if s.circle == noCircle || v.op.Kind == operation.KindRecovery && s.circle == 0 {
			continue
		}
		circles[s.circle] = append(circles[s.circle], b)
	}
	for _, circle := range circles {
		out.Before = max(out.Before, uneven(circle, func(b *operation.PlanBalance) int64 { return b.Before.Points }))
		out.After = max(out.After, uneven(circle, func(b *operation.PlanBalance) int64 { return b.After.Points }))
		if out.AfterClear != nil {
			*out.AfterClear = max(*out.AfterClear, uneven(circle, func(b *operation.PlanBalance) int64 { return b.AfterClear.Points }))
		}
	}
	return out
}

// uneven is the largest over the mean, 0 when there is nothing.
func uneven(all []operation.PlanBalance, points func(*operation.PlanBalance) int64) float64 {
	total, most := int64(0), int64(0)
	for i := range all {
		n := points(&all[i])
		total, most = total+n, max(most, n)
	}
	if total == 0 {
		return 0
	}
	return float64(most) * float64(len(all)) / float64(total)
}
