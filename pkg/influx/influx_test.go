package influx_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/influx/influxtest"
	"ringmaster/pkg/lineproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// allTime is every legal time.
var allTime = influx.Window{From: lineproto.MinTime, To: lineproto.MaxTime, Last: true}

// everything selects all points of a measurement of a policy.
func everything(db, rp, measurement string) influx.Selection {
	return influx.Selection{Database: db, RetentionPolicy: rp, Measurement: measurement, Window: allTime}
}

// start runs a server and returns a client of it.
func start(t testing.TB, opts ...influxtest.Option) (*influxtest.Server, *influx.Client) {
	t.Helper()
	s := influxtest.Start(t, opts...)
	return s, client(t, s.URL(), influx.Options{Timeout: 20 * time.Second})
}

func client(t testing.TB, url string, o influx.Options) *influx.Client {
	t.Helper()
	c, err := influx.New(influx.Endpoint{URL: url}, o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// row is a copy of one row of a Stream, Nulls left out.
type row struct {
	Sel    int
	Series string
	Time   int64
	Fields map[string]string
}

// read copies all rows of the selections.
func read(t testing.TB, c *influx.Client, sels ...influx.Selection) []row {
	t.Helper()
	rows, err := tryRead(t, c, sels...)
	require.NoError(t, err)
	return rows
}

func tryRead(t testing.TB, c *influx.Client, sels ...influx.Selection) ([]row, error) {
	t.Helper()
	st, err := c.Read(t.Context(), sels)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	var rows []row
	for st.Next() {
		r := row{Sel: st.Statement(), Series: st.Series().String(), Time: st.Time(), Fields: map[string]string{}}
		for i, v := range st.Values() {
			if v.Kind != lineproto.Null {
				r.Fields[st.Fields()[i]] = v.String()
			}
		}
		rows = append(rows, r)
	}
	require.False(t, st.Next(), "a stream that has ended goes on")
	return rows, st.Err()
}

func TestNewRefusesURLsWithoutRepeatingPasswords(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "host:8086", "ftp://user:secret@host", "http://", "http://user:secret@ho st:80", "://secret"} {
		_, err := influx.New(influx.Endpoint{URL: url}, influx.Options{})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestEndpointNeverShowsCredentials(t *testing.T) {
	t.Parallel()
	e := influx.Endpoint{URL: "http://inurl:secret@host:8086/", Username: "name", Password: "secret"}
	for _, text := range []string{
		e.String(), e.LogValue().String(),
		sprint("%v", e), sprint("%+v", e), sprint("%#v", e), sprint("%s", &e),
	} {
		require.NotContains(t, text, "secret")
		require.Contains(t, text, "host:8086")
	}
	c := client(t, e.URL, influx.Options{})
	require.Equal(t, "http://host:8086", c.URL())
}

func TestCredentialsAreSentAndRefusalsArePermanent(t *testing.T) {
	t.Parallel()
	s := influxtest.Start(t, influxtest.WithAuth())
	s.Exec(`CREATE USER admin WITH PASSWORD 'se:cret' WITH ALL PRIVILEGES`)
	ctx := t.Context()

	anonymous := client(t, s.URL(), influx.Options{})
	_, err := anonymous.Databases(ctx)
	requireError(t, err, influx.Permanent, 401)
	requireError(t, anonymous.Write(ctx, "d", "", []byte("m v=1 1\n")), influx.Permanent, 401)
	_, err = anonymous.Ping(ctx)
	require.NoError(t, err)

	c, err := influx.New(influx.Endpoint{URL: s.URL(), Username: "admin", Password: "se:cret"}, influx.Options{})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.CreateDatabase(ctx, "d"))
	require.NoError(t, c.Write(ctx, "d", "autogen", []byte("m v=1 1\n")))
	require.Len(t, read(t, c, everything("d", "autogen", "m")), 1)

	wrong, err := influx.New(influx.Endpoint{URL: s.URL(), Username: "admin", Password: "guess"}, influx.Options{})
	require.NoError(t, err)
	defer wrong.Close()
	_, err = wrong.Databases(ctx)
	requireError(t, err, influx.Permanent, 401)
	require.NotContains(t, err.Error(), "guess")
}

func requireError(t testing.TB, err error, class influx.Class, status int) *influx.Error {
	t.Helper()
	var e *influx.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", e)
	require.Equal(t, status, e.Status, "%v", e)
	require.Equal(t, class == influx.Transient, influx.IsTransient(err))
	return e
}
