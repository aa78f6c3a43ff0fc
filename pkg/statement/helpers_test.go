package statement_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ringmaster/pkg/statement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is the time that now() stands for.
func noon() time.Time { return time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) }

func parse(t testing.TB, q string) *statement.Request {
	t.Helper()
	r, err := statement.Parse(q, nil, statement.Defaults{Database: "d", Now: noon()})
	require.NoError(t, err, q)
	return r
}

func one(t testing.TB, q string) *statement.Statement {
	t.Helper()
	r := parse(t, q)
	require.Len(t, r.Statements, 1, q)
	return r.Statements[0]
}

// circle has three backends, A, B and C, which own the names that begin with a, b
// and c, and others in turn; those of database e are one further. held is what
// backends hold, of whatever database.
func circle(held map[string][]string) statement.Circle {
	backends := []string{"A", "B", "C"}
	return statement.Circle{
		Backends: backends,
		Owner: func(db, measurement string) string {
			at := 2
			if measurement != "" {
				at = int(measurement[0])
			}
			if db == "e" {
				at++
			}
			return backends[(at+2)%3] // 'a' is 97
		},
		Measurements: func(backend, _ string) []string { return held[backend] },
	}
}
