package integration_test

import (
	"net/http"
	"net/url"
	"strings"
)

// protocolExchanges are about HTTP: what is asked how, and which headers come back.
func protocolExchanges() []exchange {
	raw := func(method, path, query, contentType, body string) exchange {
		return exchange{method: method, path: path, query: query, contentType: contentType, body: body}
	}
	form := "application/x-www-form-urlencoded"
	multipart := "multipart/form-data; boundary=xxx"
	part := func(disposition, text string) string {
		return "--xxx\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + text + "\r\n"
	}
	const small = "SELECT value FROM cpu WHERE host = 'a' LIMIT 1"
	return []exchange{
		ask(small).with("X-Request-Id: given"), ask(small).with("Request-Id: given"),
		ask(small).with("X-Request-Id: one").with("Request-Id: two"),
		write("db=d", "").with("X-Request-Id: given"), ask("SELECT").with("Request-Id: given"),
		ask(small).with("Origin: http://example.com"), write("db=d", "").with("Origin: http://example.com"),
		raw(http.MethodOptions, "/query", "", "", "").with("Origin: http://example.com"), raw(http.MethodOptions, "/write", "", "", ""),
		ask(small).with("Accept-Encoding: gzip"), ask("SELECT * FROM cpu, mem").with("Accept-Encoding: gzip"), ask("SELECT").with("Accept-Encoding: gzip"),
		write("db=nodb", "m v=1").with("Accept-Encoding: gzip"),
		ask(""), post(""), ask("   "), ask("; ;"), ask("-- a comment"), ask("/* a comment */ SHOW DATABASES"),
		raw(http.MethodPost, "/query", url.Values{"q": {small}, "db": {"d"}}.Encode(), "", ""),
		raw(http.MethodPost, "/query", url.Values{"q": {small}, "db": {"d"}}.Encode(), form, "epoch=ms"),
		raw(http.MethodPost, "/query", "q=SHOW+DATABASES", form, "q=SHOW+MEASUREMENTS&db=d"),
		raw(http.MethodPost, "/query", "epoch=ms", form, url.Values{"q": {small}, "db": {"d"}, "epoch": {"s"}}.Encode()),
		raw(http.MethodPost, "/query", "", "text/plain", small), raw(http.MethodPost, "/query", "db=d", "application/json", `{"q":"SHOW DATABASES"}`),
		raw(http.MethodPost, "/query", "", form, "q=%zz&db=d"), raw(http.MethodGet, "/query", "q=%zz", "", ""),
		raw(http.MethodPost, "/query", "", "not a/type;;", "q=SHOW+DATABASES"),
		raw(http.MethodPost, "/query", "", multipart, part(`name="q"`, small)+part(`name="db"`, "d")+"--xxx--\r\n"),
		raw(http.MethodPost, "/query", "db=d", multipart, part(`name="q"; filename="a.iql"`, small)+"--xxx--\r\n"),
		raw(http.MethodPut, "/query", "q=SHOW+DATABASES", "", ""), raw(http.MethodDelete, "/write", "db=d", "", ""),
		raw(http.MethodGet, "/write", "db=d", "", ""), raw(http.MethodHead, "/query", "q=SHOW+DATABASES", "", ""),
		raw(http.MethodGet, "/api/v2/write", "bucket=d", "", ""), raw(http.MethodGet, "/api/v1/prom/read", "db=d", "", ""),
		raw(http.MethodGet, "/api/v2/query", "", "", ""),
		raw(http.MethodPost, "/api/v2/query", "", "application/vnd.flux", `from(bucket:"d") |> range(start: 2024-01-01T00:00:00Z)`),
		raw(http.MethodPost, "/api/v2/query", "", "application/json", `{"query":"from(bucket:\"d\")"}`),
	}
}

// readExchanges are SELECTs of every kind.
func readExchanges() []exchange {
	statements := `
SELECT * FROM cpu
SELECT value FROM cpu WHERE host = 'a' AND time >= {0h} AND time < {2h}
SELECT value, n FROM cpu GROUP BY host
SELECT value FROM cpu GROUP BY *
SELECT value FROM cpu GROUP BY host, zone ORDER BY time DESC LIMIT 2
SELECT value FROM cpu ORDER BY time DESC LIMIT 3 OFFSET 1
SELECT value FROM cpu GROUP BY host SLIMIT 1 SOFFSET 1
SELECT value + n AS total, value * 2 FROM cpu WHERE host = 'b'
SELECT value / 0 FROM cpu LIMIT 2
SELECT n % 3, n & 1, n | 4, n ^ 5 FROM cpu WHERE host = 'c'
SELECT * FROM d.weekly.cpu
SELECT * FROM weekly.cpu, d.autogen.cpu
SELECT * FROM d..cpu
SELECT * FROM e..cpu
SELECT * FROM "odd name"..m
SELECT late FROM cpu
SELECT host, value FROM cpu LIMIT 2
SELECT host FROM cpu
SELECT nosuch FROM cpu
SELECT nosuch, value FROM cpu LIMIT 1
SELECT value::integer FROM cpu LIMIT 2
SELECT n::float, host::tag, value::field FROM cpu LIMIT 2
SELECT *::field FROM cpu LIMIT 2
SELECT *::tag, value FROM cpu LIMIT 2
SELECT /val|n/ FROM cpu LIMIT 2
SELECT time, value FROM cpu LIMIT 2
SELECT time AS t, value FROM cpu LIMIT 2
SELECT value FROM cpu WHERE up = true
SELECT value FROM cpu WHERE word = 'w2'
SELECT value FROM cpu WHERE word =~ /w[12]/
SELECT value FROM cpu WHERE host =~ /^(a|b)$/ AND zone !~ /z1/
SELECT value FROM cpu WHERE host != 'a' OR value > 3
SELECT value FROM cpu WHERE (value > 1 AND value < 4) AND (host = 'a' OR host = 'c')
SELECT value FROM cpu WHERE nosuch = ''
SELECT value FROM cpu WHERE time > {1h} OR host = 'a'
SELECT value FROM cpu WHERE time > now()
SELECT value FROM cpu WHERE time > now() - 100000d LIMIT 1
SELECT value FROM cpu WHERE time = {0h}
SELECT value FROM cpu WHERE time > 'yesterday'
SELECT value FROM cpu WHERE time > '2024-01-01' AND time < '2024-01-01 01:00:00'
SELECT value FROM cpu WHERE time >= 1704067200000ms AND time < 1704067200000ms + 30m
SELECT value FROM cpu WHERE host = 'a' tz('Europe/Berlin')
SELECT value FROM cpu tz('Nowhere/Land')
SELECT count(value), mean(value), max(n), min(n), sum(n) FROM cpu
SELECT count(*) FROM cpu
SELECT mean(*) FROM cpu GROUP BY host
SELECT first(value), last(value) FROM cpu
SELECT last(*) FROM cpu
SELECT max(value) FROM cpu GROUP BY zone
SELECT median(value), mode(word), spread(n), stddev(value) FROM cpu
SELECT percentile(value, 50), integral(value) FROM cpu
SELECT distinct(word) FROM cpu
SELECT DISTINCT host FROM cpu
SELECT count(distinct(word)) FROM cpu
SELECT top(value, 2) FROM cpu
SELECT top(value, host, 2) FROM cpu
SELECT bottom(n, 3), word FROM cpu
SELECT sample(value, 1000) FROM cpu WHERE host = 'a'
SELECT derivative(value, 1h) FROM cpu WHERE host = 'a'
SELECT non_negative_derivative(mean(value), 1h) FROM cpu WHERE time >= {0h} AND time < {4h} GROUP BY time(1h)
SELECT difference(value), elapsed(value, 1s), cumulative_sum(n) FROM cpu WHERE host = 'a'
SELECT moving_average(value, 2) FROM cpu WHERE host = 'a'
SELECT exponential_moving_average(value, 2) FROM cpu WHERE host = 'a'
SELECT holt_winters(mean(value), 3, 2) FROM cpu WHERE time >= {0h} AND time < {3h} GROUP BY time(30m)
SELECT histogram(value) FROM cpu
SELECT abs(value), round(value), pow(value, 2), ln(value), atan2(value, n) FROM cpu WHERE host = 'a' LIMIT 3
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {4h} GROUP BY time(1h)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {6h} GROUP BY time(1h), host fill(0)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {6h} GROUP BY time(1h) fill(previous)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {6h} GROUP BY time(1h) fill(linear)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {6h} GROUP BY time(1h) fill(none)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {6h} GROUP BY time(1h, 15m)
SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {200h} GROUP BY time(1d) tz('America/New_York')
SELECT mean(value) FROM cpu GROUP BY time(1h)
SELECT value FROM cpu GROUP BY time(1h)
SELECT mean(value), value FROM cpu
SELECT nofunction(value) FROM cpu
SELECT mean(value, 3) FROM cpu
SELECT mean(word) FROM cpu
SELECT percentile(value) FROM cpu
SELECT value FROM nosuch
SELECT value FROM nodb..cpu
SELECT value FROM d.norp.cpu
SELECT value FROM nodb..cpu, nodb..mem
SELECT mean(v) FROM (SELECT mean(value) AS v FROM cpu GROUP BY host)
SELECT max(v) FROM (SELECT value - n AS v FROM cpu WHERE host = 'a') WHERE v < 3
SELECT * FROM (SELECT value, host FROM cpu) WHERE host = 'b' LIMIT 2
SELECT sum(m) FROM (SELECT max(value) AS m FROM cpu GROUP BY time(1h), host fill(none)) WHERE time >= {0h} AND time < {3h} GROUP BY time(2h)
SELECT * FROM cpu, mem
SELECT * FROM cpu, mem, disk, net, swap, load LIMIT 1
SELECT value FROM swap, cpu, mem ORDER BY time DESC LIMIT 2
SELECT value, late FROM cpu, tnone, mem LIMIT 2
SELECT mean(value) FROM cpu, mem, disk GROUP BY host
SELECT mean(value) FROM /cpu|mem|disk/ GROUP BY zone
SELECT mean(value), count(n) FROM /^[cmd].*/ WHERE time >= {0h} AND time < {4h} GROUP BY time(1h), host fill(0) LIMIT 3
SELECT count(*) FROM /.*/
SELECT * FROM /.*/ LIMIT 1
SELECT * FROM /.*/ GROUP BY * LIMIT 1
SELECT * FROM /.*/ GROUP BY * ORDER BY time DESC LIMIT 1
SELECT last(value) FROM /.*/ GROUP BY host
SELECT value FROM /nothing/
SELECT value FROM /cpu|mem/ WHERE host = 'a' SLIMIT 1
SELECT value FROM /cpu|mem/ GROUP BY host SLIMIT 2 SOFFSET 2 LIMIT 1
SELECT value FROM /cpu|mem|disk|net/ GROUP BY host ORDER BY time DESC SLIMIT 3 SOFFSET 1 LIMIT 1
SELECT v FROM tfloat, tint
SELECT v FROM tint, tfloat, tstring, tbool
SELECT v FROM tstring, tint
SELECT v FROM /^t/
SELECT v, w FROM tint, tfloat
SELECT v::float FROM tint, tfloat
SELECT v::integer FROM tint, tfloat
SELECT v::string FROM tint, tstring
SELECT v + 1 FROM tint, tfloat
SELECT v / 2 FROM tint, tfloat
SELECT sum(v) FROM tint, tfloat
SELECT mean(v), max(v) FROM tint, tfloat
SELECT count(v) FROM /^t/
SELECT last(v) FROM /^t/
SELECT first(v) FROM tbool, tstring
SELECT mode(v) FROM /^t/
SELECT distinct(v) FROM /^t/
SELECT top(v, 1) FROM tint, tfloat
SELECT * FROM tmixed
SELECT v FROM tmixed, tint
SELECT v FROM tint, tfloat WHERE v > 1
SELECT v FROM /^t/ WHERE v = 's1'
SELECT v, kind FROM ctag, cfield
SELECT kind FROM ctag, cfield
SELECT kind, v FROM cfield, cnum
SELECT * FROM ctag, cfield, cnum
SELECT v FROM ctag, cfield WHERE kind = 'k1'
SELECT v FROM ctag, cfield GROUP BY kind
SELECT v FROM /^c/ WHERE kind = 'f1' GROUP BY host
SELECT kind::tag, v FROM ctag, cfield
SELECT kind::field, v FROM ctag, cfield
SELECT max(v) FROM (SELECT v FROM tint, tfloat)
SELECT mean(m) FROM (SELECT max(value) AS m FROM cpu, mem, disk GROUP BY host)
SELECT m FROM (SELECT max(value) AS m FROM cpu), (SELECT min(value) AS m FROM mem)
SELECT * FROM (SELECT value FROM cpu), mem LIMIT 2
SELECT sum(m) FROM (SELECT mean(value) AS m FROM /cpu|mem/ GROUP BY time(1h), host) WHERE time >= {0h} AND time < {3h} GROUP BY time(1h)
SELECT value FROM d..cpu, e..job
SELECT value FROM cpu, weekly.own
SELECT value FROM "with space", "with,comma", with, "with-x"
SELECT value FROM "quo\"te", "single'q", "Ünï", "select"
SELECT value FROM "_under"
SELECT value FROM /_under/
SELECT value FROM "a.b", "m=eq", "line/x"
SELECT value FROM cpu, mem WHERE time > now() - 100000d AND time < now() GROUP BY host LIMIT 1
SELECT value FROM cpu, mem tz('Asia/Tokyo') LIMIT 1
SELECT value FROM cpu, mem LIMIT 1 tz('Asia/Tokyo')
SELECT nofunction(value) FROM cpu, mem
SELECT mean(value), value FROM cpu, mem
SELECT value FROM cpu, nosuch, mem LIMIT 1
SELECT value FROM cpu, nodb..mem
SELECT value FROM cpu, mem WHERE host = $host
SELECT leaves FROM cpu, mem
SELECT lost FROM cpu
SELECT v FROM tfloat
SELECT * FROM leftover
SELECT gone FROM /cpu|mem/
SELECT value FROM cpu WHERE host = 'left'
EXPLAIN SELECT value FROM cpu WHERE host = 'a'
EXPLAIN SELECT mean(value) FROM cpu GROUP BY host
EXPLAIN SELECT value FROM nosuch
EXPLAIN SELECT nofunction(value) FROM cpu
SELECT value FORM cpu
SELECT FROM cpu
SELECT value FROM cpu WHERE
SELECT value FROM cpu LIMIT -1
SELECT value FROM cpu LIMIT x
SELECT 'text' FROM cpu
SELECT value FROM "cpu
SELECT value FROM cpu GROUP BY time(0s)
SELECT value FROM cpu WHERE host = a b
INSERT cpu value=1
`
	var all []exchange
	for line := range strings.Lines(strings.TrimSpace(statements)) {
		q := strings.TrimSpace(line)
		all = append(all, ask(q))
	}
	return append(all,
		ask("SELECT value FROM d..cpu, e..cpu").except(databasesDiffer, answers(http.StatusOK, "ask for one database at a time")),
	)
}

// schemaExchanges ask what there is.
func schemaExchanges() []exchange {
	statements := `
SHOW DATABASES
SHOW MEASUREMENTS
SHOW MEASUREMENTS ON e
SHOW MEASUREMENTS ON nodb
SHOW MEASUREMENTS LIMIT 3
SHOW MEASUREMENTS LIMIT 3 OFFSET 2
SHOW MEASUREMENTS OFFSET 2
SHOW MEASUREMENTS OFFSET 1000
SHOW MEASUREMENTS WITH MEASUREMENT = cpu
SHOW MEASUREMENTS WITH MEASUREMENT =~ /^t/
SHOW MEASUREMENTS WHERE host = 'a'
SHOW MEASUREMENTS WHERE host =~ /[ab]/ AND zone = 'z1'
SHOW MEASUREMENTS WHERE nosuch = 'x'
SHOW MEASUREMENTS WITH MEASUREMENT =~ /cpu|mem/ WHERE host = 'b' LIMIT 1
SHOW TAG KEYS
SHOW TAG KEYS ON e
SHOW TAG KEYS FROM cpu
SHOW TAG KEYS FROM cpu, mem, weekly.own
SHOW TAG KEYS FROM /^c/
SHOW TAG KEYS WHERE host = 'a'
SHOW TAG KEYS LIMIT 1
SHOW TAG KEYS LIMIT 1 OFFSET 1
SHOW TAG KEYS FROM nosuch
SHOW TAG KEYS WITH KEY = host
SHOW TAG VALUES WITH KEY = host
SHOW TAG VALUES ON e WITH KEY = host
SHOW TAG VALUES FROM cpu WITH KEY = host
SHOW TAG VALUES FROM cpu, mem WITH KEY IN (host, zone)
SHOW TAG VALUES FROM /cpu|mem/ WITH KEY =~ /ho|zo/ LIMIT 2
SHOW TAG VALUES WITH KEY != host
SHOW TAG VALUES WITH KEY !~ /ho/
SHOW TAG VALUES WITH KEY = host WHERE zone = 'z0'
SHOW TAG VALUES WITH KEY = host LIMIT 2 OFFSET 1
SHOW TAG VALUES WITH KEY = nosuch
SHOW TAG VALUES
SHOW FIELD KEYS
SHOW FIELD KEYS ON e
SHOW FIELD KEYS FROM cpu
SHOW FIELD KEYS FROM tmixed
SHOW FIELD KEYS FROM cpu, mem, nosuch
SHOW FIELD KEYS FROM /^t/
SHOW FIELD KEYS LIMIT 2
SHOW FIELD KEYS LIMIT 2 OFFSET 1
SHOW SERIES
SHOW SERIES ON e
SHOW SERIES FROM cpu
SHOW SERIES FROM cpu, mem WHERE host = 'a'
SHOW SERIES FROM /with/
SHOW SERIES WHERE host =~ /a|b/ LIMIT 5
SHOW SERIES LIMIT 3 OFFSET 4
SHOW SERIES LIMIT 1000 OFFSET 2
SHOW SERIES WHERE time > {0h}
SHOW SERIES FROM cpu WHERE time > {1000h}
SHOW SERIES CARDINALITY
SHOW SERIES EXACT CARDINALITY
SHOW SERIES EXACT CARDINALITY FROM cpu
SHOW SERIES CARDINALITY FROM /cpu|mem/
SHOW SERIES EXACT CARDINALITY FROM cpu, mem WHERE host = 'a'
SHOW SERIES CARDINALITY ON e
SHOW MEASUREMENT CARDINALITY
SHOW MEASUREMENT EXACT CARDINALITY
SHOW MEASUREMENT EXACT CARDINALITY FROM /cpu|mem/
SHOW MEASUREMENT CARDINALITY ON e
SHOW TAG KEY CARDINALITY
SHOW TAG KEY EXACT CARDINALITY FROM cpu, mem
SHOW TAG VALUES CARDINALITY WITH KEY = host
SHOW TAG VALUES EXACT CARDINALITY FROM cpu, mem WITH KEY = host
SHOW FIELD KEY CARDINALITY
SHOW FIELD KEY EXACT CARDINALITY FROM /cpu|mem/
SHOW RETENTION POLICIES
SHOW RETENTION POLICIES ON e
SHOW RETENTION POLICIES ON nodb
SHOW TAG KEYS FROM d..cpu, d..mem
SHOW
SHOW NOTHING
SHOW MEASUREMENTS LIMIT
SHOW TAG VALUES FROM cpu WITH KEY
`
	var all []exchange
	for line := range strings.Lines(strings.TrimSpace(statements)) {
		all = append(all, ask(strings.TrimSpace(line)))
	}
	return append(all,
		ask("SHOW MEASUREMENTS", "db="), ask("SHOW TAG KEYS", "db=nodb"), ask("SHOW FIELD KEYS", "db="), ask("SHOW SERIES", "db=nodb"),
		ask("SELECT value FROM cpu", "db="), ask("SELECT value FROM cpu", "db=nodb"), ask("SELECT value FROM cpu, mem", "db=nodb"),
		ask("SELECT value FROM cpu, mem", "db="), ask("SELECT value FROM cpu", "rp=weekly"), ask("SELECT value FROM cpu, mem", "rp=norp"),
		ask("SELECT m FROM /.*/", "db=odd name"),
	)
}

// formExchanges ask for answers in every form.
func formExchanges() []exchange {
	var all []exchange
	for _, q := range []string{
		"SELECT value, n, word, up FROM cpu WHERE host = 'a'",
		"SELECT value, n, word, up, late FROM cpu, mem, disk GROUP BY host",
		"SHOW TAG VALUES WITH KEY = host",
		"SELECT value FROM nosuch",
		"SELECT value FROM cpu; SELECT nofunction(v) FROM mem; SHOW DATABASES",
	} {
		for _, epoch := range []string{"ns", "u", "µ", "ms", "s", "m", "h", "x"} {
			all = append(all, ask(q, "epoch="+epoch))
		}
		for _, more := range []string{
			"pretty=true", "chunked=true", "chunked=true chunk_size=4", "chunked=true chunk_size=1 pretty=true", "chunked=true chunk_size=0", "chunked=yes",
			"chunk_size=3",
		} {
			for _, accept := range []string{"", "application/csv", "text/csv", "application/x-msgpack", "application/json", "text/html, application/csv;q=0.5", "image/png"} {
				x := post(q, strings.Fields(more)...)
				x.query = "pretty=" + map[bool]string{true: "true", false: "false"}[strings.Contains(more, "pretty=true")]
				if accept != "" {
					x = x.with("Accept: " + accept)
				}
				all = append(all, x)
			}
		}
	}
	return all
}

// severalExchanges are requests of several statements, and with bound parameters.
func severalExchanges() []exchange {
	const bound = "SELECT value FROM cpu, mem WHERE host = $host AND value > $v LIMIT 2"
	return []exchange{
		ask("SELECT value FROM cpu LIMIT 1; SELECT value FROM mem LIMIT 1; SELECT value FROM disk LIMIT 1"),
		ask("SELECT value FROM cpu, mem LIMIT 1; SHOW MEASUREMENTS LIMIT 2; SHOW DATABASES"),
		ask("SELECT value FROM cpu LIMIT 1;"), ask(";SELECT value FROM cpu LIMIT 1"), ask("SELECT value FROM cpu LIMIT 1 SELECT value FROM mem LIMIT 1"),
		ask("SELECT value FROM nodb..cpu; SELECT value FROM cpu LIMIT 1"),
		ask("SELECT value FROM cpu LIMIT 1; SELECT value FROM nodb..cpu; SELECT value FROM cpu LIMIT 1; SHOW DATABASES"),
		ask("SELECT nofunction(value) FROM cpu; SHOW DATABASES"), ask("SHOW DATABASES; SELECT value FORM cpu"),
		ask("SHOW DATABASES; SELECT value FROM cpu LIMIT 1; SHOW MEASUREMENTS LIMIT 1", "chunked=true"),
		ask("SELECT value FROM cpu LIMIT 3; SELECT value FROM mem, cpu LIMIT 3; SHOW DATABASES", "chunked=true", "chunk_size=2"),
		post("SHOW DATABASES; SELECT * FROM cpu, mem LIMIT 1; SELECT * FROM nosuch").with("Accept: application/csv"),
		post("SHOW DATABASES; SELECT * FROM cpu, mem LIMIT 1; SELECT * FROM nosuch").with("Accept: application/x-msgpack"),
		ask(bound, `params={"host":"a","v":1}`), ask(bound, `params={"host":"a","v":1.5}`), post(bound, `params={"host":"b","v":2}`),
		ask(bound, `params={"host":"a"}`), ask(bound, `params={`), ask(bound, `params=[]`), ask(bound, `params=`), ask(bound, `params={"host":7,"v":"x"}`),
		ask("SELECT value FROM cpu WHERE time < $t LIMIT 1", `params={"t":"2025-01-01T00:00:00Z"}`),
		ask("SELECT mean(value) FROM cpu, mem WHERE host =~ $h", `params={"h":{"regex":"a|b"}}`),
		ask("SELECT $f FROM cpu LIMIT 1", `params={"f":{"identifier":"value"}}`),
		ask("SELECT mean(value) FROM cpu WHERE time >= {0h} AND time < {3h} GROUP BY time($i)", `params={"i":{"duration":"1h"}}`),
		ask("SELECT value FROM cpu, mem WHERE n > $n LIMIT 1", `params={"n":{"integer":2}}`), ask("SELECT value FROM cpu WHERE host = $h", `params={"h":{"nothing":1}}`),
		ask("SELECT value FROM cpu WHERE up = $b LIMIT 1", `params={"b":true}`), ask("SELECT value FROM cpu WHERE up = $b LIMIT 1", `params={"b":null}`),
		ask("SHOW TAG VALUES WITH KEY = host WHERE zone = $z LIMIT 1", `params={"z":"z0"}`),
		ask("SHOW MEASUREMENTS LIMIT 1", "async=true"), post("SELECT value FROM cpu, mem LIMIT 1", "async=true"),
	}
}
