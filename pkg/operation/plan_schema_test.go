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
		require.Equal(t, c.want, c.was.Difference(c.now, never), name)
	}
}

// never foresees nothing.
func never(string, string, string) bool { return false }

// TestWhatClientsBringIsNoDifference: a new owner gets what the old one has from
// clients who write to both, and nothing else.
func TestWhatClientsBringIsNoDifference(t *testing.T) {
	t.Parallel()
	schema := func(at ...[]operation.DatabaseSchema) *operation.PlanSchema {
		s := &operation.PlanSchema{Circles: []operation.CircleSchema{{Circle: 0, FormerRules: true}}}
		for i, databases := range at {
			s.Backends = append(s.Backends, operation.BackendSchema{URL: []string{"http://old", "http://new"}[i], Databases: databases})
		}
		return s
	}
	type list = []operation.DatabaseSchema
	was := schema(list{database("db", true, "cpu", "mem")}, nil)
	brings := func(url, database, measurement string) bool {
		return url == "http://new" && database == "db" && measurement != "mem"
	}
	old := list{database("db", true, "cpu", "mem")}
	for want, now := range map[string]*operation.PlanSchema{
		"":                                    schema(old, list{database("db", true, "cpu")}),
		"database db is new on http://new":    schema(old, list{database("db", true, "cpu", "mem")}),
		"database other is new on http://new": schema(old, list{database("other", true, "cpu")}),
		"measurement db.disk is new on http://old":   schema(list{database("db", true, "cpu", "disk", "mem")}, list{database("db", true, "cpu")}),
		"measurement db.cpu is gone from http://old": schema(list{database("db", true, "mem")}, list{database("db", true, "cpu")}),
	} {
		require.Equal(t, want, was.Difference(now, brings))
	}
	was = schema(old, list{database("db", true)})
	require.Empty(t, was.Difference(schema(old, list{database("db", true, "cpu")}), brings))
	require.Equal(t, "measurement db.disk is new on http://new", was.Difference(schema(old, list{database("db", true, "cpu", "disk")}), brings),
		"nobody has it whom it could be moved from")
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
		require.Equal(t, slices.Equal(a, b), one.Difference(&two, never) == "")
	})
}
