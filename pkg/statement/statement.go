// Package statement knows InfluxQL for several servers that hold the measurements
// of one database between them: what a request asks for, which of them hold what
// it names, what each of them is asked, and how their answers are put together so
// that the result is what one server with all the data would have answered.
//
// The package is pure. It says what to send and how to merge; others send and
// merge. The reference is InfluxDB 1.8.3, whose own parser it uses.
//
// The way of a statement:
//
//	request, err := statement.Parse(q, params, defaults)
//	for each statement: by its Class; where it is answered from several backends:
//	    lists of measurements, if Lists names databases
//	    plan, err := s.Plan(circle)
//	    ask plan.Probes, then plan.Resolve(answers)
//	    ask plan.Parts, merge by plan.Merge
package statement

import (
	"fmt"
	"time"

	"github.com/influxdata/influxql"
)

// Hidden is the database that is never shown: Ringmaster's own.
const Hidden = "_ringmaster"

// Class says how a statement is answered.
type Class int

// The classes.
const (
	// Read: SELECT, EXPLAIN, EXPLAIN ANALYZE. One complete owner, or a Plan.
	Read Class = iota + 1
	// Into: SELECT … INTO. Read by a Plan, written through the write path; Target.
	Into
	// ShowMerged: a SHOW about data. A Plan.
	ShowMerged
	// ShowOne: any one backend knows the answer.
	ShowOne
	// ShowAll: what each backend says about itself, all of it in turn. A Plan.
	ShowAll
	// CreateEverywhere: sent to every backend of every circle, harmless when repeated.
	CreateEverywhere
	// DropEverywhere: sent to every backend of every circle, with care.
	DropEverywhere
	// Refused: not done here; Refusal says why and what to do instead.
	Refused
)

// Defaults are what a request says beside its text.
type Defaults struct {
	Database        string
	RetentionPolicy string
	// Now is the time that now() stands for in all statements of the request.
	Now time.Time
}

// Request is the statements of one request, in their order.
type Request struct {
	Statements []*Statement
}

// Statement is one statement of a request. It is for one goroutine.
type Statement struct {
	AST   influxql.Statement
	Class Class
	// Text is the statement as the client wrote it. It means what it meant there
	// when it is sent with the request's db, rp and params.
	Text string
	// Database is the database the statement is about: the one it names, or that of
	// the request; "" if it is about none or names several.
	Database string
	// Refusal says, for Refused, why and what to do instead.
	Refusal string
	// Fault is what a server answers before it looks at data, nil if nothing.
	Fault *Fault

	defaults Defaults
}

// Fault is an error that needs no data. It ends the request as an error of the
// statement does.
type Fault struct { //nolint:errname // first of all it is what a statement has
	Message string
	// Unnumbered faults are answered as those of statement 0, whichever statement
	// has them: InfluxDB does so.
	Unnumbered bool
}

func (f *Fault) Error() string { return f.Message }

// RefusedError says why a statement can't be answered from several backends, and
// what to do instead.
type RefusedError struct {
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}
