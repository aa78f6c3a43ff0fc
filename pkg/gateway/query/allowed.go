package query

import (
	"net/http"
	"slices"

	"ringmaster/pkg/statement"
)

// allowed refuses what is about a database that the configuration does not allow. A
// process that must not serve says so later.
func (r *Runner) allowed(databases ...string) error {
	pass, err := r.o.Session.BeginRead()
	if err != nil {
		return nil // nothing will be read
	}
	defer pass.End()
	list := pass.View().Topology.Databases
	if len(list) == 0 {
		return nil
	}
	for _, db := range databases {
		if db != "" && !slices.Contains(list, db) {
			return &RefusalError{http.StatusBadRequest, "database forbidden: " + db}
		}
	}
	return nil
}

// databases are those that a request is about.
func databases(parsed *statement.Request) []string {
	var all []string
	for _, s := range parsed.Statements {
		all = append(all, s.Database)
		for _, source := range s.Sources() {
			all = append(all, source.Database)
		}
		if to := s.Target(); to != nil {
			all = append(all, to.Database)
		}
	}
	return all
}
