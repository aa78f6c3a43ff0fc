package influxproxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/pkg/httpapi/httpapitest"
)

// TestBadInputStartsNothing: the dialect's own sentence, and neither an
// operation nor a flag.
func TestBadInputStartsNothing(t *testing.T) {
	const rm = "/rebalance?circle_id=0&operation=rm"
	form, js := httpapitest.Form(), httpapitest.JSON()
	for _, example := range []struct {
		name, method, target, body string
		options                    []httpapitest.Option
		status                     int
		sentence                   string
	}{
		{name: "no circle", target: "/rebalance?operation=add", sentence: "invalid circle_id"},
		{name: "unknown circle", target: "/rebalance?circle_id=2&operation=add", sentence: "invalid circle_id"},
		{name: "negative circle", target: "/rebalance?circle_id=-1&operation=add", sentence: "invalid circle_id"},
		{name: "circle that is no number", target: "/rebalance?circle_id=one&operation=add", sentence: "invalid circle_id"},
		{name: "circle beyond all numbers", target: "/rebalance?circle_id=99999999999999999999&operation=add", sentence: "invalid circle_id"},
		{name: "no operation", target: "/rebalance?circle_id=0", sentence: "invalid operation"},
		{name: "bad operation", target: "/rebalance?circle_id=0&operation=move", sentence: "invalid operation"},
		{name: "rm without body", target: rm, sentence: "invalid backends from body"},
		{name: "rm with text", target: rm, body: "backends", options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with broken JSON", target: rm, body: `{"backends":[`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an array", target: rm, body: `[]`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm without backends", target: rm, body: `{}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with no backends", target: rm, body: `{"backends":[]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with null", target: rm, body: `{"backends":null}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an unknown key", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"}],"force":true}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with an unknown key of a backend", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","user":"x"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a sealed credential", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","sealed":"x"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with two objects", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"}]}{}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend without name", target: rm, body: `{"backends":[{"url":"http://h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend without URL", target: rm, body: `{"backends":[{"name":"a"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a URL of another kind", target: rm, body: `{"backends":[{"name":"a","url":"file:///etc/passwd"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with credentials in the URL", target: rm, body: `{"backends":[{"name":"a","url":"http://u:p@h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a backend twice", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1"},{"name":"b","url":"http://h:1"}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "rm with a wrong cipher text", target: rm, body: `{"backends":[{"name":"a","url":"http://h:1","username":"?","password":"?","auth_encrypt":true}]}`, options: []httpapitest.Option{js}, sentence: "invalid backends from body"},
		{name: "no cpus", target: "/rebalance?circle_id=0&operation=add&cpus=0", sentence: "invalid cpus"},
		{name: "negative cpus", target: "/rebalance?circle_id=0&operation=add&cpus=-1", sentence: "invalid cpus"},
		{name: "cpus that are no number", target: "/rebalance?circle_id=0&operation=add&cpus=many", sentence: "invalid cpus"},
		{name: "too many cpus", target: "/rebalance?circle_id=0&operation=add&cpus=1025", sentence: "invalid cpus"},
		{name: "bad worker", target: "/rebalance?circle_id=0&operation=add&worker=0", sentence: "invalid worker, require positive integer"},
		{name: "bad batch", target: "/rebalance?circle_id=0&operation=add&batch=0", sentence: "invalid batch, require positive integer"},
		{name: "bad limit", target: "/rebalance?circle_id=0&operation=add&limit=x", sentence: "invalid limit, require positive integer"},
		{name: "one address", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076", sentence: "ha_addrs should contain two addrs at least"},
		{name: "one address and a comma", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1:7076,", sentence: "ha_addrs should contain two addrs at least"},
		{name: "address without port", target: "/rebalance?circle_id=0&operation=add&ha_addrs=127.0.0.1,127.0.0.2", sentence: "invalid ha_addrs"},
		{name: "address with too large a port", target: "/rebalance?circle_id=0&operation=add&ha_addrs=a:1,b:65536", sentence: "invalid ha_addrs"},
		{name: "bad dry run", target: "/rebalance?circle_id=0&operation=add&dry_run=perhaps", sentence: "invalid dry_run"},
		{name: "empty database", target: "/rebalance?circle_id=0&operation=add&db=a,,b", sentence: "invalid db"},
		{name: "unreadable query", target: "/rebalance?circle_id=0&operation=add&db=%zz", sentence: "invalid query parameter"},
		{name: "unreadable form", target: "/rebalance?circle_id=0&operation=add", body: "db=%zz", options: []httpapitest.Option{form}, sentence: "invalid query parameter"},
		{name: "unreadable multipart form", target: "/rebalance?circle_id=0&operation=add", body: "x", options: []httpapitest.Option{httpapitest.Header("Content-Type", "multipart/form-data; boundary=b")}, sentence: "invalid query parameter"},
		{name: "multipart form without boundary", target: "/rebalance?circle_id=0&operation=add", body: "x", options: []httpapitest.Option{httpapitest.Header("Content-Type", "multipart/form-data")}, sentence: "invalid query parameter"},
		{name: "empty idempotency key", target: "/rebalance?circle_id=0&operation=add", options: []httpapitest.Option{httpapitest.Header("Idempotency-Key", "")}, sentence: "invalid idempotency key"},
		{name: "oversized body", target: rm, body: `{"backends":"` + strings.Repeat("x", 1<<20) + `"}`, options: []httpapitest.Option{js}, status: http.StatusRequestEntityTooLarge, sentence: "request body too large"},
		{name: "page of another site", target: "/rebalance?circle_id=0&operation=add", options: []httpapitest.Option{httpapitest.Header("Sec-Fetch-Site", "cross-site")}, status: http.StatusForbidden, sentence: "cross-origin request refused"},

		{name: "nothing to set", target: "/migrate/state", sentence: "missing query parameter"},
		{name: "bad resyncing", target: "/migrate/state?resyncing=perhaps", sentence: "illegal resyncing"},
		{name: "bad migrating", target: "/migrate/state?circle_id=0&migrating=perhaps", sentence: "illegal migrating"},
		{name: "no migrating", target: "/migrate/state?circle_id=0", sentence: "illegal migrating"},
		{name: "migrating without circle", target: "/migrate/state?migrating=true", sentence: "invalid circle_id"},
		{name: "migrating of an unknown circle", target: "/migrate/state?circle_id=7&migrating=true&resyncing=true", sentence: "invalid circle_id"},
		{name: "bad transferring", target: "/transfer/state?circle_id=0&transferring=perhaps", sentence: "illegal transferring"},
		{name: "migrating is a name of 2.4", target: "/transfer/state?migrating=true", sentence: "missing query parameter"},
		{name: "oversized state", target: "/migrate/state", body: "resyncing=true&x=" + strings.Repeat("x", 1<<20), options: []httpapitest.Option{form}, status: http.StatusRequestEntityTooLarge, sentence: "request body too large"},
		{name: "unreadable state", target: "/migrate/state?resyncing=true&x=%zz", sentence: "invalid query parameter"},

		{name: "stats without circle", method: "GET", target: "/migrate/stats?type=rebalance", sentence: "invalid circle_id"},
		{name: "stats of an unknown circle", method: "GET", target: "/migrate/stats?circle_id=9&type=rebalance", sentence: "invalid circle_id"},
		{name: "stats without type", method: "GET", target: "/migrate/stats?circle_id=0", sentence: "invalid stats type"},
		{name: "stats of an unknown type", method: "GET", target: "/transfer/stats?circle_id=0&type=reindex", sentence: "invalid stats type"},
		{name: "replica without db", method: "GET", target: "/replica?meas=cpu", sentence: "invalid db or meas"},
		{name: "replica without measurement", method: "GET", target: "/replica?db=db1", sentence: "invalid db or meas"},
		{name: "unreadable health", method: "GET", target: "/health?pretty=%zz", sentence: "invalid query parameter"},
		{name: "unreadable replica", method: "GET", target: "/replica?db=%zz", sentence: "invalid query parameter"},
		{name: "unreadable stats", method: "GET", target: "/migrate/stats?x=%zz", sentence: "invalid query parameter"},
		{name: "unreadable state query", method: "GET", target: "/transfer/state?x=%zz", sentence: "invalid query parameter"},

		{name: "recovery without circles", target: "/recovery", sentence: "invalid from_circle_id"},
		{name: "recovery from an unknown circle", target: "/recovery?from_circle_id=2&to_circle_id=1", sentence: "invalid from_circle_id"},
		{name: "recovery from a negative circle", target: "/recovery?from_circle_id=-1&to_circle_id=1", sentence: "invalid from_circle_id"},
		{name: "recovery from a word", target: "/recovery?from_circle_id=a&to_circle_id=1", sentence: "invalid from_circle_id"},
		{name: "recovery to nowhere", target: "/recovery?from_circle_id=0", sentence: "invalid to_circle_id"},
		{name: "recovery to an unknown circle", target: "/recovery?from_circle_id=0&to_circle_id=2", sentence: "invalid to_circle_id"},
		{name: "recovery to a word", target: "/recovery?from_circle_id=0&to_circle_id=1.0", sentence: "invalid to_circle_id"},
		{name: "recovery of a circle from itself", target: "/recovery?from_circle_id=1&to_circle_id=1", sentence: "from_circle_id and to_circle_id cannot be same"},
		{name: "recovery of an empty backend", target: "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=http://127.0.0.1:8088,,http://127.0.0.1:8089", sentence: "invalid backend_urls"},
		{name: "recovery of the other circle's backend", target: "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=http://127.0.0.1:8089,http://127.0.0.1:8086", sentence: `invalid backend_urls, circle 1 has no backend "http://127.0.0.1:8086"`},
		{name: "recovery of an unknown backend", target: "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=ftp://%C3%A9%0D%0AX", sentence: `invalid backend_urls, circle 1 has no backend "ftp://\u00e9\r\nX"`},
		{name: "recovery of a name", target: "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=influxdb-2-1", sentence: `invalid backend_urls, circle 1 has no backend "influxdb-2-1"`},
		{name: "clear without circle", target: "/clear", sentence: "invalid circle_id"},
		{name: "clear of an unknown circle", target: "/clear?circle_id=2", sentence: "invalid circle_id"},
		{name: "clear of a word", target: "/clear?circle_id=all", sentence: "invalid circle_id"},
		{name: "cleanup without circle", target: "/cleanup?db=db1", sentence: "invalid circle_id"},
		{name: "clear of no age", target: "/clear?circle_id=0&older_than_seconds=old", sentence: "invalid older_than_seconds, require non-negative integer"},
		{name: "clear of a negative age", target: "/clear?circle_id=0&older_than_seconds=-1", sentence: "invalid older_than_seconds, require non-negative integer"},
		{name: "clear of an age beyond all numbers", target: "/clear?circle_id=0&older_than_seconds=99999999999999999999", sentence: "invalid older_than_seconds, require non-negative integer"},
		{name: "clear beyond a hundred years", target: "/cleanup?circle_id=0&older_than_seconds=3162240001", sentence: "invalid older_than_seconds, require non-negative integer"},
		{name: "clear by counts", target: "/clear?circle_id=0&depth=count", sentence: "invalid depth"},

		{name: "encrypt unreadably", method: "GET", target: "/encrypt?msg=%zz", sentence: "invalid query parameter"},
		{name: "decrypt unreadably", method: "GET", target: "/decrypt?msg=%zz", sentence: "invalid query parameter"},
		{name: "decrypt without key", method: "GET", target: "/decrypt?msg=YgvEyuPZlDYAH8sGDkC!Ag", sentence: "invalid key"},
		{name: "decrypt with another key", method: "GET", target: "/decrypt?key=x&msg=YgvEyuPZlDYAH8sGDkC!Ag", sentence: "invalid key"},
		{name: "decrypt what is no cipher text", method: "GET", target: "/decrypt?key=consistentcipher&msg=admin", sentence: "invalid msg"},
		{name: "decrypt a part", method: "GET", target: "/decrypt?key=consistentcipher&msg=YgvEyuPZlDYA", sentence: "invalid msg"},

		{name: "unknown path", method: "GET", target: "/nothing", status: http.StatusNotFound, sentence: "404 page not found"},
		{name: "InfluxDB's path inside another dialect's", method: "GET", target: "/api/v2/write/x", status: http.StatusNotFound, sentence: "404 page not found"},
	} {
		t.Run(example.name, func(t *testing.T) {
			b := httpapitest.NewBackend()
			c := serve(t, b)
			if example.method == "" {
				example.method = "POST"
			}
			if example.status == 0 {
				example.status = http.StatusBadRequest
			}
			w := c.Do(example.method, example.target, example.body, example.options...)
			require.Equal(t, example.status, w.Status)
			require.Equal(t, example.sentence+"\n", w.Body)
			require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
			require.Empty(t, b.Submitted())
			require.Zero(t, b.FlagsSet)
		})
	}
}

// TestBadInputOfEveryVerb: what all verbs have in common, at each of them.
func TestBadInputOfEveryVerb(t *testing.T) {
	for _, call := range calls {
		for _, example := range []struct{ parameter, sentence string }{
			{"cpus=0", "invalid cpus"},
			{"cpus=-1", "invalid cpus"},
			{"cpus=many", "invalid cpus"},
			{"cpus=1025", "invalid cpus"},
			{"cpus=99999999999999999999", "invalid cpus"},
			{"worker=0", "invalid worker, require positive integer"},
			{"worker=1025", "invalid worker, require positive integer"},
			{"cpus=1&worker=x", "invalid worker, require positive integer"},
			{"batch=0", "invalid batch, require positive integer"},
			{"batch=1e3", "invalid batch, require positive integer"},
			{"batch=99999999999999999999", "invalid batch, require positive integer"},
			{"limit=0", "invalid limit, require positive integer"},
			{"ha_addrs=127.0.0.1:7076", "ha_addrs should contain two addrs at least"},
			{"ha_addrs=a:1,b", "invalid ha_addrs"},
			{"ha_addrs=a:1,b:65536", "invalid ha_addrs"},
			{"ha_addrs=a:1,b:123456", "invalid ha_addrs"},
			{"ha_addrs=a:1,%20b:2", "invalid ha_addrs"},
			{"db=a,,b", "invalid db"},
			{"dbs=a,+,b", "invalid dbs"},
			{"depth=deep", "invalid depth"},
			{"depth=COUNT", "invalid depth"},
			{"dry_run=perhaps", "invalid dry_run"},
			{"hold=perhaps", "invalid hold"},
			{"reason=" + strings.Repeat("x", 1001), "invalid reason, require at most 1000 bytes"},
			{"db=%zz", "invalid query parameter"},
			{"db=a;b", "invalid query parameter"},
		} {
			refused(t, call+"&"+example.parameter, "", example.sentence)
			if !strings.ContainsAny(example.parameter, "%;") {
				refused(t, call, example.parameter, example.sentence, httpapitest.Form())
			}
		}
		refused(t, call, "x=%zz", "invalid query parameter", httpapitest.Form())
		refused(t, call, "", "invalid idempotency key", httpapitest.Header("Idempotency-Key", ""))
		if strings.HasPrefix(call, "/rebalance") {
			continue
		}
		for _, body := range []string{`{"db":"db1"}`, `{"seconds":`, `[]`, `seconds=60`} {
			refused(t, call, body, "invalid body", httpapitest.JSON())
		}
		refused(t, call, `{"databases":["db1"]}`, "invalid body", httpapitest.Form())
	}
	for _, call := range []string{"/resync?db=a", "/recovery?from_circle_id=0&to_circle_id=1"} {
		for _, unit := range []string{"days", "hours", "minutes", "seconds"} {
			for _, n := range []string{"-1", "x", "1.5", "0x10", "3162240001", "9223372036854775807", "9223372036854775808", "99999999999999999999"} {
				refused(t, call+"&"+unit+"="+n, "", "invalid days, hours, minutes or seconds")
			}
		}
		refused(t, call+"&days=36600&hours=1", "", "invalid days, hours, minutes or seconds")
		refused(t, call+"&seconds=3162240000&minutes=1", "", "invalid days, hours, minutes or seconds")
		for _, n := range []string{"-1", "x", "2026-01-01T00:00:00Z", "9223372036", "9223372037", "9223372036854775807", "99999999999999999999"} {
			refused(t, call+"&since="+n, "", "invalid since, require non-negative integer")
		}
		refused(t, call+"&tick=-1", "", "invalid tick, require non-negative integer")
		refused(t, call+"&since=5&tick=x", "", "invalid tick, require non-negative integer")
		refused(t, call+"&since=5&seconds=1", "", "invalid since, cannot be given beside days, hours, minutes or seconds")
	}
	// What would delete more than was meant is not passed over.
	for _, name := range []string{"seconds", "days", "since", "dry-run", "DRY_RUN", "backend_urls", "older_than"} {
		for _, call := range []string{"/clear?circle_id=0", "/cleanup?circle_id=0"} {
			refused(t, call+"&"+name+"=60", "", fmt.Sprintf("unknown parameter: %q", name))
		}
	}
}

// refused asks and expects the sentence, with nothing submitted and nothing set.
func refused(t *testing.T, target, body, sentence string, options ...httpapitest.Option) {
	t.Helper()
	b := httpapitest.NewBackend()
	w := serve(t, b).Do("POST", target, body, options...)
	require.Equal(t, http.StatusBadRequest, w.Status, "%s %s", target, body)
	require.Equal(t, sentence+"\n", w.Body, "%s %s", target, body)
	require.Equal(t, sentence, w.Header.Get("X-Influxdb-Error"))
	require.Equal(t, "2.5.12", w.Header.Get("X-Influxdb-Version"))
	require.Empty(t, b.Submitted())
	require.Zero(t, b.FlagsSet)
}

// TestTheOrderOfRefusals: of several mistakes the one is told that influx-proxy
// finds first.
func TestTheOrderOfRefusals(t *testing.T) {
	for _, example := range []struct {
		call  string
		parts []string // each wrong, in the order of the checks
		told  []string
	}{
		{
			"/rebalance?",
			[]string{"circle_id=9", "operation=x", "cpus=0", "batch=0", "ha_addrs=a:1", "db=a,,b"},
			[]string{"invalid circle_id", "invalid operation", "invalid cpus", "invalid batch, require positive integer", "ha_addrs should contain two addrs at least", "invalid db"},
		},
		{
			"/recovery?",
			[]string{"from_circle_id=9", "to_circle_id=9", "seconds=x", "backend_urls=x", "cpus=0", "ha_addrs=a,b"},
			[]string{"invalid from_circle_id", "invalid to_circle_id", "invalid days, hours, minutes or seconds", `invalid backend_urls, circle 1 has no backend "x"`, "invalid cpus", "invalid ha_addrs"},
		},
		{
			"/resync?",
			[]string{"days=x", "worker=0", "limit=0", "ha_addrs=a:1", "dbs=a,,b", "dry_run=x"},
			[]string{"invalid days, hours, minutes or seconds", "invalid worker, require positive integer", "invalid limit, require positive integer", "ha_addrs should contain two addrs at least", "invalid dbs", "invalid dry_run"},
		},
		{
			"/clear?",
			[]string{"circle_id=9", "older_than_seconds=x", "cpus=0", "ha_addrs=a:1"},
			[]string{"invalid circle_id", "invalid older_than_seconds, require non-negative integer", "invalid cpus", "ha_addrs should contain two addrs at least"},
		},
	} {
		good := map[string]string{"circle_id=9": "circle_id=0", "operation=x": "operation=add", "from_circle_id=9": "from_circle_id=0", "to_circle_id=9": "to_circle_id=1"}
		for i, told := range example.told {
			query := slices.Clone(example.parts)
			for j, mended := range query[:i] {
				query[j] = good[mended]
			}
			refused(t, example.call+strings.Join(query, "&"), "", told)
		}
	}
	refused(t, "/rebalance?circle_id=0&operation=rm&cpus=0", "{}", "invalid backends from body", httpapitest.JSON())
	refused(t, "/recovery?from_circle_id=0&to_circle_id=0&cpus=0&seconds=x", "", "from_circle_id and to_circle_id cannot be same")
}
