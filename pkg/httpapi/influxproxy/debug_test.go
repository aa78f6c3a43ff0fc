package influxproxy_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi"
	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
)

// TestProfilesAreServedToFew holds the answers against the contract; cmd/api asks
// for every profile.
func TestProfilesAreServedToFew(t *testing.T) {
	b := httpapitest.NewBackend()
	token := httpapitest.Header("Authorization", "Bearer token")
	stranger := httpapitest.Header("X-Forwarded-For", "192.0.2.1")
	enabled := func(d *influxproxy.Deps) { d.Pprof, d.Admin = true, httpapi.NewAdminAuth("token") }
	guarded := func(d *influxproxy.Deps) { enabled(d); d.Username, d.Password = "u", "p" }
	for name, c := range map[string]struct {
		deps    func(*influxproxy.Deps)
		target  string
		options []httpapitest.Option
		want    int
	}{
		"not enabled":          {func(d *influxproxy.Deps) { d.Admin = httpapi.NewAdminAuth("token") }, "/debug/pprof/heap", []httpapitest.Option{token}, 404},
		"nobody to ask":        {func(d *influxproxy.Deps) { d.Pprof = true }, "/debug/pprof/heap", nil, 404},
		"the same machine":     {enabled, "/debug/pprof/goroutine?debug=1", nil, 200},
		"a stranger":           {enabled, "/debug/pprof/goroutine?debug=1", []httpapitest.Option{stranger}, 401},
		"a stranger's token":   {enabled, "/debug/pprof/goroutine?debug=1", []httpapitest.Option{stranger, token}, 200},
		"no credentials":       {guarded, "/debug/pprof/goroutine?debug=1", nil, 401},
		"the credentials":      {guarded, "/debug/pprof/goroutine?debug=1&u=u&p=p", []httpapitest.Option{stranger}, 200},
		"wrong credentials":    {guarded, "/debug/pprof/goroutine?debug=1&u=u&p=x", nil, 401},
		"the token":            {guarded, "/debug/pprof/goroutine?debug=1", []httpapitest.Option{token}, 200},
		"another token":        {guarded, "/debug/pprof/", []httpapitest.Option{httpapitest.Header("Authorization", "Bearer other")}, 401},
		"the list":             {enabled, "/debug/pprof/", nil, 200},
		"the list, other path": {enabled, "/debug/pprof", nil, 301},
		"no such profile":      {enabled, "/debug/pprof/nothing", nil, 404},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, b, c.deps)
			w := client.Get(c.target, c.options...)
			require.Equal(t, c.want, w.Status, w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			if c.want == http.StatusUnauthorized {
				require.Equal(t, "authentication failed\n", w.Body)
			}
		})
	}
	w := serve(t, b, enabled).Do(http.MethodPost, "/debug/pprof/heap", "")
	require.Equal(t, http.StatusMethodNotAllowed, w.Status)
	require.Equal(t, "GET, HEAD", w.Header.Get("Allow"))
}
