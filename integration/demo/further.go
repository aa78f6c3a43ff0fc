package main

import "context"

// further tells where to look next.
func (d *demo) further(_ context.Context) error {
	if !d.keep {
		d.tell("KEEP=1 leaves everything running, for example for:")
	}
	url, id := d.cluster.Client.URL, d.operation.ID
	for _, call := range []struct{ what, path string }{
		{"the operation", "/v1/operations/" + id},
		{"what was planned", "/v1/operations/" + id + "/plan"},
		{"its tasks", "/v1/operations/" + id + "/tasks"},
		{"its report", "/v1/operations/" + id + "/report"},
		{"what happened", "/v1/operations/" + id + "/events"},
		{"influx-proxy's view", "/migrate/stats?circle_id=0&type=rebalance&pretty=true"},
		{"who owns something", "/v1/where?db=climate&measurement=weather"},
		{"live workers", "/v1/workers"},
	} {
		d.tell("%-20s curl '%s%s'", call.what, url, call.path)
	}
	return nil
}
