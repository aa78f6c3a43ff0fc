package statement_test

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/statement"
)

// rig is one server with all the data, and three that hold it between them.
type rig struct {
	t     *testing.T
	whole *influxtest.Server
	parts map[string]*influxtest.Server
	keys  []string
	http  *http.Client
	start time.Time
}

type series struct {
	Name    string
	Tags    map[string]string
	Columns []string
	Values  [][]any
}

type answer struct {
	Err      string
	Series   []series
	Messages []string
}

func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
}

func newRig(t *testing.T, opts ...influxtest.Option) *rig {
	t.Helper()
	r := &rig{
		t: t, start: time.Now(), whole: influxtest.Start(t, opts...), parts: map[string]*influxtest.Server{},
		http: client(),
	}
	for i := range 3 {
		key := fmt.Sprintf("b%d", i)
		r.keys = append(r.keys, key)
		r.parts[key] = influxtest.Start(t, opts...)
	}
	return r
}

// spread puts measurements that are asked for together on different backends.
func spread() map[string]int {
	return map[string]int{
		"d,cpu": 0, "d,mem": 1, "d,disk": 2, "d,net": 0, "d,swap": 1, "e,cpu": 2, "e,job": 1,
		"d,tfloat": 0, "d,tint": 1, "d,tint2": 2, "d,tstring": 2, "d,tbool": 1, "d,tnone": 0,
		"d,tmixed": 2, "d,tmixed2": 0, "d,ctag": 0, "d,cfield": 1, "d,cnum": 2,
	}
}

func (r *rig) owner(db, measurement string) string {
	if i, ok := spread()[db+","+measurement]; ok {
		return r.keys[i]
	}
	h := fnv.New32a()
	h.Write([]byte(db + "," + measurement))
	return r.keys[h.Sum32()%3]
}

// exec runs statements everywhere.
func (r *rig) exec(q string) {
	r.whole.Exec(q)
	for _, s := range r.parts {
		s.Exec(q)
	}
}

// write writes lines everywhere where they belong.
func (r *rig) write(db, rp string, lines lines) {
	for _, m := range slices.Sorted(maps.Keys(lines)) {
		text := strings.Join(lines[m], "\n")
		r.whole.WriteLines(db, rp, text)
		r.parts[r.owner(db, m)].WriteLines(db, rp, text)
	}
}

// leave writes lines to backends that do not own them, and nowhere else.
func (r *rig) leave(db, rp, measurement string, lines ...string) {
	for key, s := range r.parts {
		if key != r.owner(db, measurement) {
			s.WriteLines(db, rp, strings.Join(lines, "\n"))
		}
	}
}

// ask sends a text to a server.
func (r *rig) ask(s *influxtest.Server, q string, d statement.Defaults) []answer {
	r.t.Helper()
	body, err := r.try(s, q, d)
	require.NoError(r.t, err, q)
	return decode(r.t, q, body)
}

func (r *rig) try(s *influxtest.Server, q string, d statement.Defaults) ([]byte, error) {
	return r.post(s, url.Values{"q": {q}, "epoch": {"ns"}, "db": {d.Database}, "rp": {d.RetentionPolicy}})
}

func (r *rig) post(s *influxtest.Server, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, s.URL()+"/query", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req)
}

func (r *rig) get(s *influxtest.Server, form url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, s.URL()+"/query?"+form.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return r.do(req)
}

func (r *rig) do(req *http.Request) ([]byte, error) {
	req.Header.Set("Accept", "application/x-msgpack") // tells integers from floats
	res, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

func decode(t *testing.T, q string, body []byte) []answer {
	t.Helper()
	raw, err := msgp.NewReader(bytes.NewReader(body)).ReadIntf()
	require.NoError(t, err, "%s: %q", q, body)
	top := raw.(map[string]any)
	if e, ok := top["error"].(string); ok {
		return []answer{{Err: e}}
	}
	var answers []answer
	results, _ := top["results"].([]any)
	for _, one := range results {
		result := one.(map[string]any)
		var a answer
		a.Err, _ = result["error"].(string)
		messages, _ := result["messages"].([]any)
		for _, m := range messages {
			a.Messages = append(a.Messages, m.(map[string]any)["text"].(string))
		}
		list, _ := result["series"].([]any)
		for _, one := range list {
			s := one.(map[string]any)
			row := series{}
			row.Name, _ = s["name"].(string)
			if tags, ok := s["tags"].(map[string]any); ok {
				row.Tags = map[string]string{}
				for k, v := range tags {
					row.Tags[k] = v.(string)
				}
			}
			columns, _ := s["columns"].([]any)
			for _, c := range columns {
				row.Columns = append(row.Columns, c.(string))
			}
			values, _ := s["values"].([]any)
			for _, v := range values {
				row.Values = append(row.Values, v.([]any))
			}
			a.Series = append(a.Series, row)
		}
		answers = append(answers, a)
	}
	return answers
}

func (r *rig) circle() statement.Circle {
	return statement.Circle{Backends: r.keys, Owner: r.owner, Measurements: func(backend, db string) []string {
		var names []string
		for _, s := range r.one(backend, statement.NamesText(db), statement.Defaults{}).Series {
			for _, row := range s.Values {
				names = append(names, row[0].(string))
			}
		}
		return names
	}}
}

func (r *rig) one(backend, q string, d statement.Defaults) answer {
	answers := r.ask(r.parts[backend], q, d)
	require.Len(r.t, answers, 1, q)
	return answers[0]
}

// merged answers a statement from the three, as its plan says.
func (r *rig) merged(q string, d statement.Defaults) (answer, []string) {
	d.Now = time.Now()
	request, err := statement.Parse(q, nil, d)
	if err != nil {
		return answer{Err: err.Error()}, nil
	}
	require.Len(r.t, request.Statements, 1, q)
	s := request.Statements[0]
	if s.Class == statement.Refused {
		return answer{Err: s.Refusal}, nil
	}
	plan, err := s.Plan(r.circle())
	if err != nil {
		return answer{Err: err.Error()}, nil
	}
	var trace []string
	var known [][]string
	for _, probe := range plan.Probes {
		a := r.one(probe.Backend, probe.Text, d)
		trace = append(trace, probe.Backend+"? "+probe.Text)
		if a.Err != "" && !probe.Ignore(a.Err) {
			return answer{Err: a.Err}, trace
		}
		var lines []string
		for _, s := range a.Series {
			for _, row := range s.Values {
				lines = append(lines, fmt.Sprint(row[0]))
			}
		}
		known = append(known, lines)
	}
	if err := plan.Resolve(known); err != nil {
		return answer{Err: err.Error()}, trace
	}
	var got []answer
	for _, part := range plan.Parts {
		trace = append(trace, part.Backend+": "+part.Text)
		a := r.one(part.Backend, part.Text, d)
		if a.Err != "" {
			return answer{Err: a.Err}, trace
		}
		got = append(got, a)
	}
	return merge(plan, got), trace
}

// merge is the plainest way to follow the instructions of a plan.
func merge(plan *statement.Plan, got []answer) answer {
	m := plan.Merge
	var all []series
	for i, a := range got {
		for _, s := range a.Series {
			if m.Kind == statement.Rows || m.Kind == statement.Union {
				s.Values = slices.DeleteFunc(s.Values, func(row []any) bool { return !m.Keep(plan.Parts[i].Backend, s.Name, row) })
			} else if !m.Keep(plan.Parts[i].Backend, s.Name, nil) {
				continue
			}
			all = append(all, s)
		}
	}
	switch m.Kind {
	case statement.Pass:
		if len(got) == 0 {
			return answer{}
		}
		return got[0]
	case statement.BySeries:
		slices.SortStableFunc(all, func(a, b series) int {
			if m.Descending {
				a, b = b, a
			}
			return strings.Compare(a.Name, b.Name)
		})
	case statement.Concat:
	case statement.Rows, statement.Union, statement.Lines:
		all = rows(m, all)
	case statement.Sum:
		all = sum(plan, got)
	}
	return answer{Series: all}
}

func rows(m statement.Merge, all []series) []series {
	if len(all) == 0 {
		return nil
	}
	one := all[0]
	one.Values = nil
	for _, s := range all {
		one.Values = append(one.Values, s.Values...)
	}
	switch m.Kind { //nolint:exhaustive // the others stay as they come
	case statement.Rows:
		slices.SortStableFunc(one.Values, func(a, b []any) int { return strings.Compare(m.Key(a), m.Key(b)) })
	case statement.Union:
		seen := map[any]bool{}
		one.Values = slices.DeleteFunc(one.Values, func(row []any) bool {
			was := seen[row[0]]
			seen[row[0]] = true
			return was
		})
	}
	one.Values = one.Values[min(m.Offset, len(one.Values)):]
	if m.Limit > 0 {
		one.Values = one.Values[:min(m.Limit, len(one.Values))]
	}
	if len(one.Values) == 0 {
		return nil
	}
	return []series{one}
}

func sum(plan *statement.Plan, got []answer) []series {
	var sums []series
	for i, a := range got {
		for _, s := range a.Series {
			n := s.Values[0][0].(int64)
			if plan.Parts[i].Subtract {
				n = -n
			}
			at := slices.IndexFunc(sums, func(o series) bool { return maps.Equal(o.Tags, s.Tags) })
			if at < 0 {
				at = len(sums)
				columns := s.Columns
				if plan.Merge.Columns != nil {
					columns = plan.Merge.Columns
				}
				sums = append(sums, series{Tags: s.Tags, Columns: columns, Values: [][]any{{int64(0)}}})
			}
			sums[at].Values[0][0] = sums[at].Values[0][0].(int64) + n
		}
	}
	slices.SortFunc(sums, func(a, b series) int { return slices.Compare(values(a.Tags), values(b.Tags)) })
	for _, s := range sums {
		s.Values[0][0] = s.Values[0][0].(int64) - plan.Merge.Less
	}
	return sums
}

// values are those of tags in the order of their keys.
func values(tags map[string]string) []string {
	var v []string
	for _, k := range keys(tags) {
		v = append(v, tags[k])
	}
	return v
}

func keys(tags map[string]string) []string { return slices.Sorted(maps.Keys(tags)) }
