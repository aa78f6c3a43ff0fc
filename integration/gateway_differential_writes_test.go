package integration_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/klauspost/compress/snappy"
)

// writeExchanges are good and bad writes, each followed by what has come of it.
func writeExchanges() []exchange {
	all := []exchange{
		post("CREATE DATABASE w"), post("CREATE RETENTION POLICY r ON w DURATION INF REPLICATION 1"),
		post("CREATE DATABASE refused"), post("CREATE RETENTION POLICY short ON w DURATION 1h REPLICATION 1"),
	}
	add := func(query, lines string) { all = append(all, write(query, lines)) }
	const db = "db=w"
	// What InfluxDB takes.
	add(db, "plain,t=a v=1 {0h#}")
	add(db, "plain,t=a v=2 {0h#}\nplain,t=a v=3 {0h#}")
	add(db, "a v=1,i=1i,s=\"text\",b=true {0h#}\nb v=1,i=-1i,s=\"te\\\"xt\",b=F {0h#}\nc v=1e3,i=9223372036854775807i,s=\"\",b=t {0h#}\n")
	add(db, "\n\n# a comment\n   \na v=2 {1h#}\r\n\n  b v=2 {1h#}\n#c v=9 {1h#}\n")
	add(db, `sp\ ace,ta\ g=va\,l\=ue,k=ü f\ ield=1,"q"=2 {0h#}`)
	add(db, "multi v=\"line one\nline two\" {0h#}\nmulti v=\"x\" {1h#}")
	add(db, "tags,b=2,a=1,c=3 v=1 {0h#}\ntags,c=3,b=2,a=1 v=2 {0h#}")
	add(db, "edge v=1 -9223372036854775806\nedge v=2 9223372036854775806")
	add(db, "floats a=0.1,b=-0,c=1E-300,d=.5,e=5.,f=123456789.123456789 {0h#}")
	add(db+"&rp=r", "inpolicy,t=a v=1 {0h#}\na v=7 {0h#}")
	add(db+"&precision=s", "seconds,t=a v=1 1704067200\nseconds v=1 1704067201")
	add(db+"&precision=ms", "millis,t=a v=1 1704067200123")
	add(db+"&precision=u", "micros,t=a v=1 1704067200123456")
	add(db+"&precision=m", "minutes,t=a v=1 28401120")
	add(db+"&precision=h", "hoursof,t=a v=1 473352")
	add(db+"&precision=n", "nanos,t=a v=1 1704067200123456789")
	add(db+"&precision=", "nanos,t=b v=1 1704067200123456789")
	add(db+"&consistency=all", "consistent v=1 {0h#}")
	add(db+"&consistency=nonsense", "consistent v=2 {1h#}")
	add(db, "")
	add(db, "\n\n")
	add(db, "# only a comment\n")
	all = append(all, write(db, "packed,t=a v=1 {0h#}\npacked2 v=1 {0h#}\n").zipped(), write(db, "not packed").with("Content-Encoding: gzip"))
	// What it does not.
	add("", "a v=1 {0h#}")
	add("db=nodb", "a v=1 {0h#}")
	add("db=nodb", "not a line")
	add("db=nodb", "")
	add(db+"&rp=norp", "a v=1 {0h#}")
	add(db+"&rp=norp", "")
	add(db+"&precision=d", "odd v=1 {0h#}")
	for _, bad := range []string{
		"a", "a v", "a v=", "a =1 {0h#}", "a,=x v=1", "a,t v=1", "a,t= v=1", ",t=x v=1", "a v=1i2 {0h#}", "a v=1.2.3", "a v=nan", "a v=\"open", "a v=tru {0h#}",
		"a v=1 12x", "a v=1 {0h#} 5", "a  v=1", "a v=1,", "a v=1,,w=2", "a v=9223372036854775808i {0h#}", "a v=1u {0h#}", "a,t=1,t=2 v=1 {0h#}", "a v=1 9223372036854775807",
		"a v=1 99999999999999999999", "a,time=x v=1 {0h#}", "a time=1 {0h#}", "a time=1,v=2 {2h#}", "a,_field=x v=1 {0h#}", "a,_measurement=x v=1 {0h#}", `a\,b`, "a v='x'",
		"a v=1e400 {0h#}", "a v=0x10 {0h#}", "{\"json\":1}", "a,t=\x00 v=1 {0h#}", "a\xff v=1 {0h#}", "a v=1i,v=2 {0h#}", "a v==1", "a,t=x,u v=1", "\\ v=1 {0h#}", "a\tb v=1 {3h#}",
	} {
		add(db, bad)
		add(db, "fine,bad=no v=1 {0h#}\n"+bad+"\nother v=1 {0h#}")
	}
	add(db, "bad1\nbad2 \na v=5 {5h#}\nbad3 v=\n")
	add(db+"&precision=s", "a v=1 1704067200x\na v=8 1704067260")
	// Types.
	add(db, "typed,t=a v=1 {0h#}\ntypedi v=1i {0h#}\ntypeds v=\"s\" {0h#}\ntypedb v=true {0h#}")
	for _, v := range []string{"1", "1i", `"s"`, "true"} {
		for _, m := range []string{"typed,t=a", "typedi", "typeds", "typedb"} {
			add(db, fmt.Sprintf("%s v=%s {1h#}", m, v))
		}
	}
	add(db, "typed,t=a v=\"no\" {2h#}\ntyped,t=a v=3 {2h#}\na v=11 {2h#}\nb v=11 {2h#}")
	add(db, "typedi v=1.5 {3h#}\ntypeds v=1 {3h#}\ntypedb v=1i {3h#}\ntyped v=true {3h#}\nplain v=4 {3h#}")
	add(db, "typedi v=1.5 {4h#}\ntypedi v=2.5 {4h#}\ntypedi v=5i {4h#}")
	add(db, "fresh v=1 {0h#}\nfresh v=1i {1h#}")
	add(db, "fresh v=1 {0h#}")
	add("db=refused", "fresh2 v=1 {0h#}\nbystander v=1 {0h#}\nfresh2 v=\"x\" {0h#}\nbystander2 v=1 {0h#}")
	add(db, "fresh3,t=a v=1,w=2 {0h#}\nfresh3,t=b v=1i,w=2 {0h#}\nplain v=5 {5h#}")
	add(db, "typed,t=a v=1i {200h#}")
	add(db, "typed,t=a v=7 {201h#}\nplain v=6 {200h#}")
	// Beyond the retention policy.
	add(db+"&rp=short", "old v=1 {0h#}")
	add(db+"&rp=short", "old v=1 {0h#}\nolder v=1 {0h#}\nold v=2 {1h#}")
	add(db+"&rp=short", "old v=1\nold v=2 {1h#}\nnew v=1")
	all = append(all, ask("SELECT count(v) FROM short.old, short.new", "db=w"))
	// Without a time.
	add(db, "clock v=1\nclock,t=a v=2\nclock2 v=3")
	add(db+"&precision=s", "clocks v=1")
	all = append(all,
		ask("SELECT count(v) FROM /clock/", "db=w"),
		ask("SELECT * FROM /.*/ WHERE time < {100000h} GROUP BY *", "db=w", "epoch=ns").equally(anyTime),
		ask("SELECT * FROM r./.*/ GROUP BY *", "db=w").except(tagsDiffer, answers(http.StatusOK, `"values":[["2024-01-01T00:00:00Z",7]]`)),
		ask("SELECT * FROM r./.*/", "db=w").except(tagsDiffer, answers(http.StatusOK, `,7]]`)),
		ask("SELECT v FROM r./.*/ GROUP BY t", "db=w"), ask("SELECT * FROM /.*/", "db=refused"),
		ask("SHOW SERIES", "db=refused").except(leftoversDiffer, answers(http.StatusOK, "fresh2")),
		ask("SHOW FIELD KEYS", "db=refused").except(leftoversDiffer, answers(http.StatusOK, "fresh2")),
		ask("SHOW FIELD KEYS", "db=w"), ask("SHOW SERIES", "db=w"), ask("SHOW TAG VALUES WITH KEY =~ /.*/", "db=w"),
		write("db=w&u=nobody&p=x", "a v=1 {9h#}"), write("db=w&pretty=true", "bad"), write("db=w", "bad").with("Accept: application/csv"),
		write("db=w", "bad").with("Accept: application/x-msgpack"), write("db=w", strings.Repeat("long v=1 {0h#}\n", 500)),
		write("db=w", "key,t="+strings.Repeat("x", 66000)+" v=1 {0h#}"),
	)
	return all
}

// writeV2Exchanges are writes as clients of InfluxDB 2 make them.
func writeV2Exchanges() []exchange {
	v2 := func(query, lines string) exchange {
		x := write(query, lines)
		x.path = "/api/v2/write"
		return x
	}
	return []exchange{
		v2("bucket=w", "two v=1 {0h#}"), v2("bucket=w/", "two v=1 {1h#}"), v2("bucket=w/r&org=any", "two v=1 {0h#}"), v2("bucket=w/r&precision=s", "two v=2 1704067200"),
		v2("bucket=w&precision=us", "two v=3 1704067200000001"), v2("bucket=w&precision=ms", "two v=3 1704067200002"), v2("bucket=w&precision=ns", "two v=4 3"),
		v2("bucket=w&precision=h", "two v=5 1"), v2("bucket=w&precision=u", "two v=5 1"), v2("", "two v=1"), v2("bucket=", "two v=1"), v2("bucket=/r", "two v=1"),
		v2("bucket=nodb", "two v=1"), v2("bucket=w/norp", "two v=1"), v2("bucket=w", "not a line"), v2("bucket=w", "two v=\"x\" {0h#}"), v2("bucket=w/r/x", "two v=1 {0h#}"),
		v2("bucket=w", "two v=9 {2h#}").zipped(), v2("bucket=w", "two v=9 {2h#}").with("Authorization: Token a:b"), v2("db=w", "two v=1"),
		ask("SELECT * FROM two, r.two", "db=w", "epoch=ns"),
	}
}

// intoExchanges write what they read.
func intoExchanges() []exchange {
	var all []exchange
	for _, q := range []string{
		"SELECT value INTO i.autogen.one FROM cpu", "SELECT value, n INTO i..two FROM cpu, mem GROUP BY host", "SELECT * INTO i..:MEASUREMENT FROM /cpu|mem|disk/ GROUP BY *",
		"SELECT mean(value) INTO i..means FROM /cpu|mem/ WHERE time >= {0h} AND time < {4h} GROUP BY time(1h), host", "SELECT * INTO i..flat FROM cpu",
		"SELECT count(value) AS c INTO i..counts FROM cpu", "SELECT value INTO i..none FROM nosuch", "SELECT value INTO nodb..x FROM cpu", "SELECT value INTO i.norp.x FROM cpu",
		"SELECT nofunction(value) INTO i..x FROM cpu", "SELECT v INTO i..types FROM tint, tfloat", "SELECT word INTO i..one2 FROM cpu; SHOW MEASUREMENTS ON i",
		"SELECT top(value, host, 2) INTO i..tops FROM cpu", "SELECT v INTO i..mixed FROM tint, tstring", "SELECT value INTO i..zone FROM cpu WHERE host = 'a' tz('Asia/Tokyo')",
		"SELECT mean(value) INTO i..filled FROM cpu WHERE time >= {0h} AND time < {4h} GROUP BY time(20m) fill(0)",
	} {
		all = append(all, post(q))
	}
	all = append([]exchange{post("CREATE DATABASE i")}, all...)
	return append(all,
		ask("SELECT value INTO i..byget FROM cpu LIMIT 2"), ask("SELECT value INTO i..byget2 FROM cpu, mem LIMIT 2"),
		post("SELECT value INTO i..forms FROM cpu LIMIT 2", "epoch=ms", "chunked=true"), post("SELECT value INTO i..forms FROM cpu LIMIT 2").with("Accept: application/csv"),
		ask("SELECT * FROM /.*/ GROUP BY *", "db=i"), ask("SHOW FIELD KEYS", "db=i"), ask("SHOW SERIES", "db=i"),
	)
}

// Payloads as Prometheus makes them.

func promField(dst []byte, field int, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(field)<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func promNumber(dst []byte, field int, value int64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(field)<<3), uint64(value))
}

// promSeries is a series with its labels, name=value, and samples an hour apart.
func promSeries(labels string, values ...float64) []byte {
	var raw []byte
	for l := range strings.SplitSeq(labels, " ") {
		name, value, _ := strings.Cut(l, "=")
		raw = promField(raw, 1, promField(promField(nil, 1, []byte(name)), 2, []byte(value)))
	}
	for i, v := range values {
		sample := binary.LittleEndian.AppendUint64([]byte{1<<3 | 1}, math.Float64bits(v))
		raw = promField(raw, 2, promNumber(sample, 2, base.UnixMilli()+int64(i)*3600_000))
	}
	return raw
}

func promWrite(query string, series ...[]byte) exchange {
	var raw []byte
	for _, s := range series {
		raw = promField(raw, 1, s)
	}
	return exchange{method: http.MethodPost, path: "/api/v1/prom/write", query: query, body: string(snappy.Encode(nil, raw))}
}

// promRead asks for hours from, to with matchers: =, !=, =~ or !~ between name and
// value.
func promRead(query string, from, to int, matchers ...string) exchange {
	q := promNumber(promNumber(nil, 1, base.UnixMilli()+int64(from)*3600_000), 2, base.UnixMilli()+int64(to)*3600_000)
	for _, m := range matchers {
		for kind, op := range []string{"=", "!=", "=~", "!~"} {
			if parts := strings.Split(m, " "); parts[1] == op {
				q = promField(q, 3, promField(promField(promNumber(nil, 1, int64(kind)), 2, []byte(parts[0])), 3, []byte(parts[2])))
			}
		}
	}
	return exchange{method: http.MethodPost, path: "/api/v1/prom/read", query: query, body: string(snappy.Encode(nil, promField(nil, 1, q)))}
}

// promWriteExchanges are remote writes of Prometheus, and reads of what they stored.
func promWriteExchanges() []exchange {
	raw := func(body string) exchange {
		return exchange{method: http.MethodPost, path: "/api/v1/prom/write", query: "db=p", body: body}
	}
	return append([]exchange{
		post("CREATE DATABASE p"),
		promWrite("db=p", promSeries("__name__=up job=node instance=a:1", 1, 0, 1), promSeries("__name__=up job=node instance=b:1", 1, 1)),
		promWrite("db=p", promSeries("__name__=rate job=x", 0.5), promSeries("__name__=total job=x", 3, 4), promSeries("job=unnamed", 1)),
		promWrite("db=p", promSeries("__name__=nan job=x", math.NaN()), promSeries("__name__=up job=inf", math.Inf(1), 2, math.Inf(-1))),
		promWrite("db=p", promSeries("__name__=nan job=x", math.NaN())), promWrite("db=p"), promWrite("db=nodb", promSeries("__name__=up", 1)),
		promWrite("", promSeries("__name__=up", 1)), promWrite("db=p&rp=norp", promSeries("__name__=up", 1)), raw("noise"), raw(""),
		raw(string(snappy.Encode(nil, []byte("noise")))), promWrite("db=p&consistency=nonsense", promSeries("__name__=up", 1)),
		ask("SELECT * FROM /.*/ GROUP BY *", "db=p"), ask("SHOW SERIES", "db=p"),
	}, promReads()...)
}

func promReads() []exchange {
	return []exchange{
		promRead("db=p", -1, 10, "__name__ = up"), promRead("db=p", -1, 10, "__name__ = up", "instance =~ a.*"), promRead("db=p", 1, 1, "__name__ = up"),
		promRead("db=p", -1, 10, "__name__ =~ up|rate|total"), promRead("db=p", -1, 10, "__name__ =~ .*"), promRead("db=p", -1, 10, "__name__ != up"),
		promRead("db=p", -1, 10, "job = x"), promRead("db=p", -1, 10, "job != x"), promRead("db=p", -1, 10, "__name__ = nothing"), promRead("db=p", -1, 10),
		promRead("db=p", -1, 10, "__name__ = up", "job !~ no.*"),
	}
}

// promReadExchanges are remote reads that find nothing, or can't be.
func promReadExchanges() []exchange {
	raw := func(query, body string) exchange {
		return exchange{method: http.MethodPost, path: "/api/v1/prom/read", query: query, body: body}
	}
	return []exchange{
		promRead("db=d", 0, 10, "__name__ = cpu"), promRead("db=nodb", 0, 10, "__name__ = up"), promRead("", 0, 10, "__name__ = up"),
		promRead("db=nodb", 0, 10, "__name__ =~ up"), promRead("db=d&rp=norp", 0, 10, "__name__ = up"), promRead("db=d", 0, 10, "job = x"),
		raw("db=d", "noise"), raw("db=d", ""), raw("db=d", string(snappy.Encode(nil, []byte("noise")))), promRead("db=d", 0, 10, "__name__ =~ ("),
		promRead("db=d", 0, 10, "__name__ = cpu", "host =~ ("),
	}
}
