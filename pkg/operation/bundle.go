package operation

// Budget says how slices become tasks.
type Budget struct {
	// SlicePoints bounds a slice, TaskPoints a task.
	SlicePoints, TaskPoints int64
	// SliceCost is what a slice costs beyond its points (a query at each end),
	// in points, and SeriesCost what it costs for each series, since a server goes
	// over all of them for each window.
	SliceCost, SeriesCost int64
	// SeriesPoints is how many points of each series a slice has at least.
	SeriesPoints int64
	// SpreadTasks is how many tasks a small plan is spread over, so that every
	// slot has work; MinTaskPoints keeps them from becoming trivial.
	SpreadTasks   int
	MinTaskPoints int64
	// TaskSlices and ChunkSlices bound the slices of a task and of a chunk,
	// TaskBytes about what the slices of a task take when a record holds them.
	TaskSlices, ChunkSlices, TaskBytes int
}

// DefaultBudget is the budget of DESIGN §6: tasks of about 250,000 points.
func DefaultBudget() Budget {
	return Budget{
		SlicePoints: 100_000, TaskPoints: 250_000, SliceCost: 200, SeriesCost: 10, SeriesPoints: 4,
		SpreadTasks: 32, MinTaskPoints: 25_000,
		TaskSlices: MaxSlicesPerTask, ChunkSlices: 20_000, TaskBytes: 512 << 10,
	}
}

// Bundler turns candidates into slices, tasks and chunks. It is deterministic:
// the same candidates in the same order give the same plan. Candidates must
// come ordered by wave and then by source and destination.
type Bundler struct {
	budget Budget
	target int64
	put    func(chunk int, slices []Slice) (Document, error)
	buffer []Slice
	tasks  []PlanTask
	chunks []Document
	// current is the open task; cost and bytes are what it has so far.
	current *PlanTask
	cost    int64
	bytes   int

	moves  map[[2]int]*PlanMove
	order  [][2]int
	totals PlanTotals
	// A measurement moves once, however many policies and windows it has.
	databases map[string]struct{}
	// measurements are indexes into list, notListed for those beyond its bound.
	measurements map[moving]int32
	list         []PlanMeasurement
	// to are the destinations of each source.
	to map[int][]int
}

const notListed = -1

type moving struct {
	from, to              int
	database, measurement string
}

// NewBundler returns a bundler for about total points. put stores a finished
// chunk; the slices are valid only during the call.
func NewBundler(b Budget, total int64, put func(chunk int, slices []Slice) (Document, error)) *Bundler {
	target := b.TaskPoints
	if spread := total / int64(max(b.SpreadTasks, 1)); spread < target {
		target = min(max(spread, b.MinTaskPoints), target)
	}
	return &Bundler{
		budget: b, target: target, put: put, moves: map[[2]int]*PlanMove{},
		databases: map[string]struct{}{}, measurements: map[moving]int32{}, to: map[int][]int{},
	}
}

// Add cuts a candidate into slices and bundles them.
func (b *Bundler) Add(c Candidate) error {
	pair := [2]int{c.From, c.To}
	move, ok := b.moves[pair]
	if !ok {
		move = &PlanMove{From: c.From, To: c.To}
		b.moves[pair] = move
		b.order = append(b.order, pair)
		b.to[c.From] = append(b.to[c.From], c.To)
	}
	key := moving{c.From, c.To, c.Database, c.Measurement}
	at, ok := b.measurements[key]
	if !ok {
		at = notListed
		if len(b.list) < MaxPlanMeasurements {
			at = int32(len(b.list))
			b.list = append(b.list, PlanMeasurement{From: c.From, To: c.To, Database: c.Database, Measurement: c.Measurement})
		}
		if !b.knows(key) {
			b.totals.Measurements++
		}
		b.measurements[key] = at
		b.databases[c.Database] = struct{}{}
		move.Measurements++
	}
	for _, s := range Cut(c, max(b.budget.SlicePoints, b.budget.SeriesPoints*c.Series)) {
		if err := b.addSlice(c, s); err != nil {
			return err
		}
		size := s.Points * c.PointBytes
		move.Slices++
		move.Points += s.Points
		move.Bytes += size
		b.totals.Bytes += size
		if at != notListed {
			m := &b.list[at]
			m.Slices++
			m.Points += s.Points
			m.Bytes += size
		}
	}
	return nil
}

// knows reports whether the measurement goes somewhere else from the same source,
// too.
func (b *Bundler) knows(key moving) bool {
	for _, key.to = range b.to[key.from] {
		if _, ok := b.measurements[key]; ok {
			return true
		}
	}
	return false
}

func (b *Bundler) addSlice(c Candidate, s Slice) error {
	cost := s.Points + b.budget.SliceCost + b.budget.SeriesCost*c.Series
	size := sliceOverhead + s.nameBytes()
	t := b.current
	full := t != nil && (t.From != c.From || t.To != c.To || t.Wave != c.Wave || t.Rule != c.Rule ||
		b.cost+cost > b.target || t.Span.Count >= b.budget.TaskSlices || b.bytes+size > b.budget.TaskBytes)
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
			From: c.From, To: c.To, Wave: c.Wave, Rule: c.Rule,
			Span: Span{Chunk: len(b.chunks), First: len(b.buffer)},
		}
		b.cost, b.bytes = 0, 0
	}
	b.buffer = append(b.buffer, s)
	b.current.Span.Count++
	b.current.Points += s.Points
	b.cost += cost
	b.bytes += size
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
// totals into p.
func (b *Bundler) Finish(p *Plan) error {
	b.closeTask()
	if err := b.flush(); err != nil {
		return err
	}
	p.Tasks, p.Chunks = b.tasks, b.chunks
	for _, pair := range b.order {
		p.Moves = append(p.Moves, *b.moves[pair])
	}
	p.Measurements, p.MeasurementsLeftOut = b.list, len(b.measurements)-len(b.list)
	p.Totals = b.totals
	p.Totals.Tasks = len(b.tasks)
	p.Totals.Databases = len(b.databases)
	return nil
}
