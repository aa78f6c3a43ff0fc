package integration_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
)

// letter is a dead letter as the native API shows it.
type letter struct {
	ID, Kind, Reason, Backend, Database, Body string
	Points                                    int
}

func (in *installation) letters() []letter {
	in.t.Helper()
	var page struct{ Items []letter }
	require.NoError(in.t, in.Client.Get(in.context(), "/v1/dead-letters?limit=1000", &page))
	return page.Items
}

// TestRefusedPointsAreBrowsedRetriedAndDropped: points that were acknowledged while
// their backend was down, and that it refuses afterwards, are shown with its words; they
// are written again when a person has mended what was in the way, and not before.
func TestRefusedPointsAreBrowsedRetriedAndDropped(t *testing.T) {
	t.Parallel()
	b := startBackends(t, 1)[0]
	b.exec(`CREATE DATABASE db`)
	through := b.proxied()
	in := install(t)
	require.NoError(t, in.WriteConfigURLs(through.URL()))
	in.startAPI()
	in.store("db", "m,t=a f=1 1\n")
	through.HandleAll(func(http.ResponseWriter, *http.Request) { harness.Hangup() })
	in.store("db", "m,t=a f=\"text\" 2\nm,t=b f=\"text\" 3\n")
	in.store("db", "n f=1 4\n")
	in.store("db", "m,t=c f=\"more\" 5\n")
	through.HandleAll(nil)

	var all []letter
	points := func() (n int) {
		all = in.letters()
		for _, l := range all {
			n += l.Points
		}
		return n
	}
	require.True(t, waitFor(t, func() bool { return points() == 3 }), "%+v", all)
	for _, l := range all {
		require.Equal(t, "points", l.Kind)
		require.Equal(t, "db", l.Database)
		require.Equal(t, through.URL(), l.Backend)
		require.Contains(t, l.Reason, "field type conflict")
		require.Empty(t, l.Body)
	}
	var whole letter
	require.NoError(t, in.Client.Get(in.context(), "/v1/dead-letters/"+all[0].ID, &whole))
	require.Contains(t, whole.Body, `m,t=a f="text" 2`)

	// As long as the conflict is there, nothing changes.
	res, body := in.do(http.MethodPost, "/v1/dead-letters/"+all[0].ID+"/retry", nil, `{"reason":"perhaps now"}`)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode, body)
	require.Contains(t, body, "field type conflict")
	require.Len(t, in.letters(), len(all))

	require.True(t, waitFor(t, func() bool { // it is refused as long as the backend has hints
		res, body := in.do(http.MethodPost, "/query?db=db&q=DROP+MEASUREMENT+m", nil, "")
		return res.StatusCode == http.StatusOK && !strings.Contains(body, "error")
	}))
	retried := 0
	for _, l := range all[:len(all)-1] {
		res, body := in.do(http.MethodPost, "/v1/dead-letters/"+l.ID+"/retry", nil, `{"reason":"the float is gone"}`)
		require.Equal(t, http.StatusAccepted, res.StatusCode, body)
		retried += l.Points
	}
	res, body = in.do(http.MethodDelete, "/v1/dead-letters/"+all[len(all)-1].ID, nil, "")
	require.Equal(t, http.StatusNoContent, res.StatusCode, body)
	require.Empty(t, in.letters())
	res, _ = in.do(http.MethodGet, "/v1/dead-letters/"+all[0].ID, nil, "")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	var counted struct {
		Results []struct{ Series []struct{ Values [][]any } }
	}
	require.NoError(t, json.Unmarshal([]byte(in.query(`SELECT count(f) FROM db..m`)), &counted))
	if retried == 0 {
		require.Empty(t, counted.Results[0].Series)
		return
	}
	require.InDelta(t, retried, counted.Results[0].Series[0].Values[0][1], 0)
}
