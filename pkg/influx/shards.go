package influx

import (
	"context"
	"time"

	"ringmaster/pkg/lineproto"
)

// ShardGroup is the span of time that some shards of a retention policy hold.
// Groups of one policy overlap after its shard duration was altered.
type ShardGroup struct {
	ID              uint64
	Database        string
	RetentionPolicy string
	// From and To bound its points in nanoseconds, clamped to the legal times.
	// To is excluded, except when ToInclusive: then it is the last legal time.
	//
	// The server tells whole seconds only. That is exact for every shard
	// duration of whole seconds; for any other, each bound may in truth lie up
	// to a second later.
	From, To    int64
	ToInclusive bool
	// Expiry is when the server may delete the group; zero for never.
	Expiry time.Time
}

// ShardGroups lists the shard groups of all databases that [Client.Databases]
// lists, those without a point included.
func (c *Client) ShardGroups(ctx context.Context) ([]ShardGroup, error) {
	var all []ShardGroup
	err := c.run(ctx, "listing shard groups of", "SHOW SHARD GROUPS", 1, func(d *decoder) error {
		r := record{d: d}
		g := ShardGroup{
			ID:              r.integer("id"),
			Database:        r.text("database"),
			RetentionPolicy: r.text("retention_policy"),
			Expiry:          r.time("expiry_time"),
		}
		start, end := r.time("start_time"), r.time("end_time")
		if r.err != nil || reserved(g.Database) {
			return r.err
		}
		g.From = clampTime(start)
		// The last group ends one nanosecond after the last legal time, which
		// the server prints without its fraction.
		if g.To = clampTime(end); end.Unix() >= lineproto.MaxTime/int64(time.Second) {
			g.To, g.ToInclusive = lineproto.MaxTime, true
		}
		// A policy without an end gives the end of the group for its expiry.
		if g.Expiry.Equal(end) {
			g.Expiry = time.Time{}
		}
		all = append(all, g)
		return nil
	})
	return all, err
}

// clampTime returns t in nanoseconds, or the legal time nearest to it. The first
// group of a policy begins before the first legal time.
func clampTime(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < lineproto.MinTime/int64(time.Second):
		return lineproto.MinTime
	case s >= lineproto.MaxTime/int64(time.Second):
		return lineproto.MaxTime
	}
	return t.UnixNano()
}
