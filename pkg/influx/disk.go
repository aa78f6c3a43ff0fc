package influx

import (
	"context"
	"fmt"

	"ringmaster/pkg/lineproto"
)

// DiskBytes tells how much each database takes on the server's disk, by its own
// statistics of its shards: data files and write-ahead log together, so that what was
// written a moment ago counts with the size of the log, and what was deleted until it
// has been compacted away. Databases that [Client.Databases] leaves out are left out. A
// server that keeps no such statistics gives an [Error] of class Permanent.
func (c *Client) DiskBytes(ctx context.Context) (map[string]int64, error) {
	const op, column = "asking for the size of", "diskBytes"
	all := map[string]int64{}
	err := c.run(ctx, op, "SHOW STATS FOR 'shard'", 1, func(d *decoder) error {
		db := ""
		for _, tag := range d.current.Tags {
			if tag.Key == "database" {
				db = tag.Value
			}
		}
		if reserved(db) || db == "" {
			return nil
		}
		for i, name := range d.columns {
			if name == column && (d.cells[i].Kind == lineproto.Integer || d.cells[i].Kind == lineproto.Unsigned) {
				all[db] += int64(d.cells[i].Num)
				return nil
			}
		}
		return &Error{Class: Permanent, Op: op + " " + c.URL(), Message: fmt.Sprintf("it does not tell the %s of its shards", column)}
	})
	return all, err
}
