package operation_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ringmaster/pkg/operation"
)

func database(name string, keep bool, measurements ...string) operation.DatabaseSchema {
	d := operation.DatabaseSchema{Name: name, Policies: []operation.PolicySchema{{Name: "autogen", ShardDuration: 168 * time.Hour, Replication: 1, Default: true}}}
	d.SetNames(measurements, keep)
	return d
}

// TestASchemaTellsItsDifferences: by name as long as names are kept, by counts beyond.
func TestASchemaTellsItsDifferences(t *testing.T) {
	t.Parallel()
	was := func(databases ...operation.DatabaseSchema) *operation.PlanSchema {
		return &operation.PlanSchema{
			Circles:  []operation.CircleSchema{{Circle: 0}},
			Backends: []operation.BackendSchema{{URL: "http://a", Databases: databases}},
		}
	}
	longer := database("db", true, "cpu")
	longer.Policies[0].Duration = time.Hour
	more := database("db", true, "cpu")
	more.Policies = append([]operation.PolicySchema{{Name: "a month"}}, more.Policies...)
	ruled := was(database("db", true, "cpu"))
	ruled.Circles[0].FormerRules = true
	other := was(database("db", true, "cpu"))
	other.Backends[0].URL = "http://b"
	for name, c := range map[string]struct {
		was, now *operation.PlanSchema
		want     string
	}{
		"nothing":        {was(database("db", true, "cpu", "mem")), was(database("db", true, "mem", "cpu")), ""},
		"a measurement":  {was(database("db", true, "cpu")), was(database("db", true, "cpu", "mem")), "measurement db.mem is new on http://a"},
		"one gone":       {was(database("db", true, "cpu", "mem")), was(database("db", true, "mem")), "measurement db.cpu is gone from http://a"},
		"odd names":      {was(database("db", true)), was(database("db", true, "a b", "c.d")), `measurement db."a b" is new on http://a; measurement db."c.d" is new on http://a`},
		"a database":     {was(), was(database("db", true)), "database db is new on http://a"},
		"no database":    {was(database("db", true)), was(), "database db is gone from http://a"},
		"a policy":       {was(database("db", true, "cpu")), was(more), `retention policy db."a month" is new on http://a`},
		"not a policy":   {was(more), was(database("db", true, "cpu")), `retention policy db."a month" is gone from http://a`},
		"without names":  {was(database("db", false, "cpu")), was(database("db", true, "mem")), "database db on http://a had 1 measurements and has 1, not all of them the same"},
		"same, no names": {was(database("db", false, "cpu")), was(database("db", true, "cpu")), ""},
		"a duration": {
			was(database("db", true, "cpu")), was(longer),
			"retention policy db.autogen on http://a was duration 0s, shard duration 168h0m0s, replication 1, the default and is duration 1h0m0s, shard duration 168h0m0s, replication 1, the default",
		},
		"rules":   {was(database("db", true, "cpu")), ruled, "whose values count in circle 0 has changed"},
		"another": {was(database("db", true, "cpu")), other, "http://a is not looked at any more; http://b was not looked at"},
		"many": {
			was(database("db", true)), was(database("db", true, "a", "b", "c", "d", "e", "f", "g")),
			"measurement db.a is new on http://a; measurement db.b is new on http://a; measurement db.c is new on http://a; " +
				"measurement db.d is new on http://a; measurement db.e is new on http://a; and 2 more differences",
		},
	} {
		require.Equal(t, c.want, c.was.Difference(c.now), name)
	}
}

// TestASchemaKnowsItself: whatever the names and their order, equal sets are equal and
// others are not, with names and without.
func TestASchemaKnowsItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringN(0, 4, -1), 0, 6, rapid.ID[string])
		a, b := names.Draw(t, "a"), names.Draw(t, "b")
		keep := rapid.Bool().Draw(t, "keep")
		one := operation.PlanSchema{Backends: []operation.BackendSchema{{URL: "u", Databases: []operation.DatabaseSchema{database("db", keep, slices.Clone(a)...)}}}}
		two := operation.PlanSchema{Backends: []operation.BackendSchema{{URL: "u", Databases: []operation.DatabaseSchema{database("db", true, slices.Clone(b)...)}}}}
		slices.Sort(a)
		slices.Sort(b)
		require.Equal(t, slices.Equal(a, b), one.Difference(&two) == "")
	})
}
