package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"ringmaster/events"
	"ringmaster/pkg/bus"
	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
)

// Defaults of StoreOptions.
const (
	// DefaultMaxAge is a weekend and a day.
	DefaultMaxAge = 72 * time.Hour
	// DefaultPoll is how often it is looked how much there is.
	DefaultPoll = time.Second
	// DefaultThrottle is how long an Append waits for the replay to get ahead.
	DefaultThrottle = 8 * time.Second
)

// The alarm goes off when that part of a bound is used, and ends below the other.
const (
	alarmFrom  = 0.7
	alarmUntil = 0.6
)

// StoreOptions configure a Store. Streams and Session are required.
type StoreOptions struct {
	Streams Streams
	Session interface{ View() *serving.View }
	// MaxBytes bounds the hints of each backend, compressed; 0 means
	// events.HintsMaxBytes.
	MaxBytes int64
	// MaxAge bounds how long the oldest one may wait; 0 means DefaultMaxAge.
	MaxAge time.Duration
	// Space returns an error when more bytes do not fit on the disk of the hints;
	// nil means that this process can't tell. bus.Server.Space is meant.
	Space func(more int64) error
	// Poll is how often it is looked how much there is while there is something; 0
	// means DefaultPoll.
	Poll time.Duration
	// Throttle is how long an Append waits at most while the replay does not keep
	// ahead of what is added; 0 means DefaultThrottle.
	Throttle time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger gets alarms; nil drops them.
	Logger *slog.Logger
}

// Store keeps frames for backends that can't take them. It is safe for concurrent
// use. Run keeps its figures fresh.
type Store struct {
	options StoreOptions

	mu    sync.Mutex
	kept  map[string]*kept
	woken chan struct{}
}

// kept is what is known of one backend's hints.
type kept struct {
	state bus.HintsState
	hints Hints
	// opening is full while somebody opens them.
	opening chan struct{}
	// added is what this process has added since state was read, reserved what it
	// may yet add.
	added, reserved int64
	alarm           string
	pace            pace
}

// NewStore returns a store.
func NewStore(o StoreOptions) *Store {
	if o.MaxBytes <= 0 {
		o.MaxBytes = events.HintsMaxBytes
	}
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	if o.Throttle <= 0 {
		o.Throttle = DefaultThrottle
	}
	if o.Space == nil {
		o.Space = func(int64) error { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{options: o, kept: map[string]*kept{}, woken: make(chan struct{}, 1)}
}

// of returns what is known of a backend's hints; mu is held.
func (s *Store) of(backendURL string) *kept {
	k := s.kept[backendURL]
	if k == nil {
		k = &kept{state: bus.HintsState{Backend: backendURL, MaxBytes: s.options.MaxBytes}, opening: make(chan struct{}, 1)}
		s.kept[backendURL] = k
	}
	return k
}

// open returns a backend's hints, made if they are missing.
func (s *Store) open(ctx context.Context, backendURL string) (Hints, error) {
	s.mu.Lock()
	k := s.of(backendURL)
	s.mu.Unlock()
	select {
	case k.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-k.opening }()
	s.mu.Lock()
	hints := k.hints
	s.mu.Unlock()
	if hints != nil {
		return hints, nil
	}
	hints, err := s.options.Streams.Open(ctx, backendURL, s.options.MaxBytes)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.hints = hints
	return hints, nil
}

// Append keeps a frame for a backend, whole or not at all, and returns when it is on
// disk. A *LimitError says which bound keeps it from that. After an error that
// matches bus.ErrUnavailable the frame may have been kept; appending it again is
// harmless as long as nothing that must come after it has been appended meanwhile.
// It waits while the hints are being replayed and grow by too much beside that.
func (s *Store) Append(ctx context.Context, backendURL string, frame *hint.Frame) error {
	parts, err := hint.Encode(nil, frame, partSize)
	if err != nil {
		return err
	}
	bytes := int64(0)
	for _, p := range parts {
		bytes += int64(len(p))
	}
	if err := s.options.Space(bytes); err != nil {
		return s.noSpace(backendURL, err)
	}
	hints, err := s.open(ctx, backendURL)
	if err != nil {
		return err
	}
	if err := s.throttle(ctx, backendURL, hints); err != nil {
		return err
	}
	err = hints.Append(ctx, parts)
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.of(backendURL)
	switch {
	case errors.Is(err, bus.ErrHintsFull):
		return &LimitError{Backend: backendURL, Bound: BoundBytes, Value: size(k.bytes()), Limit: size(k.state.MaxBytes)}
	case err != nil:
		k.hints = nil // perhaps removed
		return err
	}
	if k.bytes() == 0 {
		s.wake()
	}
	k.added += bytes
	return nil
}

func (s *Store) noSpace(backendURL string, err error) error {
	if errors.Is(err, bus.ErrNoSpace) {
		return &LimitError{Backend: backendURL, Bound: BoundSpace, Value: err.Error()}
	}
	return err
}

// bytes is what the hints hold, as far as this process knows.
func (k *kept) bytes() int64 { return int64(k.state.Bytes) + k.added }

// Reserve makes sure, before anything is sent anywhere, that the hints of a backend
// take so many bytes (of line protocol: compressed they are fewer). A *LimitError
// says why not. release gives back what was reserved; it must be called, and may be
// more than once. It does not wait: what it knows of other processes is as old as
// the last poll, and the stream's own bound is what finally holds.
func (s *Store) Reserve(backendURL string, bytes int64) (release func(), err error) {
	if err := s.options.Space(s.allReserved() + bytes); err != nil {
		return nil, s.noSpace(backendURL, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.of(backendURL)
	if age := s.age(k); age > s.options.MaxAge {
		return nil, &LimitError{Backend: backendURL, Bound: BoundAge, Value: age.Round(time.Second).String(), Limit: s.options.MaxAge.String()}
	}
	if k.bytes()+k.reserved+bytes > s.options.MaxBytes {
		return nil, &LimitError{Backend: backendURL, Bound: BoundBytes, Value: size(k.bytes() + k.reserved), Limit: size(s.options.MaxBytes)}
	}
	k.reserved += bytes
	var once sync.Once
	return func() {
		once.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			k.reserved -= bytes
		})
	}, nil
}

func (s *Store) allReserved() (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		sum += k.reserved
	}
	return sum
}

// age is how long the oldest hint has waited.
func (s *Store) age(k *kept) time.Duration {
	if k.state.Oldest.IsZero() {
		return 0
	}
	return s.options.Now().Sub(k.state.Oldest)
}

// Backlog is how much waits for a backend.
type Backlog struct {
	Backend  string
	Mode     serving.Mode
	Messages uint64
	Bytes    int64
	MaxBytes int64
	// Oldest is when the oldest hint was kept; zero if there is none.
	Oldest time.Time
	MaxAge time.Duration
	// Alarm says what is about to be reached, "" if nothing is.
	Alarm string
}

// Backlogs returns how much waits for each backend that has something waiting or is
// not in direct mode, as of the last poll, by URL.
func (s *Store) Backlogs() []Backlog {
	view := s.options.Session.View()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Backlog
	for url, k := range s.kept {
		mode := serving.Direct
		if view != nil {
			mode = view.Mode(url)
		}
		if mode == serving.Direct && k.bytes() == 0 {
			continue
		}
		all = append(all, Backlog{
			Backend: url, Mode: mode, Messages: k.state.Messages, Bytes: k.bytes(), MaxBytes: s.options.MaxBytes,
			Oldest: k.state.Oldest, MaxAge: s.options.MaxAge, Alarm: k.alarm,
		})
	}
	slices.SortFunc(all, func(a, b Backlog) int { return strings.Compare(a.Backend, b.Backend) })
	return all
}

// idlePolls is how many times less often it is looked when nothing waits.
const idlePolls = 15

// Run keeps the figures fresh until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.options.Poll)
	defer ticker.Stop()
	for idle := idlePolls; ; {
		if s.quiet() && idle < idlePolls {
			idle++
		} else {
			idle = 0
			if err := s.Refresh(ctx); err != nil && ctx.Err() == nil {
				s.options.Logger.WarnContext(ctx, "reading how much waits for backends", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.woken:
			idle = idlePolls
		case <-ticker.C:
		}
	}
}

func (s *Store) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// quiet reports whether nothing waits for anybody, as far as is known.
func (s *Store) quiet() bool {
	if v := s.options.Session.View(); v != nil && len(v.State.Backlogs) > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		if k.bytes() > 0 {
			return false
		}
	}
	return true
}

// Refresh reads how much there is.
func (s *Store) Refresh(ctx context.Context) error {
	// What is added meanwhile may be in the list or not: it counts until the next
	// time.
	s.mu.Lock()
	before := map[string]int64{}
	for url, k := range s.kept {
		before[url] = k.added
	}
	s.mu.Unlock()
	list, err := s.options.Streams.List(ctx)
	if err != nil {
		return fmt.Errorf("listing hints: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, state := range list {
		seen[state.Backend] = true
		k := s.of(state.Backend)
		k.state = state
		k.added = max(k.added-before[state.Backend], 0)
		s.watch(ctx, k)
	}
	for url, k := range s.kept {
		if !seen[url] {
			k.state, k.hints = bus.HintsState{Backend: url, MaxBytes: s.options.MaxBytes}, nil
			k.added = max(k.added-before[url], 0)
			s.watch(ctx, k)
		}
	}
	return nil
}

// watch raises the alarm, or ends it; mu is held.
func (s *Store) watch(ctx context.Context, k *kept) {
	level := alarmFrom
	if k.alarm != "" {
		level = alarmUntil
	}
	was := k.alarm
	switch age := s.age(k); {
	case float64(k.bytes()) >= level*float64(s.options.MaxBytes):
		k.alarm = fmt.Sprintf("%s of %s are used", size(k.bytes()), size(s.options.MaxBytes))
	case float64(age) >= level*float64(s.options.MaxAge):
		k.alarm = fmt.Sprintf("the oldest hint has waited for %s, and the limit is %s", age.Round(time.Second), s.options.MaxAge)
	default:
		k.alarm = ""
	}
	switch {
	case was == "" && k.alarm != "":
		s.options.Logger.ErrorContext(ctx, "hints are about to reach a bound, beyond which writes are refused", "backend", k.state.Backend, "reason", k.alarm)
	case was != "" && k.alarm == "":
		s.options.Logger.InfoContext(ctx, "hints are well within their bounds again", "backend", k.state.Backend)
	}
}

// forget drops what is known of the hints of a backend that has gone.
func (s *Store) forget(backendURL string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[backendURL]; k != nil && k.reserved == 0 {
		delete(s.kept, backendURL)
	}
}
