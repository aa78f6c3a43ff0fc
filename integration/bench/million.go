package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"ringmaster/integration/harness"
	"ringmaster/pkg/operation"
)

const (
	// millionWindows is how many slices each measurement has.
	millionWindows = 10
	// millionRuns is for how long the operation is looked at while it runs.
	millionRuns = 30 * time.Second
	// pagesListed is how many pages of tasks are read, at most.
	pagesListed = 50
)

// million measures an operation of very many slices: how long it takes to plan, what
// it takes on disk, and how long reading it takes while it runs.
func (b *bench) million(measurements int) error {
	fmt.Fprintf(b.out, "\n%d measurements in %d windows: %d slices\n", measurements, millionWindows, measurements*millionWindows)
	source, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = source.Stop() }() // its directory goes with the bench
	destination, err := b.server()
	if err != nil {
		return err
	}
	defer func() { _ = destination.Stop() }() // its directory goes with the bench
	if err := windowed(b.ctx, source.URL(), measurements, millionWindows); err != nil {
		return err
	}
	c, err := b.cluster(2, []string{destination.URL()})
	if err != nil {
		return err
	}
	err = b.millionOf(c, source.URL())
	return errors.Join(err, c.Close())
}

func (b *bench) millionOf(c *harness.Cluster, source string) error {
	before, err := onDisk(c.DataDir())
	if err != nil {
		return err
	}
	op, err := c.Client.Submit(b.ctx, operation.KindRebalance, map[string]any{
		"circle_id": 0, "operation": "rm", "removed_backends": []map[string]string{{"name": "source", "url": source}},
	})
	if err != nil {
		return err
	}
	submitted := time.Now()
	op, err = c.Client.Wait(b.ctx, op.ID, func(o *operation.Operation) bool {
		return o.State != operation.Queued && o.State != operation.Planning
	})
	if err != nil {
		return err
	}
	if op.State != operation.Running {
		return fmt.Errorf("the operation is %s, not running", op.State)
	}
	fmt.Fprintf(b.out, "  planned in %.1f s (goal < 30): %d slices in %d tasks\n",
		time.Since(submitted).Seconds(), op.Plan.Totals.Slices, op.Plan.Totals.Tasks)
	if err := b.readWhileRunning(c, op.ID); err != nil {
		return err
	}
	op, err = c.Client.Operation(b.ctx, op.ID)
	if err != nil {
		return err
	}
	size, err := onDisk(c.DataDir())
	if err != nil {
		return err
	}
	_, rss, err := usage(c.API.PID())
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "  on disk %d MiB (goal < 200), largest RSS of the api %d MiB, with %d of %d tasks done\n",
		(size-before)>>20, rss>>20, op.Progress.Tasks.Done, op.Progress.Tasks.Total)
	if b.whole {
		return b.untilTheEnd(c, op.ID, before)
	}
	return nil
}

// untilTheEnd tells what is on disk when the operation has ended.
func (b *bench) untilTheEnd(c *harness.Cluster, id string, before int64) error {
	op, err := c.Client.Wait(b.ctx, id, harness.Ended)
	if err != nil {
		return err
	}
	size, err := onDisk(c.DataDir())
	if err != nil {
		return err
	}
	_, rss, err := usage(c.API.PID())
	fmt.Fprintf(b.out, "  %s after %.0f s: on disk %d MiB (goal < 200), largest RSS of the api %d MiB\n",
		op.State, op.FinishedAt.Sub(*op.StartedAt).Seconds(), (size-before)>>20, rss>>20)
	return err
}

// readWhileRunning reads the operation again and again, and its tasks page by page.
func (b *bench) readWhileRunning(c *harness.Cluster, id string) error {
	var gets, pages []time.Duration
	cursor := ""
	for start := time.Now(); time.Since(start) < millionRuns; {
		for range 20 {
			took, err := b.timed(c, "/v1/operations/"+id, nil)
			if err != nil {
				return err
			}
			gets = append(gets, took)
			if err := b.pause(5 * time.Millisecond); err != nil {
				return err
			}
		}
		if len(pages) >= pagesListed {
			continue
		}
		var page struct {
			NextCursor string `json:"next_cursor"`
		}
		took, err := b.timed(c, "/v1/operations/"+id+"/tasks?cursor="+cursor, &page)
		if err != nil {
			return err
		}
		pages, cursor = append(pages, took), page.NextCursor
	}
	fmt.Fprintf(b.out, "  GET of the operation while it runs: p50 %s, p99 %s, longest %s (goal p99 < 5 ms; %d requests)\n",
		quantile(gets, 0.5), quantile(gets, 0.99), quantile(gets, 1), len(gets))
	fmt.Fprintf(b.out, "  a page of its tasks: p50 %s, longest %s (goal < 100 ms; %d pages)\n", quantile(pages, 0.5), quantile(pages, 1), len(pages))
	return nil
}

// timed reads an answer and returns how long that took; into may be nil.
func (b *bench) timed(c *harness.Cluster, path string, into any) (time.Duration, error) {
	start := time.Now()
	res, raw, err := c.Client.Do(b.ctx, http.MethodGet, path, nil, nil)
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: %s: %s", path, res.Status, raw)
	}
	if into == nil {
		return took, nil
	}
	return took, json.Unmarshal(raw, into)
}

// quantile is the value below which that share lies.
func quantile(all []time.Duration, share float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}

// onDisk is how large the files below a directory are.
func onDisk(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	return size, err
}
