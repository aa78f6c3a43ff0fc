package influx

import (
	"context"
	"errors"
	"iter"
	"time"

	"ringmaster/pkg/lineproto"
)

// RetentionPolicy has all attributes of a retention policy.
type RetentionPolicy struct {
	Name string
	// Duration is how long points are kept, 0 for ever.
	Duration      time.Duration
	ShardDuration time.Duration
	Replication   int
	Default       bool
}

// Ping asks for the server's version.
func (c *Client) Ping(ctx context.Context) (version string, err error) {
	return "", errors.ErrUnsupported
}

// Databases lists the databases, without _internal.
func (c *Client) Databases(ctx context.Context) ([]string, error) { return nil, errors.ErrUnsupported }

// RetentionPolicies lists the retention policies of a database.
func (c *Client) RetentionPolicies(ctx context.Context, db string) ([]RetentionPolicy, error) {
	return nil, errors.ErrUnsupported
}

// CreateDatabase creates a database; one that exists is no error.
func (c *Client) CreateDatabase(ctx context.Context, db string) error { return errors.ErrUnsupported }

// CreateRetentionPolicy creates a retention policy with exactly these
// attributes. An equal one that exists is no error; another one of that name is.
func (c *Client) CreateRetentionPolicy(ctx context.Context, db string, rp RetentionPolicy) error {
	return errors.ErrUnsupported
}

// AlterRetentionPolicy gives an existing retention policy exactly these
// attributes. A policy stops being the default only when another one becomes
// it.
func (c *Client) AlterRetentionPolicy(ctx context.Context, db string, rp RetentionPolicy) error {
	return errors.ErrUnsupported
}

// ShardGroup is the span of time that some shards of a retention policy hold.
type ShardGroup struct {
	ID              uint64
	Database        string
	RetentionPolicy string
	// From and To bound its points in nanoseconds, clamped to the legal times.
	// To is excluded, except when ToInclusive: then it is the last legal time.
	From, To    int64
	ToInclusive bool
	// Expiry is when the server may delete the group; zero for never.
	Expiry time.Time
}

// ShardGroups lists the shard groups of all databases but _internal.
func (c *Client) ShardGroups(ctx context.Context) ([]ShardGroup, error) {
	return nil, errors.ErrUnsupported
}

// Measurements streams the names of the measurements of a database, in constant
// memory. After an error there are no more.
func (c *Client) Measurements(ctx context.Context, db string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", errors.ErrUnsupported) }
}

// FieldKeys returns the fields of a measurement with every type that any shard
// of the retention policy has for them.
func (c *Client) FieldKeys(ctx context.Context, db, rp, measurement string) (map[string][]lineproto.Kind, error) {
	return nil, errors.ErrUnsupported
}

// TagKeys lists the tag keys of a measurement.
func (c *Client) TagKeys(ctx context.Context, db, rp, measurement string) ([]string, error) {
	return nil, errors.ErrUnsupported
}
