package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ringmaster/pkg/operation"
)

// BackendLimits knows the limits of the configuration; see pace.Book.
type BackendLimits interface {
	Backend(ctx context.Context, url string) (operation.Limits, error)
}

// room counts the tasks of an operation at each backend, so that no worker is given
// one that would only wait there. What other operations do at a backend is for the
// Grantor to know.
type room struct {
	limits BackendLimits
	own    *int
	used   map[string]int
	most   map[string]limitedTo
	// full are the backends at which a task had no room.
	full map[string]bool
}

// limitedTo is a limit on slots, 0 for none.
type limitedTo struct {
	slots       int
	ofOperation bool
}

func (t *turn) newRoom() *room {
	return &room{
		limits: t.options.Limits, own: t.record.Value.Limits.SlotsPerBackend,
		used: map[string]int{}, most: map[string]limitedTo{}, full: map[string]bool{},
	}
}

// limit is how many tasks may be at a backend.
func (r *room) limit(ctx context.Context, url string) (limitedTo, error) {
	if known, ok := r.most[url]; ok {
		return known, nil
	}
	var l limitedTo
	if r.own != nil {
		l = limitedTo{slots: *r.own, ofOperation: true}
	}
	if r.limits != nil {
		b, err := r.limits.Backend(ctx, url)
		if err != nil {
			return l, err
		}
		if n := b.SlotsPerBackend; n != nil && (l.slots == 0 || *n < l.slots) {
			l = limitedTo{slots: *n}
		}
	}
	r.most[url] = l
	return l, nil
}

// take takes the slots of a task that runs or is about to.
func (r *room) take(task *operation.Task) {
	r.used[task.Source]++
	if task.Destination != task.Source {
		r.used[task.Destination]++
	}
}

// has reports whether there is room for a task at both its backends.
func (r *room) has(ctx context.Context, task *operation.Task) (bool, error) {
	has := true
	for _, url := range []string{task.Source, task.Destination} {
		l, err := r.limit(ctx, url)
		if err != nil {
			return false, err
		}
		if l.slots > 0 && r.used[url] >= l.slots {
			r.full[url], has = true, false
		}
	}
	return has, nil
}

// noteFull remembers since when there is no room for a task at a backend.
func (t *turn) noteFull(r *room) {
	now := t.options.Now()
	next := map[string]fullBackend{}
	for url := range r.full {
		since := now
		if was, ok := t.full[url]; ok {
			since = was.since
		}
		next[url] = fullBackend{since: since, used: r.used[url], limit: r.most[url]}
	}
	t.full = next
}

// fullBackend is a backend all of whose slots are in use.
type fullBackend struct {
	since time.Time
	used  int
	limit limitedTo
}

// slotWaits say at which backends tasks wait for a slot.
func (t *turn) slotWaits() []operation.Wait {
	var waits []operation.Wait
	for _, url := range slices.SortedFunc(maps.Keys(t.full), strings.Compare) {
		f := t.full[url]
		whose := "for this backend"
		if f.limit.ofOperation {
			whose = "for the operation on this backend"
		}
		waits = append(waits, operation.Wait{
			Gate: "slots", Backend: url, Measured: fmt.Sprintf("%d/%d used", f.used, f.limit.slots),
			Limit: fmt.Sprintf("%d slots %s", f.limit.slots, whose), Since: f.since.UTC(),
		})
	}
	return waits
}
