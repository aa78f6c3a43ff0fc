package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ringmaster/integration/harness"
)

// The differences that the suite meets, as docs/influxdb-differences.md calls them.
const (
	usersDiffer         = "`CREATE USER`, `GRANT` and all others about users and their rights"
	killDiffers         = "`KILL QUERY`"
	continuousDiffer    = "`CREATE CONTINUOUS QUERY` and all others about them"
	subscriptionsDiffer = "`CREATE SUBSCRIPTION` and all others about them"
	shardsDiffer        = "`DROP SHARD`"
	statusDiffers       = "`SHOW SHARDS`, `SHARD GROUPS`, `STATS`, `DIAGNOSTICS`, `QUERIES`"
	explainDiffers      = "`EXPLAIN` of a statement over several backends"
	databasesDiffer     = "one measurement name in two databases, in one statement, on different backends"
	tagsDiffer          = "tags of measurements that have no shard in the time range or retention policy"
	leftoversDiffer     = "a request with one new field in two types, over several owners"
	pingDiffers         = "`/ping` and paths that InfluxDB does not have"
)

// reasons are why the answers differ, as the documentation says too.
func reasons() map[string]string {
	return map[string]string{
		usersDiffer:         "the backends are asked with the configuration's credentials, so their users mean nothing to clients",
		killDiffers:         "query ids belong to one backend each, and several of them may run one query: end the request that asked for it",
		continuousDiffer:    "each backend would run it on its own part of the data: run `SELECT … INTO` from a scheduler",
		subscriptionsDiffer: "each backend would send on what it gets, once for every circle",
		shardsDiffer:        "shard ids belong to one backend each: use `DELETE` or a retention policy",
		statusDiffers:       "they are about servers, and there are several",
		explainDiffers:      "each plans its own part",
		databasesDiffer:     "no backend has all the points of the series; ask for one database at a time",
		tagsDiffer:          "InfluxDB itself answers by its index, and an owner only knows its own shards",
		leftoversDiffer:     "the answer is the same",
		pingDiffers:         "they are influx-proxy's, whose scripts read its version there",
	}
}

// TestDifferencesAreThoseOfTheDocumentation makes sure that the exceptions of the
// differential suite and docs/influxdb-differences.md agree: each has its reason, the
// same in both, and none of them is left over.
func TestDifferencesAreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "influxdb-differences.md"))
	require.NoError(t, err)
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what |") {
			continue
		}
		require.Len(t, cells, 4, line)
		for _, cell := range cells {
			require.NotEmpty(t, strings.TrimSpace(cell), line)
		}
		documented[strings.TrimSpace(cells[0])] = strings.TrimSpace(cells[3])
	}
	require.NotEmpty(t, documented)
	met := map[string]bool{}
	for _, table := range tables() {
		for _, x := range table {
			if x.differs == "" {
				continue
			}
			met[x.differs] = true
			require.NotEmpty(t, documented[x.differs], "%s differs, and the documentation does not say so: %s", x, x.differs)
			require.NotNil(t, x.instead, "%s", x)
		}
	}
	for title, reason := range reasons() {
		require.Equal(t, documented[title], reason, title)
		require.True(t, met[title], "no request shows this difference: %s", title)
	}
	require.Len(t, met, len(reasons()))
}
