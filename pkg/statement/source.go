package statement

import (
	"regexp"
	"slices"

	"github.com/influxdata/influxql"
)

// Source is what a statement reads from, at any depth: a measurement by name, or
// those whose names match.
type Source struct {
	// Database is that of the source or of the statement; "" if there is none.
	Database string
	// RetentionPolicy is that of the source or of the request; "" means the
	// database's default.
	RetentionPolicy string
	Name            string
	Regex           *regexp.Regexp
}

// Sources returns what the statement names in FROM or WITH MEASUREMENT, at all
// depths, in the order of the text. None of a SHOW means all measurements.
func (s *Statement) Sources() []Source {
	var sources []Source
	for _, m := range s.measurements() {
		source := Source{
			Database: s.databaseOf(m), RetentionPolicy: m.RetentionPolicy, Name: m.Name,
		}
		if source.RetentionPolicy == "" {
			source.RetentionPolicy = s.defaults.RetentionPolicy
		}
		if m.Regex != nil {
			source.Regex = m.Regex.Val
		}
		sources = append(sources, source)
	}
	return sources
}

func (s *Statement) databaseOf(m *influxql.Measurement) string {
	if m.Database != "" {
		return m.Database
	}
	return s.Database
}

// measurements returns the sources of the statement at all depths.
func (s *Statement) measurements() []*influxql.Measurement {
	var sources influxql.Sources
	switch ast := s.AST.(type) {
	case *influxql.SelectStatement:
		sources = ast.Sources
	case *influxql.ExplainStatement:
		sources = ast.Statement.Sources
	case *influxql.ShowMeasurementsStatement:
		if ast.Source != nil {
			sources = influxql.Sources{ast.Source}
		}
	case *influxql.ShowSeriesStatement:
		sources = ast.Sources
	case *influxql.ShowTagKeysStatement:
		sources = ast.Sources
	case *influxql.ShowTagValuesStatement:
		sources = ast.Sources
	case *influxql.ShowFieldKeysStatement:
		sources = ast.Sources
	case *influxql.ShowMeasurementCardinalityStatement:
		sources = ast.Sources
	case *influxql.ShowSeriesCardinalityStatement:
		sources = ast.Sources
	case *influxql.ShowTagKeyCardinalityStatement:
		sources = ast.Sources
	case *influxql.ShowTagValuesCardinalityStatement:
		sources = ast.Sources
	case *influxql.ShowFieldKeyCardinalityStatement:
		sources = ast.Sources
	case *influxql.DeleteSeriesStatement:
		sources = ast.Sources
	case *influxql.DropSeriesStatement:
		sources = ast.Sources
	}
	return leaves(sources)
}

// leaves returns the measurements of sources at all depths.
func leaves(sources influxql.Sources) []*influxql.Measurement {
	var found []*influxql.Measurement
	for _, source := range sources {
		switch source := source.(type) {
		case *influxql.Measurement:
			found = append(found, source)
		case *influxql.SubQuery:
			found = append(found, leaves(source.Statement.Sources)...)
		}
	}
	return found
}

// database is the database that the statement is about.
func (s *Statement) database() string {
	named := ""
	switch ast := s.AST.(type) {
	case *influxql.ShowMeasurementsStatement:
		named = ast.Database
	case *influxql.ShowSeriesStatement:
		named = ast.Database
	case *influxql.ShowTagKeysStatement:
		named = ast.Database
	case *influxql.ShowTagValuesStatement:
		named = ast.Database
	case *influxql.ShowFieldKeysStatement:
		named = ast.Database
	case *influxql.ShowMeasurementCardinalityStatement:
		named = ast.Database
	case *influxql.ShowSeriesCardinalityStatement:
		named = ast.Database
	case *influxql.ShowTagKeyCardinalityStatement:
		named = ast.Database
	case *influxql.ShowTagValuesCardinalityStatement:
		named = ast.Database
	case *influxql.ShowFieldKeyCardinalityStatement:
		named = ast.Database
	case *influxql.ShowRetentionPoliciesStatement:
		named = ast.Database
	case *influxql.CreateDatabaseStatement:
		return ast.Name
	case *influxql.DropDatabaseStatement:
		return ast.Name
	case *influxql.CreateRetentionPolicyStatement:
		return ast.Database
	case *influxql.AlterRetentionPolicyStatement:
		return ast.Database
	case *influxql.DropRetentionPolicyStatement:
		return ast.Database
	case *influxql.ShowDatabasesStatement, *influxql.ShowShardsStatement, *influxql.ShowShardGroupsStatement,
		*influxql.ShowStatsStatement, *influxql.ShowDiagnosticsStatement, *influxql.ShowQueriesStatement:
		return ""
	}
	if named != "" {
		return named
	}
	return s.defaults.Database
}

// fault is what a server answers before it looks at data.
func (s *Statement) fault() *Fault {
	if f := timeless(s.AST); f != nil {
		return f
	}
	switch ast := s.AST.(type) {
	case *influxql.SelectStatement:
		return s.faultOfSelect(ast)
	case *influxql.ExplainStatement:
		return s.faultOfSelect(ast.Statement)
	case *influxql.ShowMeasurementsStatement, *influxql.ShowMeasurementCardinalityStatement,
		*influxql.ShowSeriesCardinalityStatement, *influxql.ShowSeriesStatement,
		*influxql.ShowTagKeysStatement, *influxql.ShowTagKeyCardinalityStatement,
		*influxql.ShowTagValuesStatement, *influxql.ShowTagValuesCardinalityStatement,
		*influxql.ShowFieldKeysStatement, *influxql.ShowFieldKeyCardinalityStatement,
		*influxql.ShowRetentionPoliciesStatement:
		if s.Database == "" && s.needsDatabase() {
			return &Fault{Message: noDatabase}
		}
	}
	return nil
}

// timeless is the fault of a statement about names that asks for a time.
func timeless(ast influxql.Statement) *Fault {
	var what string
	switch ast.(type) {
	case *influxql.ShowMeasurementsStatement:
		what = "MEASUREMENTS"
	case *influxql.ShowMeasurementCardinalityStatement:
		what = "MEASUREMENT EXACT CARDINALITY"
	case *influxql.ShowSeriesCardinalityStatement:
		what = "SERIES EXACT CARDINALITY"
	case *influxql.ShowTagKeyCardinalityStatement:
		what = "TAG KEY EXACT CARDINALITY"
	case *influxql.ShowFieldKeyCardinalityStatement:
		what = "FIELD KEY CARDINALITY"
	default:
		return nil
	}
	if c := conditionOf(ast); *c == nil || !influxql.HasTimeExpr(*c) {
		return nil
	}
	return &Fault{Message: "SHOW " + what + " doesn't support time in WHERE clause", Unnumbered: true}
}

const noDatabase = "database name required"

// needsDatabase is false when every source brings its own.
func (s *Statement) needsDatabase() bool {
	switch s.AST.(type) {
	case *influxql.ShowSeriesStatement, *influxql.ShowFieldKeysStatement, *influxql.ShowFieldKeyCardinalityStatement,
		*influxql.ShowTagKeyCardinalityStatement, *influxql.ShowTagValuesCardinalityStatement:
		from := s.measurements()
		return len(from) == 0 || slices.ContainsFunc(from, func(m *influxql.Measurement) bool { return m.Database == "" })
	default:
		return true
	}
}

func (s *Statement) faultOfSelect(ast *influxql.SelectStatement) *Fault {
	for _, source := range ast.Sources {
		m, ok := source.(*influxql.Measurement)
		if !ok || !influxql.IsSystemName(m.Name) {
			continue
		}
		if _, explain := s.AST.(*influxql.ExplainStatement); explain {
			continue
		}
		return &Fault{Message: "unable to use system source '" + m.Name + "': use " + insteadOf(m.Name) + " instead", Unnumbered: true}
	}
	from := leaves(ast.Sources)
	for _, m := range from {
		switch {
		case m.Name == "" && m.Regex == nil:
			return &Fault{Message: "invalid measurement"}
		case s.databaseOf(m) == "":
			return &Fault{Message: noDatabase}
		}
	}
	if ast.Target != nil && s.databaseOf(ast.Target.Measurement) == "" {
		return &Fault{Message: noDatabase}
	}
	return nil
}

func insteadOf(system string) string {
	switch system {
	case "_fieldKeys":
		return "SHOW FIELD KEYS"
	case "_measurements":
		return "SHOW MEASUREMENTS"
	case "_series":
		return "SHOW SERIES"
	case "_tagKeys":
		return "SHOW TAG KEYS"
	case "_tags":
		return "SHOW TAG VALUES"
	default:
		return "the appropriate meta command"
	}
}
