package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ringmaster/pkg/bus"
)

const (
	// wantedReplicas is how many servers of a cluster hold everything.
	wantedReplicas = 3
	// nearlyFull is from which share on a store is told to be.
	nearlyFull = 0.8
	// slowAnswer is what an answer of a healthy NATS does not take.
	slowAnswer = 500 * time.Millisecond
)

// nats looks whether JetStream stores, and how durably.
func (d *Doctor) nats(ctx context.Context, c *chart) {
	const name = "nats"
	if d.Frozen != nil {
		if err := d.Frozen(); err != nil {
			c.note(name, Fail, "free space on its disk; it is restarted by itself then", "JetStream stores nothing any more: %v", err)
		}
	}
	began := d.Now()
	if err := d.Bus.Probe(ctx); err != nil {
		c.note(name, Fail, "see whether NATS runs, has a leader and has space on its disk", "it does not store a message: %v", err)
		return
	}
	took := d.Now().Sub(began)
	f, err := d.Bus.Facts(ctx)
	if err != nil {
		c.note(name, Fail, "see whether each server of the cluster runs", "it does not say how it keeps records: %v", err)
		return
	}
	where := "one server"
	if f.Cluster != "" {
		where = "cluster " + f.Cluster
	}
	text := fmt.Sprintf("%s, server %s of version %s, stored a message in %s", where, f.Server, f.Version, took.Round(time.Microsecond))
	if took > slowAnswer {
		c.note(name, Warn, "see the disk and the network of NATS: each step of an operation waits for it", "%s", text)
	} else {
		c.note(name, OK, "", "%s", text)
	}
	d.replicas(c, &f)
	d.synced(c, &f)
}

// replicas looks whether every stream is held by as many servers as it should be.
func (d *Doctor) replicas(c *chart, f *bus.Facts) {
	const name = "nats replicas"
	var few, behind, memory []string
	for i := range f.Streams {
		s := &f.Streams[i]
		switch {
		case f.Cluster != "" && s.Replicas < wantedReplicas:
			few = append(few, fmt.Sprintf("%s is held by %d servers", s.Name, s.Replicas))
		case s.Leaderless:
			behind = append(behind, s.Name+" has no leader")
		case s.Current < s.Replicas:
			behind = append(behind, fmt.Sprintf("%s is whole on %d of %d servers; behind: %s", s.Name, s.Current, s.Replicas, strings.Join(s.Behind, ", ")))
		}
		if s.InMemory {
			memory = append(memory, s.Name+" is kept in memory")
		}
	}
	c.several(name, Fail, "nats stream edit NAME --replicas=3; a start of api does the same", few)
	c.several(name, Fail, "bring those servers back: one more that fails stops everything", behind)
	c.several(name, Fail, "it must be kept in files: stop all processes, remove the stream, start again", memory)
	if len(few)+len(behind)+len(memory) > 0 {
		return
	}
	switch {
	case len(f.Streams) == 0:
		c.note(name, Fail, "start an api: it makes the streams", "there are no streams")
	case f.Cluster != "":
		c.note(name, OK, "", "each of %d streams is whole on %d servers or more, in files", len(f.Streams), wantedReplicas)
	case d.Embedded:
		c.note(name, OK, "", "each of %d streams is in files on this host, which is a single point of failure; three NATS servers (-nats) are not", len(f.Streams))
	default:
		c.note(name, Warn, "run three new NATS servers as a cluster; deploy/README.md says how to change over. Never make a cluster of this one: it would delete what it holds", "each of %d streams is held by one server only", len(f.Streams))
	}
}

// synced looks whether what is acknowledged is on disk.
func (d *Doctor) synced(c *chart, f *bus.Facts) {
	const name = "nats sync"
	var unsynced []string
	for i := range f.Streams {
		if f.Streams[i].Unsynced {
			unsynced = append(unsynced, f.Streams[i].Name+" acknowledges before a message is written")
		}
	}
	c.several(name, Fail, "nats stream edit NAME --persist-mode default", unsynced)
	switch {
	case len(unsynced) > 0:
	case d.Embedded:
		c.note(name, OK, "", "every message is synced before it is acknowledged")
	default:
		c.note(name, Warn, "see that the configuration of each server has jetstream { sync_interval: always } as in deploy/nats, "+
			"or that its monitoring port says so: curl http://SERVER:8222/jsz?config=true shows sync_always",
			"whether the servers sync what they acknowledge cannot be seen from here: JetStream's API does not tell")
	}
}

// store looks whether JetStream is nearly full.
func (d *Doctor) store(ctx context.Context, c *chart) {
	const name = "nats store"
	f, err := d.Bus.Facts(ctx)
	if err != nil {
		c.note(name, Fail, "see the finding about NATS", "it cannot be looked at: %v", err)
		return
	}
	limit := "no limit is set"
	var full []string
	if f.Limit > 0 {
		limit = "of " + size(f.Limit)
		if float64(f.Used) > nearlyFull*float64(f.Limit) {
			full = append(full, fmt.Sprintf("%s of %s that JetStream may use are used", size(f.Used), size(f.Limit)))
		}
	}
	for i := range f.Streams {
		s := &f.Streams[i]
		if s.Refuses && s.MaxBytes > 0 && float64(s.Bytes) > nearlyFull*float64(s.MaxBytes) {
			full = append(full, fmt.Sprintf("%s has %s of %s and refuses what is more", s.Name, size(s.Bytes), size(s.MaxBytes)))
		}
	}
	if len(full) == 0 {
		c.note(name, OK, "", "%s used, %s", size(f.Used), limit)
	}
	c.several(name, Warn, "give it more, or end what fills it", full)
}

// disk looks at the room of the data directory.
func (d *Doctor) disk(_ context.Context, c *chart) {
	const name = "disk"
	is, err := d.Disk()
	text := fmt.Sprintf("%s of %s are free in %s", size(is.Free), size(is.Size), is.Dir)
	switch {
	case err != nil:
		c.note(name, Fail, "see whether the data directory is there", "%v", err)
	case is.Free < is.MinFree:
		c.note(name, Fail, "free space: writes that would need it are refused", "%s, %s must be", text, size(is.MinFree))
	case is.Free < scarce*is.MinFree:
		c.note(name, Warn, fmt.Sprintf("free space: below %s writes are refused", size(is.MinFree)), "%s", text)
	default:
		c.note(name, OK, "", "%s", text)
	}
}

// scarce is how many times the least free space is told to be little.
const scarce = 4
