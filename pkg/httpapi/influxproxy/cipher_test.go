package influxproxy_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
	"ringmaster/pkg/httpapi/influxproxy"
)

// TestCipherRoundTrip: what /encrypt makes /decrypt undoes, for everybody and
// under both names of the message.
func TestCipherRoundTrip(t *testing.T) {
	c := serve(t, httpapitest.NewBackend(), func(d *influxproxy.Deps) { d.Username, d.Password, d.PingAuth = "admin", "hush", true })
	for _, message := range []string{"", "admin", "sixteen letters!", "seventeen letters", "é and a\nsecond line", "\x01\xff"} {
		for _, name := range []string{"msg", "text"} {
			w := c.Get("/encrypt?" + url.Values{name: {message}}.Encode())
			require.Equal(t, http.StatusOK, w.Status)
			require.Equal(t, "text/plain; charset=utf-8", w.Header.Get("Content-Type"))
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			text := w.Body[:len(w.Body)-1]
			w = c.Get("/decrypt?" + url.Values{"key": {"consistentcipher"}, name: {text}}.Encode())
			require.Equal(t, message+"\n", w.Body)
		}
	}
	require.Equal(t, "\n", c.Get("/encrypt").Body, "no message is the empty one")
	require.Equal(t, "\n", c.Get("/decrypt?key=consistentcipher").Body)
	require.Equal(t, "YgvEyuPZlDYAH8sGDkC!Ag\n", c.Get("/encrypt/?msg=admin").Body)
}
