package influx

import (
	"context"
	"fmt"

	"github.com/influxdata/influxql"
)

// CreateDatabaseWith creates a database whose only and default retention policy
// is rp, where CREATE DATABASE alone would add a policy of its own, and makes sure
// that the policy is as asked for. A database that exists with another default
// policy is an error.
func (c *Client) CreateDatabaseWith(ctx context.Context, db string, rp RetentionPolicy) error {
	q := fmt.Sprintf("CREATE DATABASE %s WITH DURATION %s REPLICATION %d SHARD DURATION %s NAME %s",
		influxql.QuoteIdent(db), influxql.FormatDuration(rp.Duration), rp.Replication,
		influxql.FormatDuration(rp.ShardDuration), influxql.QuoteIdent(rp.Name))
	const op = "creating a database at"
	if err := c.run(ctx, op, q, 1, nil); err != nil {
		return err
	}
	rp.Default = true
	return c.checkRetentionPolicy(ctx, op, db, rp)
}
