package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
)

// MaxGet is how many keys GetSome reads at most.
const MaxGet = 256

// getAtOnce is how many keys are asked for at a time where each is a request.
const getAtOnce = 8

// GetSome returns the latest values of some keys, at most MaxGet, in their order; those
// that do not exist are left out. The values are not older than the call.
func (k *Bucket) GetSome(ctx context.Context, keys []string) ([]Entry, error) {
	if len(keys) > MaxGet {
		return nil, fmt.Errorf("reading %s: %d keys, must be at most %d", k.name, len(keys), MaxGet)
	}
	read := k.direct
	if k.bus.clustered() {
		read = k.eachOf // of a cluster any replica may answer the other one
	}
	found, err := read(ctx, keys)
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(keys))
	for _, key := range keys {
		if e, ok := found[key]; ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// eachOf asks the leader for one key after the other.
func (k *Bucket) eachOf(ctx context.Context, keys []string) (map[string]Entry, error) {
	entries := make([]Entry, len(keys))
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(getAtOnce)
	for i, key := range keys {
		readers.Go(func() error {
			e, err := k.Get(ctx, key)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			entries[i] = e
			return err
		})
	}
	err := readers.Wait()
	found := make(map[string]Entry, len(keys))
	for _, e := range entries {
		if e.Revision != 0 {
			found[e.Key] = e
		}
	}
	return found, err
}

// direct asks for all keys at once, and again for those that did not fit.
func (k *Bucket) direct(ctx context.Context, keys []string) (map[string]Entry, error) {
	found := make(map[string]Entry, len(keys))
	for missing := keys; len(missing) > 0; {
		subjects := make([]string, len(missing))
		for i, key := range missing {
			if err := checkKey(key); err != nil {
				return nil, err
			}
			subjects[i] = bucketSubject(k.name, key)
		}
		request, err := json.Marshal(struct {
			Subjects []string `json:"multi_last"`
			MaxBytes int      `json:"max_bytes"`
		}{subjects, pageBytes})
		if err != nil {
			return nil, err
		}
		limited, cancel := k.bus.bounded(ctx)
		records, pending, err := k.bus.answers(limited, k.stream, request)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", k.name, err)
		}
		for _, r := range records {
			e := k.entry(r)
			e.Deleted = isMarker(r)
			found[e.Key] = e
		}
		if pending == 0 || len(records) == 0 {
			break
		}
		missing = slices.DeleteFunc(slices.Clone(missing), func(key string) bool { _, ok := found[key]; return ok })
	}
	maps.DeleteFunc(found, func(_ string, e Entry) bool { return e.Deleted })
	return found, nil
}
