package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/influxdata/influxql"
)

// server asks an InfluxDB server over plain HTTP and JSON, as any script would.
// It shares no code with Ringmaster's own client, so that what it says is an
// opinion of its own.
type server struct{ url string }

// table is one series of an answer. Numbers are json.Number, times nanoseconds.
type table struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
}

// query runs one statement.
func (s server) query(ctx context.Context, statement string) ([]table, error) {
	form := url.Values{"q": {statement}, "epoch": {"ns"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/query", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Error   string `json:"error"`
		Results []struct {
			Error  string  `json:"error"`
			Series []table `json:"series"`
		} `json:"results"`
	}
	in := json.NewDecoder(res.Body)
	in.UseNumber()
	if err := in.Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", statement, res.Status, err)
	}
	switch {
	case answer.Error != "":
		return nil, fmt.Errorf("%s: %s", statement, answer.Error)
	case len(answer.Results) != 1:
		return nil, fmt.Errorf("%s: %d results", statement, len(answer.Results))
	case answer.Results[0].Error != "":
		return nil, fmt.Errorf("%s: %s", statement, answer.Results[0].Error)
	}
	return answer.Results[0].Series, nil
}

// place is a measurement of a retention policy.
type place struct{ database, policy, measurement string }

// String is the place for people, unquoted.
func (p place) String() string { return p.database + "." + p.policy + "." + p.measurement }

// from is the place in a FROM clause.
func (p place) from() string { return influxql.QuoteIdent(p.database, p.policy, p.measurement) }

// contents are the number of values of every field that a server holds.
type contents map[place]map[string]int64

// points is the number of points of a place: that of its fullest field, since
// every point of the sets here has a value of the field that all have.
func (c contents) points(p place) int64 {
	var n int64
	for _, values := range c[p] {
		n = max(n, values)
	}
	return n
}

// contents counts everything that the server holds.
func (s server) contents(ctx context.Context) (contents, error) {
	all := contents{}
	databases, err := s.query(ctx, "SHOW DATABASES")
	if err != nil {
		return nil, err
	}
	for _, db := range column(databases, "name") {
		if db == "_internal" || db == "_ringmaster" { // what the servers keep for themselves
			continue
		}
		policies, err := s.policies(ctx, db)
		if err != nil {
			return nil, err
		}
		for policy := range policies {
			if err := s.count(ctx, db, policy, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// count adds what one retention policy holds.
func (s server) count(ctx context.Context, db, policy string, into contents) error {
	tables, err := s.query(ctx, "SELECT count(*) FROM "+influxql.QuoteIdent(db, policy)+"./.*/")
	if err != nil {
		return err
	}
	for _, t := range tables {
		if len(t.Values) != 1 || len(t.Values[0]) != len(t.Columns) {
			return fmt.Errorf("counting %s of %s: not one row", t.Name, db)
		}
		values := map[string]int64{}
		for i, name := range t.Columns {
			field, ok := strings.CutPrefix(name, "count_")
			if !ok {
				continue // the time
			}
			number, ok := t.Values[0][i].(json.Number)
			if !ok {
				return fmt.Errorf("counting %s of %s: %v is not a number", t.Name, db, t.Values[0][i])
			}
			if values[field], err = number.Int64(); err != nil {
				return fmt.Errorf("counting %s of %s: %w", t.Name, db, err)
			}
		}
		into[place{db, policy, t.Name}] = values
	}
	return nil
}

// policies describes the retention policies of a database in the server's words.
func (s server) policies(ctx context.Context, db string) (map[string]string, error) {
	tables, err := s.query(ctx, "SHOW RETENTION POLICIES ON "+influxql.QuoteIdent(db))
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, t := range tables {
		for _, row := range t.Values {
			if len(row) != len(t.Columns) {
				return nil, errors.New("reading retention policies: a row is short")
			}
			name, words := "", []string{}
			for i, c := range t.Columns {
				if c == "name" {
					name = fmt.Sprint(row[i])
					continue
				}
				words = append(words, fmt.Sprintf("%s %v", c, row[i]))
			}
			all[name] = strings.Join(words, ", ")
		}
	}
	return all, nil
}

// column returns the texts of one column of all tables.
func column(tables []table, name string) []string {
	var all []string
	for _, t := range tables {
		for i, c := range t.Columns {
			if c != name {
				continue
			}
			for _, row := range t.Values {
				all = append(all, fmt.Sprint(row[i]))
			}
		}
	}
	return all
}
