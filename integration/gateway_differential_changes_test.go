package integration_test

import (
	"net/http"
	"regexp"
	"testing"
)

// changeExchanges make, change and take away.
func changeExchanges() []exchange {
	var all []exchange
	add := func(statements ...string) {
		for _, q := range statements {
			all = append(all, post(q, "db=c"))
		}
	}
	look := func() {
		add("SHOW MEASUREMENTS", "SHOW SERIES", "SELECT * FROM /.*/ GROUP BY *", "SHOW RETENTION POLICIES ON c")
	}
	add("CREATE DATABASE c", "CREATE DATABASE c", `CREATE DATABASE "c c" WITH DURATION 3d NAME "week"`, "SHOW RETENTION POLICIES ON \"c c\"",
		"CREATE DATABASE c WITH DURATION 3d", "CREATE DATABASE", `CREATE DATABASE ""`, `CREATE DATABASE "a/b"`, "CREATE DATABASE c2 WITH DURATION 1m",
		"CREATE DATABASE c2 WITH SHARD DURATION 1m", "CREATE DATABASE c2 WITH NAME \"\"")
	add("CREATE RETENTION POLICY r ON c DURATION 30d REPLICATION 1", "CREATE RETENTION POLICY r ON c DURATION 30d REPLICATION 1", "CREATE RETENTION POLICY r ON c DURATION 31d REPLICATION 1",
		"CREATE RETENTION POLICY r2 ON c DURATION 1m REPLICATION 1", "CREATE RETENTION POLICY r2 ON nodb DURATION 1h REPLICATION 1",
		"CREATE RETENTION POLICY r2 ON c DURATION 2h REPLICATION 1 SHARD DURATION 4h", "CREATE RETENTION POLICY r3 ON c DURATION INF REPLICATION 1 DEFAULT",
		"CREATE RETENTION POLICY \"\" ON c DURATION INF REPLICATION 1", "CREATE RETENTION POLICY r4 ON c DURATION INF", "SHOW RETENTION POLICIES ON c",
		"ALTER RETENTION POLICY r ON c DURATION 60d", "ALTER RETENTION POLICY r ON c SHARD DURATION 2d", "ALTER RETENTION POLICY autogen ON c DEFAULT",
		"ALTER RETENTION POLICY norp ON c DURATION 60d", "ALTER RETENTION POLICY r ON nodb DURATION 60d", "ALTER RETENTION POLICY r ON c DURATION 1m", "ALTER RETENTION POLICY r ON c",
		"SHOW RETENTION POLICIES ON c")
	for _, m := range []string{"m1", "m2", "m3", "m4", "m5"} {
		for _, query := range []string{"db=c", "db=c&rp=r3"} {
			all = append(all, write(query, m+",t=a,u=x v=1 {0h#}\n"+m+",t=b v=2 {1h#}\n"+m+",t=a v=3 {200h#}\n"))
		}
	}
	look()
	add("DELETE FROM m1 WHERE time >= {1h}", "DELETE FROM m1 WHERE t = 'a'", "DELETE FROM /m2|m3/ WHERE time < {1h}", "DELETE WHERE t = 'b'", "DELETE FROM nosuch",
		"DELETE FROM m2 WHERE time > now()", "DELETE", "DELETE FROM r3.m2", "DELETE FROM nodb..m1")
	look()
	all = append(all, post("DELETE FROM m2 WHERE v = 1", "db=c").equally(anyShard), post("DROP SERIES FROM m4 WHERE v = 1", "db=c").equally(anyShard))
	add("DROP SERIES FROM m2 WHERE t = 'a'", "DROP SERIES FROM /m3/", "DROP SERIES WHERE t = 'zz'", "DROP SERIES FROM nosuch", "DROP SERIES", "DROP SERIES FROM m4 WHERE time > {1h}",
		"DROP SERIES FROM r3.m4")
	look()
	add("DROP MEASUREMENT m4", "DROP MEASUREMENT m4", "DROP MEASUREMENT nosuch", "DROP MEASUREMENT /m/", "DROP MEASUREMENT")
	look()
	all = append(all,
		write("db=c", "m4,t=z v=\"another type\" {0h#}"), post("DROP RETENTION POLICY r3 ON c", "db=c"), post("DROP RETENTION POLICY r3 ON c", "db=c"),
		post("DROP RETENTION POLICY norp ON c", "db=c"), post("DROP RETENTION POLICY r ON nodb", "db=c"), write("db=c&rp=r3", "m1 v=1 {0h#}"))
	look()
	all = append(all,
		ask("CREATE DATABASE byget"), ask("DELETE FROM m5 WHERE time > {150h}", "db=c"), ask("DROP MEASUREMENT m5", "db=c"), ask("DROP SERIES FROM m4", "db=c"),
		ask("ALTER RETENTION POLICY r ON c DURATION 90d"), ask("CREATE RETENTION POLICY g ON c DURATION 90d REPLICATION 1"), ask("DROP RETENTION POLICY g ON c"), ask("DROP DATABASE byget"),
		post("CREATE DATABASE several; CREATE RETENTION POLICY x ON several DURATION INF REPLICATION 1; SHOW RETENTION POLICIES ON several; DROP DATABASE several"),
		post("CREATE DATABASE several; SELECT v FROM nodb..x; DROP DATABASE several; SHOW DATABASES"),
		post("DELETE FROM m1; DROP MEASUREMENT m1; SHOW MEASUREMENTS", "db=c").with("Accept: application/csv"),
		post("DROP MEASUREMENT m2; SHOW MEASUREMENTS", "db=c", "pretty=true", "chunked=true"),
		post("DROP SERIES FROM $m", "db=c", `params={"m":{"identifier":"m3"}}`), post("DELETE FROM m3 WHERE t = $t", "db=c", `params={"t":"a"}`),
		post("DELETE FROM m1", "db="), post("DELETE FROM m1", "db=nodb"), post("DROP MEASUREMENT m1", "db="), post("DROP SERIES FROM m1", "db=nodb"),
		post("DROP DATABASE c"), post("DROP DATABASE c"), post("DROP DATABASE nodb"), post("DROP DATABASE \"c c\""), post("SHOW DATABASES"),
		write("db=c", "m1 v=1 {0h#}"), ask("SELECT * FROM m1", "db=c"),
		post("CREATE DATABASE c"), write("db=c", "m4,t=z v=1 {0h#}"), ask("SELECT * FROM /.*/", "db=c"),
	)
	return all
}

// anyShard is a body without the number of a shard, which is one server's own.
func anyShard(body string) any { return shardNumber.ReplaceAllString(body, "shard N") }

var shardNumber = regexp.MustCompile(`shard \d+`)

// refusedExchanges are what several servers can't do as one.
func refusedExchanges() []exchange {
	refused := func(q, title, words string) exchange {
		return post(q).except(title, answers(http.StatusOK, words))
	}
	return []exchange{
		refused("SHOW USERS", usersDiffer, "belong to Ringmaster"), refused("CREATE USER a WITH PASSWORD 'x'", usersDiffer, "belong to Ringmaster"),
		refused("CREATE USER b WITH PASSWORD 'x' WITH ALL PRIVILEGES", usersDiffer, "belong to Ringmaster"),
		refused("SET PASSWORD FOR a = 'y'", usersDiffer, "belong to Ringmaster"), refused("GRANT READ ON d TO a", usersDiffer, "belong to Ringmaster"),
		refused("GRANT ALL PRIVILEGES TO a", usersDiffer, "belong to Ringmaster"), refused("REVOKE ALL ON d FROM a", usersDiffer, "belong to Ringmaster"),
		refused("REVOKE ALL PRIVILEGES FROM a", usersDiffer, "belong to Ringmaster"), refused("SHOW GRANTS FOR a", usersDiffer, "belong to Ringmaster"),
		refused("DROP USER a", usersDiffer, "belong to Ringmaster"),
		refused("KILL QUERY 36", killDiffers, "query ids belong to one backend each"),
		refused("CREATE CONTINUOUS QUERY q ON e BEGIN SELECT mean(value) INTO x FROM cpu GROUP BY time(1h) END", continuousDiffer, "from a scheduler instead"),
		refused("SHOW CONTINUOUS QUERIES", continuousDiffer, "from a scheduler instead"), refused("DROP CONTINUOUS QUERY q ON e", continuousDiffer, "from a scheduler instead"),
		refused("CREATE SUBSCRIPTION s ON d.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'", subscriptionsDiffer, "subscribe on each backend"),
		refused("SHOW SUBSCRIPTIONS", subscriptionsDiffer, "subscribe on each backend"), refused("DROP SUBSCRIPTION s ON d.autogen", subscriptionsDiffer, "subscribe on each backend"),
		refused("DROP SHARD 100000", shardsDiffer, "shard ids belong to one backend each"),
		// The words of one that is none are InfluxDB's.
		post("CREATE USER"), post("KILL QUERY"), post("DROP SHARD x"), post("CREATE CONTINUOUS QUERY"), post("GRANT"),
	}
}

// statusExchanges ask servers about themselves.
func statusExchanges() []exchange {
	several := func(words ...string) func(t testing.TB, one, gateway reply) {
		return answers(http.StatusOK, words...)
	}
	return []exchange{
		ask("SHOW SHARDS").except(statusDiffers, several(`"name":"d"`)), ask("SHOW SHARD GROUPS").except(statusDiffers, several("shard groups")),
		ask("SHOW STATS").except(statusDiffers, several("runtime")), ask("SHOW STATS FOR 'httpd'").except(statusDiffers, several("httpd")),
		ask("SHOW DIAGNOSTICS").except(statusDiffers, several("build")), ask("SHOW QUERIES").except(statusDiffers, several("SHOW QUERIES")),
		ask("EXPLAIN SELECT value FROM cpu, mem").except(explainDiffers, answers(http.StatusOK, "EXPRESSION")),
		ask("EXPLAIN ANALYZE SELECT value FROM cpu").equally(count),
		exchange{method: http.MethodGet, path: "/ping"}.except(pingDiffers, answers(http.StatusNoContent)),
		exchange{method: http.MethodHead, path: "/ping"}.except(pingDiffers, answers(http.StatusNoContent)),
		exchange{method: http.MethodGet, path: "/ping", query: "verbose=true"}.except(pingDiffers, answers(http.StatusNoContent)),
		exchange{method: http.MethodGet, path: "/nothing"}.except(pingDiffers, answers(http.StatusNotFound, "404 page not found")),
	}
}
