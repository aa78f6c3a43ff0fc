package planner

import (
	"context"
	"fmt"
	"slices"

	"ringmaster/pkg/influx"
	"ringmaster/pkg/operation"
	"ringmaster/pkg/patience"
)

// Prepare makes the databases and retention policies of a plan exist at their
// destinations, exactly as at the source. It is harmless when repeated. Of a policy
// that exists with other attributes, the duration is lengthened and never
// shortened, so that it admits every point that is copied; the rest is brought in
// line only as long as no shard has been made by it.
func (p *Planner) Prepare(ctx context.Context, op *operation.Operation, plan *operation.Plan, w patience.Waiter) error {
	for rest := plan.Policies; len(rest) > 0; {
		first := rest[0]
		n := slices.IndexFunc(rest, func(p operation.PlanPolicy) bool {
			return p.Backend != first.Backend || p.Database != first.Database
		})
		if n < 0 {
			n = len(rest)
		}
		url := plan.Backends[first.Backend].URL
		if err := p.prepareDatabase(ctx, op, url, rest[:n], w); err != nil {
			return fmt.Errorf("preparing database %q at %s: %w", first.Database, url, err)
		}
		rest = rest[n:]
	}
	return nil
}

// prepareDatabase makes the policies of one database exist at one backend.
func (p *Planner) prepareDatabase(ctx context.Context, op *operation.Operation, url string, wanted []operation.PlanPolicy, w patience.Waiter) error {
	client, err := p.backends.Client(ctx, op, url, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	c := patience.Call{What: "preparing " + url, Clients: []*influx.Client{client}, Since: operation.Began(op)}
	return p.patience.Do(ctx, c, w, func(ctx context.Context) error { return preparePolicies(ctx, client, wanted) })
}

func preparePolicies(ctx context.Context, c *influx.Client, wanted []operation.PlanPolicy) error {
	// The default comes last: making a policy the default takes the flag from
	// the one that has it.
	ordered := slices.Clone(wanted)
	slices.SortStableFunc(ordered, func(a, b operation.PlanPolicy) int {
		switch {
		case a.Default == b.Default:
			return 0
		case a.Default:
			return 1
		default:
			return -1
		}
	})
	database := wanted[0].Database
	existing, err := c.Databases(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(existing, database) {
		// With a policy named, InfluxDB does not add its own.
		if err := c.CreateDatabaseWith(ctx, database, policyOf(&ordered[len(ordered)-1])); err != nil {
			return err
		}
	}
	have, err := c.RetentionPolicies(ctx, database)
	if err != nil {
		return err
	}
	groups, err := c.ShardGroups(ctx)
	if err != nil {
		return err
	}
	groups = slices.DeleteFunc(groups, func(g influx.ShardGroup) bool { return g.Database != database })
	for i := range ordered {
		want := policyOf(&ordered[i])
		// Where clients already write, the default stays what they take it for.
		want.Default = want.Default && len(groups) == 0
		if err := preparePolicy(ctx, c, database, want, have, groups); err != nil {
			return err
		}
	}
	return nil
}

// preparePolicy makes one policy exist; have and groups are those of the database.
func preparePolicy(ctx context.Context, c *influx.Client, database string, want influx.RetentionPolicy, have []influx.RetentionPolicy, groups []influx.ShardGroup) error {
	at := slices.IndexFunc(have, func(p influx.RetentionPolicy) bool { return p.Name == want.Name })
	if at < 0 {
		return c.CreateRetentionPolicy(ctx, database, want)
	}
	held := have[at]
	inUse := slices.ContainsFunc(groups, func(g influx.ShardGroup) bool { return g.RetentionPolicy == want.Name })
	want = reconciled(want, held, inUse)
	if held == want {
		return nil
	}
	return c.AlterRetentionPolicy(ctx, database, want)
}

// reconciled is what becomes of a policy that exists, where one with other attributes
// is wanted.
func reconciled(want, held influx.RetentionPolicy, inUse bool) influx.RetentionPolicy {
	if keepsLonger(held.Duration, want.Duration) {
		want.Duration = held.Duration
	}
	if inUse {
		// New groups of another length would lie over those there are: a point
		// written again would then be there twice, and types be cast.
		want.ShardDuration, want.Replication = held.ShardDuration, held.Replication
	}
	if !want.Default {
		// A flag can only be taken by another policy, which comes after.
		want.Default = held.Default
	}
	return want
}

func policyOf(p *operation.PlanPolicy) influx.RetentionPolicy {
	return influx.RetentionPolicy{
		Name: p.Name, Duration: p.Duration, ShardDuration: p.ShardDuration,
		Replication: p.Replication, Default: p.Default,
	}
}

// Equip makes every database and retention policy of one backend exist at another,
// by the rules of Prepare.
func Equip(ctx context.Context, from, to *influx.Client) error {
	databases, err := from.Databases(ctx)
	if err != nil {
		return err
	}
	for _, db := range databases {
		if err := EquipDatabase(ctx, from, to, db); err != nil {
			return err
		}
	}
	return nil
}

// EquipDatabase is Equip for one database.
func EquipDatabase(ctx context.Context, from, to *influx.Client, db string) error {
	policies, err := from.RetentionPolicies(ctx, db)
	if err != nil {
		return err
	}
	wanted := make([]operation.PlanPolicy, len(policies))
	for i, p := range policies {
		wanted[i] = operation.PlanPolicy{
			Database: db, Name: p.Name, Duration: p.Duration, ShardDuration: p.ShardDuration, Replication: p.Replication, Default: p.Default,
		}
	}
	if len(wanted) == 0 {
		return to.CreateDatabase(ctx, db)
	}
	if err := preparePolicies(ctx, to, wanted); err != nil {
		return fmt.Errorf("preparing database %q at %s: %w", db, to.URL(), err)
	}
	return nil
}
