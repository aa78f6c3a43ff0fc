package operation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

const (
	secretUser     = "u5er-s3cret"
	secretPassword = "p4ss-s3cret"
	secretSealed   = "s34led-s3cret"
)

func TestParseRebalance(t *testing.T) {
	t.Parallel()
	removed := func(fields string) string {
		return `{"circle_id":0,"operation":"rm","removed_backends":[` + fields + `]}`
	}
	const ok = `{"name":"b","url":"http://b:8086"}`
	for _, c := range []struct {
		name, raw string
		want      operation.Rebalance
		field     string // of the error
	}{
		{
			name: "add", raw: `{"circle_id":0,"operation":"add"}`,
			want: operation.Rebalance{Operation: operation.RebalanceAdd},
		},
		{
			name: "everything", raw: `{"circle_id":7,"operation":"rm","databases":["a","b c"],"workers":1024,"depth":"digest","removed_backends":[{"name":"b","url":"https://[::1]:8086/influx","username":"u","password":"p"}]}`,
			want: operation.Rebalance{
				CircleID: 7, Operation: operation.RebalanceRemove,
				Tuning:          operation.Tuning{Databases: []string{"a", "b c"}, Workers: 1024, Depth: operation.DepthDigest},
				RemovedBackends: []operation.RemovedBackend{{Name: "b", URL: "https://[::1]:8086/influx", Username: "u", Password: "p"}},
			},
		},
		{name: "nothing", raw: ``, field: "circle_id"},
		{name: "spaces", raw: ` `, field: "circle_id"},
		{name: "null", raw: `null`, field: "circle_id"},
		{name: "empty", raw: `{}`, field: "circle_id"},
		{name: "circle null", raw: `{"circle_id":null,"operation":"add"}`, field: "circle_id"},
		{name: "circle negative", raw: `{"circle_id":-1,"operation":"add"}`, field: "circle_id"},
		{name: "circle a string", raw: `{"circle_id":"0","operation":"add"}`, field: "circle_id"},
		{name: "circle a fraction", raw: `{"circle_id":0.5,"operation":"add"}`, field: "circle_id"},
		{name: "no operation", raw: `{"circle_id":0}`, field: "operation"},
		{name: "another operation", raw: `{"circle_id":0,"operation":"ADD"}`, field: "operation"},
		{name: "unknown key", raw: `{"circle_id":0,"operation":"add","circel":1}`, field: "circel"},
		{name: "an array", raw: `[]`, field: "parameters"},
		{name: "two objects", raw: `{"circle_id":0,"operation":"add"}{}`, field: "parameters"},
		{name: "cut off", raw: `{"circle_id":0`, field: "parameters"},
		{name: "depth", raw: `{"circle_id":0,"operation":"add","depth":"deep"}`, field: "depth"},
		{name: "workers negative", raw: `{"circle_id":0,"operation":"add","workers":-1}`, field: "workers"},
		{name: "workers many", raw: `{"circle_id":0,"operation":"add","workers":1025}`, field: "workers"},
		{name: "workers enormous", raw: `{"circle_id":0,"operation":"add","workers":99999999999999999999}`, field: "workers"},
		{name: "empty database", raw: `{"circle_id":0,"operation":"add","databases":["a",""]}`, field: "databases[1]"},
		{name: "removed with add", raw: `{"circle_id":0,"operation":"add","removed_backends":[` + ok + `]}`, field: "removed_backends"},
		{name: "rm of nobody", raw: `{"circle_id":0,"operation":"rm","removed_backends":[]}`, field: "removed_backends"},
		{name: "removed without name", raw: removed(`{"url":"http://b:8086"}`), field: "removed_backends[0].name"},
		{name: "removed without url", raw: removed(ok + `,{"name":"c"}`), field: "removed_backends[1].url"},
		{name: "removed without host", raw: removed(`{"name":"b","url":"http://"}`), field: "removed_backends[0].url"},
		{name: "removed by another scheme", raw: removed(`{"name":"b","url":"ftp://b"}`), field: "removed_backends[0].url"},
		{name: "removed garbled", raw: removed(`{"name":"b","url":"http://b:80:80:80/%zz"}`), field: "removed_backends[0].url"},
		{name: "credentials in url", raw: removed(`{"name":"b","url":"http://` + secretUser + `:` + secretPassword + `@b:8086"}`), field: "removed_backends[0].url"},
		{name: "query in url", raw: removed(`{"name":"b","url":"http://b:8086?p=` + secretPassword + `"}`), field: "removed_backends[0].url"},
		{name: "fragment in url", raw: removed(`{"name":"b","url":"http://b:8086#` + secretPassword + `"}`), field: "removed_backends[0].url"},
		{name: "removed twice", raw: removed(ok + `,{"name":"c","url":"http://b:8086/"}`), field: "removed_backends[1].url"},
		{name: "unknown key inside", raw: removed(`{"name":"b","url":"http://b","pasword":"` + secretPassword + `"}`), field: "pasword"},
		{name: "password a number", raw: removed(`{"name":"b","url":"http://b","password":123454321}`), field: "removed_backends.password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := operation.ParseRebalance(json.RawMessage(c.raw))
			if c.field == "" {
				require.NoError(t, err)
				require.Equal(t, c.want, got)
				return
			}
			var invalid *operation.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, c.field, invalid.Field, invalid.Problem)
			require.NotEmpty(t, invalid.Problem)
			require.NotEmpty(t, invalid.Hint)
			for _, secret := range []string{secretUser, secretPassword, "123454321"} {
				require.NotContains(t, fmt.Sprintf("%+v", invalid), secret)
			}
		})
	}
}

// FuzzParseRebalance: whatever is accepted reads back as the same from its own
// JSON, and what is refused names a field.
func FuzzParseRebalance(f *testing.F) {
	for _, seed := range []string{
		`{"circle_id":0,"operation":"add"}`, `{"circle_id":1,"operation":"rm","removed_backends":[{"name":"b","url":"http://b"}]}`,
		`{"circle_id":0,"operation":"add","databases":["a"],"workers":3,"depth":"digest"}`, `{"CIRCLE_ID":1}`, `null`, `[]`, `{"circle_id":1e3,"operation":"add"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := operation.ParseRebalance(raw)
		if err != nil {
			var invalid *operation.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.NotEmpty(t, invalid.Field)
			return
		}
		again, err := json.Marshal(p)
		require.NoError(t, err)
		q, err := operation.ParseRebalance(again)
		require.NoError(t, err, "%s", again)
		require.Equal(t, p, q)
	})
}

// TestPublicShowsNoCredentials: neither those of a request nor the sealed ones of
// a record, however they are printed.
func TestPublicShowsNoCredentials(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 4).Draw(t, "backends")
		p := operation.Rebalance{CircleID: 3, Operation: operation.RebalanceRemove, Tuning: operation.Tuning{Depth: operation.DepthCount}}
		for i := range n {
			b := operation.RemovedBackend{Name: fmt.Sprintf("b%d", i), URL: fmt.Sprintf("http://b%d:8086", i)}
			if rapid.Bool().Draw(t, "plain") {
				b.Username, b.Password = secretUser, secretPassword
			}
			if rapid.Bool().Draw(t, "sealed") {
				b.Sealed = secretSealed
			}
			p.RemovedBackends = append(p.RemovedBackends, b)
		}
		raw, err := json.Marshal(p)
		require.NoError(t, err)
		o := operation.Operation{ID: "x", Kind: operation.KindRebalance, Parameters: raw}
		shown, err := json.Marshal(o.Public())
		require.NoError(t, err)
		printed := fmt.Sprintf("%v %+v %#v %s %q", p.RemovedBackends, p.RemovedBackends, p.RemovedBackends, p.RemovedBackends, p.RemovedBackends)
		for _, secret := range []string{secretUser, secretPassword, secretSealed} {
			require.NotContains(t, string(shown), secret)
			require.NotContains(t, printed, secret)
		}
		require.JSONEq(t, string(raw), string(o.Parameters), "the record itself stays as it is")
		var back operation.Rebalance
		require.NoError(t, json.Unmarshal(o.Public().Parameters, &back))
		require.Len(t, back.RemovedBackends, n)
		for i, b := range back.RemovedBackends {
			require.Equal(t, operation.RemovedBackend{Name: p.RemovedBackends[i].Name, URL: p.RemovedBackends[i].URL}, b)
		}
	})
	broken := operation.Operation{Kind: operation.KindRebalance, Parameters: json.RawMessage(`{"password":"` + secretPassword)}
	require.JSONEq(t, `{}`, string(broken.Public().Parameters))
}

func TestKinds(t *testing.T) {
	t.Parallel()
	implemented := 0
	for _, k := range operation.Kinds() {
		require.True(t, k.Valid())
		if k.Implemented() {
			implemented++
		}
	}
	require.Equal(t, 5, implemented)
	require.False(t, operation.Kind("cleanup").Valid())
	require.Contains(t, (&operation.NotImplementedError{What: "resync"}).Error(), "nothing was started")
	p, err := operation.ParseRebalance(json.RawMessage(`{"circle_id":12,"operation":"add"}`))
	require.NoError(t, err)
	require.Equal(t, []string{"circle/12"}, operation.CircleScopes(p, 20))
}

func TestFilter(t *testing.T) {
	t.Parallel()
	o := &operation.Operation{State: operation.Running, Kind: operation.KindRebalance, Scope: []string{"circle/0", "circle/1"}}
	for _, f := range []operation.Filter{{}, {State: operation.Running}, {Kind: operation.KindRebalance}, {Scope: "circle/1"}} {
		require.True(t, f.Match(o), "%+v", f)
	}
	for _, f := range []operation.Filter{{State: operation.Paused}, {Kind: operation.KindResync}, {Scope: "circle/2"}, {State: operation.Paused, Scope: "circle/0"}} {
		require.False(t, f.Match(o), "%+v", f)
	}
}

func TestClipKeepsBothEnds(t *testing.T) {
	t.Parallel()
	require.Equal(t, "short", operation.Clip("short"))
	long := "what was tried: " + strings.Repeat("é", 10_000) + " and the end"
	got := operation.Clip(long)
	require.LessOrEqual(t, len(got), operation.MaxDetailBytes)
	require.True(t, strings.HasPrefix(got, "what was tried: é") && strings.HasSuffix(got, "é and the end"))
	require.Equal(t, strings.ToValidUTF8(got, "?"), got)
}
