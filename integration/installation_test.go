package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/operation"
)

// patience bounds every wait of a test; what is waited for takes seconds.
const patience = 2 * time.Minute

// lease is the lease of every installation under test: short, so that the work
// of a killed process is taken over soon.
const lease = "1s"

// installation is a cluster that belongs to a test.
type installation struct {
	*harness.Cluster

	t testing.TB
	// behind says which server is behind the address of a proxy.
	behind map[string]string
}

// install prepares an installation; nothing runs yet. When the test has failed,
// what the programs printed is shown.
func install(t testing.TB) *installation {
	t.Helper()
	c, err := harness.NewCluster(t.TempDir(), binDir, nil)
	require.NoError(t, err)
	in := &installation{Cluster: c, t: t, behind: map[string]string{}}
	if os.Getenv("NATS_NODES") == "3" {
		in.NATS = startNATS(t)
	}
	t.Cleanup(in.close)
	return in
}

// embedded skips a test that is about the embedded NATS when there are three servers.
func (in *installation) embedded() {
	in.t.Helper()
	if in.NATS != nil {
		in.t.Skip("this is about the embedded NATS")
	}
}

// as returns the installation for the use of a subtest.
func (in *installation) as(t testing.TB) *installation {
	sub := *in
	sub.t = t
	return &sub
}

// close stops the programs in order and looks at what they have printed.
func (in *installation) close() {
	for _, p := range in.programs() {
		code, err := p.Stop()
		if err != nil {
			in.t.Errorf("a program did not stop: %v", err)
		}
		// -1 is a program that the test has killed.
		if code > 0 {
			in.t.Errorf("a program stopped with exit code %d", code)
		}
		for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(p.Output(), bad) {
				in.t.Errorf("a program printed %q", bad)
			}
		}
	}
	if in.t.Failed() {
		for _, p := range in.programs() {
			in.t.Logf("output of process %d:\n%s", p.PID(), p.Output())
		}
	}
}

// programs lists every process that was started, workers first.
func (in *installation) programs() []*harness.Program {
	all := append([]*harness.Program{}, in.Workers...)
	if in.API != nil {
		all = append(all, in.API)
	}
	return all
}

// context returns a context that bounds a wait.
func (in *installation) context() context.Context { return bounded(in.t) }

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// startAPI starts the api without task slots of its own.
func (in *installation) startAPI(args ...string) {
	in.t.Helper()
	require.NoError(in.t, in.StartAPI(in.context(), append([]string{"-slots", "0", "-lease", lease}, args...)...))
}

// stopAPI ends the api in order.
func (in *installation) stopAPI() {
	in.t.Helper()
	code, err := in.API.Stop()
	require.NoError(in.t, err)
	require.Zero(in.t, code, "%s", in.API.Output())
}

func (in *installation) startWorker(args ...string) *harness.Program {
	in.t.Helper()
	w, err := in.StartWorker(in.context(), args...)
	require.NoError(in.t, err)
	return w
}

// rebalanceAdd submits a rebalance of a circle that has grown.
func (in *installation) rebalanceAdd(circle int, databases ...string) operation.Operation {
	in.t.Helper()
	p := map[string]any{"circle_id": circle, "operation": "add"}
	if len(databases) > 0 {
		p["databases"] = databases
	}
	return in.submit(p)
}

// rebalanceRemove submits a rebalance that takes everything from backends that
// have left the circle.
func (in *installation) rebalanceRemove(circle int, removed []harness.Backend, databases ...string) operation.Operation {
	in.t.Helper()
	p := map[string]any{"circle_id": circle, "operation": "rm", "removed_backends": removed}
	if len(databases) > 0 {
		p["databases"] = databases
	}
	return in.submit(p)
}

// submitOld submits by the dialect of influx-proxy, as its users' scripts do, and
// returns the operation's id.
func (in *installation) submitOld(query string, removed ...harness.Backend) string {
	in.t.Helper()
	body := ""
	if len(removed) > 0 {
		body = asJSON(in.t, map[string]any{"backends": removed})
	}
	res, answer := in.do(http.MethodPost, "/rebalance?"+query, nil, body)
	require.Equal(in.t, http.StatusAccepted, res.StatusCode, answer)
	require.Equal(in.t, "accepted\n", answer)
	id := res.Header.Get("X-Operation-Id")
	require.NotEmpty(in.t, id)
	require.Equal(in.t, "/v1/operations/"+id, res.Header.Get("Location"))
	return id
}

func (in *installation) submit(parameters map[string]any) operation.Operation {
	in.t.Helper()
	op, err := in.Client.Submit(in.context(), operation.KindRebalance, parameters)
	require.NoError(in.t, err)
	return op
}

// wait waits for a condition of an operation.
func (in *installation) wait(id string, until func(*operation.Operation) bool) operation.Operation {
	in.t.Helper()
	op, err := in.Client.Wait(in.context(), id, until)
	require.NoError(in.t, err)
	return op
}

// finish waits for the end of an operation and requires its state.
func (in *installation) finish(id string, want operation.State) operation.Operation {
	in.t.Helper()
	op := in.wait(id, harness.Ended)
	if op.State != want {
		report, err := in.Client.Report(in.context(), id)
		in.t.Fatalf("operation %s is %s, want %s\nerror: %v\nreport (%v): %s", id, op.State, want, op.Error, err, asJSON(in.t, report))
	}
	return op
}

// succeed waits for the end of an operation, which must be a success with an
// equal report.
func (in *installation) succeed(id string) operation.Report {
	in.t.Helper()
	in.finish(id, operation.Succeeded)
	report := in.report(id)
	require.True(in.t, report.Equal, asJSON(in.t, report))
	return report
}

func (in *installation) report(id string) operation.Report {
	in.t.Helper()
	report, err := in.Client.Report(in.context(), id)
	require.NoError(in.t, err)
	return report
}

func (in *installation) tasks(id string) []operation.Task {
	in.t.Helper()
	all, err := in.Client.Tasks(in.context(), id)
	require.NoError(in.t, err)
	return all
}

// do sends a request to the api.
func (in *installation) do(method, path string, header http.Header, body string) (*http.Response, string) {
	in.t.Helper()
	res, raw, err := in.Client.Do(in.context(), method, path, header, []byte(body))
	require.NoError(in.t, err)
	return res, string(raw)
}

// owner asks the api which backend of a circle owns a measurement.
func (in *installation) owner(circle int, db, measurement string) string {
	in.t.Helper()
	var where struct {
		Owners []struct {
			CircleID int    `json:"circle_id"`
			URL      string `json:"url"`
		} `json:"owners"`
	}
	query := url.Values{"db": {db}, "measurement": {measurement}}
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/where?"+query.Encode(), &where))
	for _, o := range where.Owners {
		if o.CircleID == circle {
			return o.URL
		}
	}
	in.t.Fatalf("nobody owns %s.%s in circle %d", db, measurement, circle)
	return ""
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.MarshalIndent(v, "", "  ")
	require.NoError(t, err)
	return string(raw)
}

// backend is a real InfluxDB server that belongs to a test.
type backend struct {
	*influxtest.Server

	t        testing.TB
	endpoint influx.Endpoint
}

// startBackend starts a server that wants no credentials.
func startBackend(t testing.TB) *backend {
	t.Helper()
	s := influxtest.Start(t)
	return &backend{Server: s, t: t, endpoint: influx.Endpoint{URL: s.URL()}}
}

// startBackends starts some servers.
func startBackends(t testing.TB, n int) []*backend {
	t.Helper()
	all := make([]*backend, n)
	for i := range all {
		all[i] = startBackend(t)
	}
	return all
}

// startGuarded starts a server that wants credentials, with an admin of the
// given name and password.
func startGuarded(t testing.TB, username, password string) *backend {
	t.Helper()
	s := influxtest.Start(t, influxtest.WithAuth())
	s.Exec(`CREATE USER "` + username + `" WITH PASSWORD '` + password + `' WITH ALL PRIVILEGES`)
	return &backend{Server: s, t: t, endpoint: influx.Endpoint{URL: s.URL(), Username: username, Password: password}}
}

// configured is the server as a configuration names it.
func (b *backend) configured(name string) harness.Backend {
	return harness.Backend{Name: name, URL: b.URL(), Username: b.endpoint.Username, Password: b.endpoint.Password}
}

// exec runs an InfluxQL statement.
func (b *backend) exec(statement string) {
	b.t.Helper()
	b.execIn("", statement)
}

// execIn runs an InfluxQL statement in a database.
func (b *backend) execIn(db, statement string) {
	b.t.Helper()
	b.post("/query", url.Values{"db": {db}, "q": {statement}}.Encode(), "application/x-www-form-urlencoded", http.StatusOK)
}

// write stores line protocol with times in nanoseconds.
func (b *backend) write(db, rp, lines string) {
	b.t.Helper()
	b.post("/write?"+url.Values{"db": {db}, "rp": {rp}}.Encode(), lines, "text/plain", http.StatusNoContent)
}

func (b *backend) post(path, body, contentType string, want int) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(bounded(b.t), http.MethodPost, b.URL()+path, strings.NewReader(body))
	require.NoError(b.t, err)
	req.Header.Set("Content-Type", contentType)
	if b.endpoint.Username != "" {
		req.SetBasicAuth(b.endpoint.Username, b.endpoint.Password)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(b.t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, want, res.StatusCode, "%.300s: %.300s", body, answer)
	require.False(b.t, bytes.Contains(answer, []byte(`"error"`)), "%.300s: %.300s", body, answer)
}

// dump reads everything that the server holds.
func (b *backend) dump() map[harness.Place]harness.Points {
	b.t.Helper()
	all, err := harness.DumpEndpoint(bounded(b.t), b.endpoint)
	require.NoError(b.t, err)
	return all
}

// policies reads the retention policies of a database.
func (b *backend) policies(db string) []influx.RetentionPolicy {
	b.t.Helper()
	c, err := influx.New(b.endpoint, influx.Options{})
	require.NoError(b.t, err)
	defer c.Close()
	all, err := c.RetentionPolicies(bounded(b.t), db)
	require.NoError(b.t, err)
	return all
}

// databases lists the databases of the server.
func (b *backend) databases() []string {
	b.t.Helper()
	c, err := influx.New(b.endpoint, influx.Options{})
	require.NoError(b.t, err)
	defer c.Close()
	all, err := c.Databases(bounded(b.t))
	require.NoError(b.t, err)
	return all
}

// proxied puts a fault proxy in front of the server.
func (b *backend) proxied() *harness.Proxy {
	b.t.Helper()
	p, err := harness.NewProxy(b.URL())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, p.Close()) })
	return p
}
