package operation

import (
	"math/bits"
	"time"
)

// Slice is the unit of copying and proving: one measurement of one retention
// policy in one window. A window never crosses a shard-group boundary of its
// source, because InfluxDB casts or drops values when it reads over one.
type Slice struct {
	Database        string `json:"database"`
	RetentionPolicy string `json:"retention_policy"`
	Measurement     string `json:"measurement"`
	// From and To are nanoseconds; To is excluded, unless Last is set, which
	// closes the last window of InfluxDB's legal time.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	Last bool  `json:"last,omitempty"`
	// Points is the estimate that tasks are balanced by.
	Points int64 `json:"points,omitempty"`
	// Overlap is set where several shard groups cover the window, so that its
	// types have to be checked before it is read.
	Overlap bool `json:"overlap,omitempty"`
	// Expired is set for the part that retention no longer admits: its points
	// are counted and reported, not copied.
	Expired bool `json:"expired,omitempty"`
}

// Plan is the header of an operation's plan. Its slices are stored in chunks.
type Plan struct {
	OperationID string    `json:"operation_id"`
	Epoch       uint64    `json:"epoch"`
	CreatedAt   time.Time `json:"created_at"`
	// Backends are the circle's backends in configuration order and then the
	// removed ones; tasks and moves refer to them by index.
	Backends []PlanBackend `json:"backends"`
	Policies []PlanPolicy  `json:"policies"`
	Moves    []PlanMove    `json:"moves"`
	Tasks    []PlanTask    `json:"tasks"`
	Chunks   []Document    `json:"chunks"`
	Totals   PlanTotals    `json:"totals"`
	// Notes are what a person should know about how the plan was made.
	Notes []string `json:"notes,omitempty"`
}

// PlanRef is what an operation record keeps of its plan.
type PlanRef struct {
	Document
	Totals PlanTotals `json:"totals"`
}

// PlanTotals sums a plan up.
type PlanTotals struct {
	Databases    int `json:"databases"`
	Measurements int `json:"measurements"`
	Slices       int `json:"slices"`
	Tasks        int `json:"tasks"`
	// Points is the sampled estimate.
	Points int64 `json:"points"`
}

// PlanBackend is what the survey found at one backend.
type PlanBackend struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Removed bool   `json:"removed,omitempty"`
	// Databases and Measurements count what is there, InPlace what belongs there.
	Databases    int `json:"databases"`
	Measurements int `json:"measurements"`
	InPlace      int `json:"in_place"`
}

// PlanPolicy is a retention policy that has to exist at a destination, with
// exactly these attributes, before the first point is copied there.
type PlanPolicy struct {
	Backend       int           `json:"backend"`
	Database      string        `json:"database"`
	Name          string        `json:"name"`
	Duration      time.Duration `json:"duration"`
	ShardDuration time.Duration `json:"shard_duration"`
	Replication   int           `json:"replication"`
	Default       bool          `json:"default"`
}

// PlanMove sums up what goes from one backend to another.
type PlanMove struct {
	From         int   `json:"from"`
	To           int   `json:"to"`
	Measurements int   `json:"measurements"`
	Slices       int   `json:"slices"`
	Points       int64 `json:"points"`
}

// PlanTask is one task to be.
type PlanTask struct {
	From   int   `json:"from"`
	To     int   `json:"to"`
	Wave   int   `json:"wave,omitempty"`
	Span   Span  `json:"span"`
	Points int64 `json:"points"`
}

// Budget says how slices become tasks.
type Budget struct {
	// SlicePoints bounds a slice, TaskPoints a task.
	SlicePoints, TaskPoints int64
	// SliceCost is what a slice costs beyond its points (a query at each end),
	// in points.
	SliceCost int64
	// SpreadTasks is how many tasks a small plan is spread over, so that every
	// slot has work; MinTaskPoints keeps them from becoming trivial.
	SpreadTasks   int
	MinTaskPoints int64
	// TaskSlices and ChunkSlices bound the slices of a task and of a chunk.
	TaskSlices, ChunkSlices int
}

// DefaultBudget is the budget of DESIGN §6: tasks of about 250,000 points.
func DefaultBudget() Budget {
	return Budget{
		SlicePoints: 100_000, TaskPoints: 250_000, SliceCost: 200,
		SpreadTasks: 32, MinTaskPoints: 25_000,
		TaskSlices: MaxSlicesPerTask, ChunkSlices: 20_000,
	}
}

// Window is a part of time; see Slice.
type Window struct {
	From, To int64
	Last     bool
	// Overlap: more than one shard group covers it.
	Overlap bool
	// Expired: it lies before the retention cutoff.
	Expired bool
}

// Candidate is one measurement window that has to move, as the survey saw it.
type Candidate struct {
	From, To, Wave  int
	Database        string
	RetentionPolicy string
	Measurement     string
	Window          Window
	// Points is the estimate.
	Points int64
	// First and Last are the times of the first and last point in the window,
	// where the survey has looked (Looked); the window is then cut between them.
	First, Last int64
	Looked      bool
}

// Bundler turns candidates into slices, tasks and chunks. It is deterministic:
// the same candidates in the same order give the same plan. Candidates must
// come ordered by wave and then by source and destination.
type Bundler struct {
	budget  Budget
	target  int64
	put     func(chunk int, slices []Slice) (Document, error)
	buffer  []Slice
	current *PlanTask
	cost    int64
	tasks   []PlanTask
	chunks  []Document
	moves   map[[2]int]*PlanMove
	order   [][2]int
	totals  PlanTotals
	last    candidateKey
	seen    bool
}

type candidateKey struct {
	from, to              int
	database, measurement string
}

// NewBundler returns a bundler for about total points. put stores a finished
// chunk; the slices are valid only during the call.
func NewBundler(b Budget, total int64, put func(chunk int, slices []Slice) (Document, error)) *Bundler {
	target := b.TaskPoints
	if spread := total / int64(max(b.SpreadTasks, 1)); spread < target {
		target = max(spread, b.MinTaskPoints)
	}
	return &Bundler{budget: b, target: target, put: put, moves: map[[2]int]*PlanMove{}}
}

// Add cuts a candidate into slices and bundles them.
func (b *Bundler) Add(c Candidate) error {
	pair := [2]int{c.From, c.To}
	move, ok := b.moves[pair]
	if !ok {
		move = &PlanMove{From: c.From, To: c.To}
		b.moves[pair] = move
		b.order = append(b.order, pair)
	}
	key := candidateKey{c.From, c.To, c.Database, c.Measurement}
	if !b.seen || key != b.last {
		b.last, b.seen = key, true
		move.Measurements++
	}
	for _, s := range Cut(c, b.budget.SlicePoints) {
		if err := b.addSlice(c, s); err != nil {
			return err
		}
		move.Slices++
		move.Points += s.Points
	}
	return nil
}

func (b *Bundler) addSlice(c Candidate, s Slice) error {
	cost := s.Points + b.budget.SliceCost
	t := b.current
	full := t != nil && (t.From != c.From || t.To != c.To || t.Wave != c.Wave ||
		b.cost+cost > b.target || t.Span.Count >= b.budget.TaskSlices)
	if full {
		b.closeTask()
	}
	if b.current == nil && len(b.buffer) >= b.budget.ChunkSlices-b.budget.TaskSlices {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if b.current == nil {
		b.current = &PlanTask{
			From: c.From, To: c.To, Wave: c.Wave,
			Span: Span{Chunk: len(b.chunks), First: len(b.buffer)},
		}
		b.cost = 0
	}
	b.buffer = append(b.buffer, s)
	b.current.Span.Count++
	b.current.Points += s.Points
	b.cost += cost
	b.totals.Slices++
	b.totals.Points += s.Points
	return nil
}

func (b *Bundler) closeTask() {
	if b.current == nil {
		return
	}
	b.tasks = append(b.tasks, *b.current)
	b.current = nil
}

func (b *Bundler) flush() error {
	if len(b.buffer) == 0 {
		return nil
	}
	doc, err := b.put(len(b.chunks), b.buffer)
	if err != nil {
		return err
	}
	b.chunks = append(b.chunks, doc)
	b.buffer = b.buffer[:0]
	return nil
}

// Finish closes the last task and chunk and writes tasks, chunks, moves and
// totals into p. Totals.Databases and Totals.Measurements are the caller's.
func (b *Bundler) Finish(p *Plan) error {
	b.closeTask()
	if err := b.flush(); err != nil {
		return err
	}
	p.Tasks, p.Chunks = b.tasks, b.chunks
	for _, pair := range b.order {
		p.Moves = append(p.Moves, *b.moves[pair])
	}
	p.Totals.Slices, p.Totals.Points = b.totals.Slices, b.totals.Points
	p.Totals.Tasks = len(b.tasks)
	return nil
}

// Cut divides a candidate into slices of about the given number of points by
// equal parts of the time its points span. Together the slices cover the whole
// window; none is narrower than a nanosecond.
func Cut(c Candidate, limit int64) []Slice {
	whole := Slice{
		Database: c.Database, RetentionPolicy: c.RetentionPolicy, Measurement: c.Measurement,
		From: c.Window.From, To: c.Window.To, Last: c.Window.Last, Points: c.Points,
		Overlap: c.Window.Overlap, Expired: c.Window.Expired,
	}
	if limit <= 0 || c.Points <= limit || c.Window.Expired {
		return []Slice{whole}
	}
	span := whole
	if c.Looked && whole.From <= c.First && c.First < c.Last && c.Last < whole.To {
		span.From, span.To, span.Last = c.First, c.Last+1, false
	}
	parts := span.Split(int((c.Points + limit - 1) / limit))
	parts[0].From = whole.From
	last := &parts[len(parts)-1]
	last.To, last.Last = whole.To, whole.Last
	return parts
}

// Split divides a slice into at most n parts of equal time.
func (s Slice) Split(n int) []Slice {
	// The width may exceed the largest int64, as legal time spans nearly 2^64.
	width := uint64(s.To) - uint64(s.From)
	if uint64(n) > width {
		n = int(width)
	}
	if n < 2 {
		return []Slice{s}
	}
	parts := make([]Slice, n)
	from := s.From
	for i := range parts {
		p := s
		p.From = from
		if i < n-1 {
			hi, lo := bits.Mul64(width, uint64(i+1))
			offset, _ := bits.Div64(hi, lo, uint64(n))
			p.To = int64(uint64(s.From) + offset)
			p.Last = false
		}
		p.Points = s.Points/int64(n) + btoi(int64(i) < s.Points%int64(n))
		parts[i] = p
		from = p.To
	}
	return parts
}

func btoi(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
