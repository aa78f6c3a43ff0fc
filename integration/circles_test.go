package integration_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
)

// circleSite is an installation of several circles, and the model of what the
// moves between them have to do. The model knows values one by one and none of
// the mover's code.
type circleSite struct {
	*installation

	// members are the servers of each circle, urls what they are configured as.
	members [][]*backend
	urls    [][]string
	owners  map[ownership]*backend
}

// ownership names a measurement in a circle.
type ownership struct {
	circle                int
	database, measurement string
}

// newCircleSite starts servers for circles of the given sizes. Nothing of ours
// runs yet.
func newCircleSite(t testing.TB, sizes ...int) *circleSite {
	t.Helper()
	s := &circleSite{owners: map[ownership]*backend{}}
	for _, size := range sizes {
		members := startBackends(t, size)
		s.members = append(s.members, members)
		urls := make([]string, size)
		for i, b := range members {
			urls[i] = b.URL()
		}
		s.urls = append(s.urls, urls)
	}
	s.installation = install(t)
	return s
}

// proxy puts a fault proxy in front of a member.
func (s *circleSite) proxy(circle, member int) *harness.Proxy {
	s.t.Helper()
	p := s.members[circle][member].proxied()
	s.urls[circle][member] = p.URL()
	s.behind[p.URL()] = s.members[circle][member].URL()
	return p
}

// configure writes the configuration.
func (s *circleSite) configure() {
	s.t.Helper()
	all := make([]harness.Circle, len(s.members))
	for i, urls := range s.urls {
		all[i].Name = fmt.Sprintf("circle-%d", i)
		for j, url := range urls {
			all[i].Backends = append(all[i].Backends, harness.Backend{Name: fmt.Sprintf("influxdb-%d-%d", i, j), URL: url})
		}
	}
	require.NoError(s.t, s.WriteCircles(all...))
}

// start writes the configuration and starts an api and a worker on it.
func (s *circleSite) start(args ...string) {
	s.t.Helper()
	s.configure()
	s.startAPI(args...)
	s.startWorker(args...)
}

// all are the servers of all circles, in order.
func (s *circleSite) all() []*backend { return slices.Concat(s.members...) }

// dump reads what all servers hold.
func (s *circleSite) dump() contents { return dumpAll(s.all()) }

// complete waits until an operation has succeeded and returns its report. Points
// that lie with other values where they do not belong make it unequal.
func (s *circleSite) complete(id string) operation.Report {
	s.t.Helper()
	s.finish(id, operation.Succeeded)
	return s.report(id)
}

// ownerOf is the server that owns a measurement in a circle.
func (s *circleSite) ownerOf(circle int, db, measurement string) *backend {
	s.t.Helper()
	name := ownership{circle, db, measurement}
	if s.owners[name] == nil {
		url := s.owner(circle, db, measurement)
		s.owners[name] = s.members[circle][slices.Index(s.urls[circle], url)]
	}
	return s.owners[name]
}

// ask starts an operation by the dialect of influx-proxy and returns its id.
func (s *circleSite) ask(pathAndQuery string) string {
	s.t.Helper()
	res, answer := s.do(http.MethodPost, pathAndQuery, nil, "")
	require.Equal(s.t, http.StatusAccepted, res.StatusCode, answer)
	require.Equal(s.t, "accepted\n", answer)
	return res.Header.Get("X-Operation-Id")
}

// places are the points of a server, or of several together.
type places map[harness.Place]harness.Points

// fill adds the values of others that p lacks, where they are wanted.
func (p places) fill(others places, wanted func(harness.Place, string) bool) {
	for place, points := range others {
		for key, value := range points {
			if _, held := p[place][key]; held || !wanted(place, key) {
				continue
			}
			if p[place] == nil {
				p[place] = harness.Points{}
			}
			p[place][key] = value
		}
	}
}

// overrule is fill where the others' values replace those of p.
func (p places) overrule(others places, wanted func(harness.Place, string) bool) (replaced map[string]bool) {
	replaced = map[string]bool{}
	for place, points := range others {
		for key, value := range points {
			if own, held := p[place][key]; held && own != value && wanted(place, key) {
				p[place][key] = value
				replaced[fmt.Sprint(place, pointOf(key))] = true
			}
		}
	}
	p.fill(others, wanted)
	return replaced
}

func (p places) clone() places {
	out := places{}
	for place, points := range p {
		out[place] = maps.Clone(points)
	}
	return out
}

func everything(harness.Place, string) bool { return true }

// timeOf reads the time of a value's key.
func timeOf(key string) int64 {
	at, err := strconv.ParseInt(key[strings.LastIndexByte(key, ' ')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return at
}

// fieldOf reads the field of a value's key, in quotes, and pointOf the series and
// time.
func fieldOf(key string) string {
	return key[strings.LastIndex(key, " \"")+1 : strings.LastIndexByte(key, ' ')]
}

func pointOf(key string) string {
	return key[:strings.LastIndex(key, " \"")] + key[strings.LastIndexByte(key, ' '):]
}

// from wants the values that are not older than a time.
func from(at int64) func(harness.Place, string) bool {
	return func(_ harness.Place, key string) bool { return timeOf(key) >= at }
}

// owned is what the owners of a circle hold of what is theirs, leftovers what
// lies elsewhere in it; of several leftovers of a point, that of the server that is
// configured first.
func (s *circleSite) owned(c contents, circle int) places {
	s.t.Helper()
	return s.partOf(c, circle, true)
}

func (s *circleSite) leftovers(c contents, circle int) places {
	s.t.Helper()
	return s.partOf(c, circle, false)
}

func (s *circleSite) partOf(c contents, circle int, owned bool) places {
	s.t.Helper()
	all := places{}
	for _, b := range s.members[circle] {
		all.fill(c[b.URL()], func(p harness.Place, _ string) bool {
			return owned == (s.ownerOf(circle, p.Database, p.Measurement) == b)
		})
	}
	return all
}

// set makes the owners of a circle hold exactly these points of what is theirs.
func (s *circleSite) set(c contents, circle int, all places) {
	s.t.Helper()
	for _, b := range s.members[circle] {
		mine := places{}
		mine.fill(all, func(p harness.Place, _ string) bool { return s.ownerOf(circle, p.Database, p.Measurement) == b })
		mine.fill(c[b.URL()], func(p harness.Place, _ string) bool { return s.ownerOf(circle, p.Database, p.Measurement) != b })
		c[b.URL()] = mine
	}
}

// recovered is what a recovery makes of what there was: the circle copied from has
// its way, and its leftovers fill what neither circle holds. Only the chosen
// servers, or all, are written to. It also counts the points whose values give way.
func (s *circleSite) recovered(before contents, source, target int, wanted func(harness.Place, string) bool, only ...*backend) (contents, int64) {
	s.t.Helper()
	after := before.clone()
	chosen := func(p harness.Place, key string) bool {
		return wanted(p, key) && (len(only) == 0 || slices.Contains(only, s.ownerOf(target, p.Database, p.Measurement)))
	}
	all := s.owned(before, target)
	replaced := all.overrule(s.owned(before, source), chosen)
	all.fill(s.leftovers(before, source), chosen)
	s.set(after, target, all)
	return after, int64(len(replaced))
}

// resynced is what a resync makes of what there was: every circle holds everything
// of all, and of two values that of the lower circle.
func (s *circleSite) resynced(before contents, wanted func(harness.Place, string) bool) (contents, int64) {
	s.t.Helper()
	after, all, replaced := before.clone(), places{}, 0
	for i := range s.members {
		own := s.owned(before, i)
		replaced += len(own.clone().overrule(all, wanted))
		all.fill(own, wanted)
	}
	for i := range s.members {
		all.fill(s.leftovers(before, i), wanted)
	}
	for i := range s.members {
		own := s.owned(before, i)
		own.overrule(all, wanted)
		s.set(after, i, own)
	}
	return after, int64(replaced)
}

func (c contents) clone() contents {
	out := contents{}
	for url, all := range c {
		out[url] = places(all).clone()
	}
	return out
}

// requireContents requires that every server holds exactly these points.
func requireContents(t testing.TB, want, have contents) {
	t.Helper()
	require.Len(t, have, len(want))
	for url := range have {
		for place, points := range have[url] {
			requireHolds(t, fmt.Sprintf("%v at %s", place, url), want[url][place], points)
		}
		for place, points := range want[url] {
			requireHolds(t, fmt.Sprintf("%v at %s", place, url), points, have[url][place])
		}
	}
}

// requireNothingToDo runs an operation that has already succeeded once more: it
// copies nothing, and says so. before is what there is.
func (s *circleSite) requireNothingToDo(pathAndQuery string, before contents) {
	s.t.Helper()
	op := s.finish(s.ask(pathAndQuery), operation.Succeeded)
	report := s.report(op.ID)
	require.Zero(s.t, op.Progress.Points.Copied, asJSON(s.t, op))
	require.Zero(s.t, op.Progress.Bytes.Written, asJSON(s.t, op))
	require.Equal(s.t, report.Slices.Total, report.Unchanged.Slices, asJSON(s.t, report))
	require.Zero(s.t, report.Replaced)
	require.NotNil(s.t, op.Result)
	require.True(s.t, strings.HasPrefix(op.Result.Note, "nothing to do"), op.Result.Note)
	requireContents(s.t, before, s.dump())
}

// scattering says what scatter writes.
type scattering struct {
	db       string
	policies []string
	// groups are the beginnings of shard groups that points lie in.
	groups []int64
	values int
}

// scatter fills all servers: the same points and fields here and there, with equal
// values, other values or none, also where they do not belong. Values keep the type
// of their field. Every server gets the databases and policies.
func (s *circleSite) scatter(dice *rand.Rand, how scattering) {
	s.t.Helper()
	lines := map[*backend]map[string]*strings.Builder{}
	for _, b := range s.all() {
		b.exec("CREATE DATABASE " + quoteName(how.db) + " WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME " + quoteName(how.policies[0]))
		lines[b] = map[string]*strings.Builder{}
		for i, rp := range how.policies {
			lines[b][rp] = &strings.Builder{}
			if i > 0 {
				b.exec(fmt.Sprintf("CREATE RETENTION POLICY %s ON %s DURATION INF REPLICATION 1 SHARD DURATION %dd", quoteName(rp), quoteName(how.db), 1+2*i))
			}
		}
	}
	put := func(circle int, rp, measurement, line string) {
		to := s.ownerOf(circle, how.db, measurement)
		if dice.IntN(10) == 0 {
			to = s.members[circle][dice.IntN(len(s.members[circle]))]
		}
		lines[to][rp].WriteString(line)
	}
	for n := range how.values {
		rp := how.policies[dice.IntN(len(how.policies))]
		measurement := fmt.Sprintf("m%d", dice.IntN(8))
		at := how.groups[dice.IntN(len(how.groups))] + int64(dice.IntN(40))*int64(time.Minute)
		line := func() string {
			i := dice.IntN(1000)
			value := [...]string{
				fmt.Sprintf("a=%di", i), fmt.Sprintf("b=%d.5", i), fmt.Sprintf("c=\"text %d, 🙂\"", i), fmt.Sprintf("d=%t", i%2 == 0), fmt.Sprintf("a=%di,b=%d.25", i, i),
			}[dice.IntN(5)]
			return fmt.Sprintf("%s,host=h%d %s %d\n", measurement, n%4, value, at)
		}
		same := line()
		for circle := range s.members {
			switch dice.IntN(4) {
			case 0: // a gap
			case 1:
				put(circle, rp, measurement, line())
			default:
				put(circle, rp, measurement, same)
			}
		}
	}
	for b, all := range lines {
		for rp, text := range all {
			b.write(how.db, rp, text.String())
		}
	}
}

// createDatabase makes a database with one policy of daily shard groups on every
// server.
func (s *circleSite) createDatabase(db string) {
	s.t.Helper()
	for _, b := range s.all() {
		b.exec("CREATE DATABASE " + db + " WITH DURATION INF REPLICATION 1 SHARD DURATION 1d NAME daily")
	}
}

// shardEdges are the boundaries of the shard groups of a database at some servers.
func shardEdges(t testing.TB, db string, of ...*backend) []int64 {
	t.Helper()
	var edges []int64
	for _, b := range of {
		c, err := influx.New(b.endpoint, influx.Options{})
		require.NoError(t, err)
		groups, err := c.ShardGroups(bounded(t))
		c.Close()
		require.NoError(t, err)
		for _, g := range groups {
			if g.Database == db {
				edges = append(edges, g.From, g.To)
			}
		}
	}
	slices.Sort(edges)
	return slices.Compact(edges)
}

// unitOf names the measurement and the window that a value lies in, between the
// given edges: what InfluxDB deletes at once, over all policies.
func unitOf(p harness.Place, key string, edges []int64) string {
	at, _ := slices.BinarySearch(edges, timeOf(key)+1)
	return fmt.Sprintf("%s\x00%s\x00%d", p.Database, p.Measurement, at)
}

// clearing is what a clear makes of what there was.
type clearing struct {
	after contents
	// dropped and kept count the points and the kept units.
	dropped, kept int64
	units         int
}

// cleared finds, unit by unit, what of the servers of a circle its owner holds,
// every value of it, and takes that away.
func (s *circleSite) cleared(before contents, circle int, wanted func(harness.Place, string) bool, edges ...int64) clearing {
	s.t.Helper()
	out := clearing{after: before.clone()}
	bounds := map[ownership][]int64{}
	for _, b := range s.members[circle] {
		unproven := map[string]bool{}
		points := map[string]map[string]bool{}
		each := func(do func(p harness.Place, key, unit string, owner *backend)) {
			for p, held := range before[b.URL()] {
				owner := s.ownerOf(circle, p.Database, p.Measurement)
				if owner == b {
					continue
				}
				of := ownership{slices.Index(s.members[circle], b)*len(s.members[circle]) + slices.Index(s.members[circle], owner), p.Database, ""}
				if bounds[of] == nil {
					bounds[of] = append(shardEdges(s.t, p.Database, b, owner), edges...)
					slices.Sort(bounds[of])
				}
				for key := range held {
					if wanted(p, key) {
						do(p, key, unitOf(p, key, bounds[of]), owner)
					}
				}
			}
		}
		each(func(p harness.Place, key, unit string, owner *backend) {
			if before[owner.URL()][p][key] != before[b.URL()][p][key] {
				unproven[unit] = true
			}
			if points[unit] == nil {
				points[unit] = map[string]bool{}
			}
			points[unit][p.RetentionPolicy+"\x00"+pointOf(key)] = true
		})
		each(func(p harness.Place, key, unit string, _ *backend) {
			if !unproven[unit] {
				delete(out.after[b.URL()][p], key)
			}
		})
		maps.DeleteFunc(out.after[b.URL()], func(_ harness.Place, held harness.Points) bool { return len(held) == 0 })
		out.units += len(unproven)
		for unit, all := range points {
			if unproven[unit] {
				out.kept += int64(len(all))
			} else {
				out.dropped += int64(len(all))
			}
		}
	}
	return out
}

// rebalanced is what a rebalance of a circle makes of what there was: the owner's
// value, or that of the removed servers, or of the others, in their order. Nothing
// is taken away.
func (s *circleSite) rebalanced(before contents, circle int, removed ...*backend) contents {
	s.t.Helper()
	after, all := before.clone(), s.owned(before, circle)
	for _, b := range removed {
		all.fill(before[b.URL()], everything)
	}
	all.fill(s.leftovers(before, circle), everything)
	s.set(after, circle, all)
	return after
}
