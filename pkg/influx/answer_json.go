package influx

import (
	"encoding/json"
	"errors"
	"io"

	"ringmaster/pkg/result"
)

// jsonDocument is a chunk of an answer in JSON.
type jsonDocument struct {
	Results []struct {
		StatementID int           `json:"statement_id"`
		Series      []jsonTable   `json:"series"`
		Messages    []jsonMessage `json:"messages"`
		Partial     bool          `json:"partial"`
		Error       string        `json:"error"`
	} `json:"results"`
	Error string `json:"error"`
}

type jsonMessage struct {
	Level string `json:"level"`
	Text  string `json:"text"`
}

type jsonTable struct {
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"`
	Columns []string          `json:"columns"`
	Values  [][]any           `json:"values"`
	Partial bool              `json:"partial"`
}

// nextJSON reads a document, which has one result.
func (a *Answer) nextJSON() (*result.Result, error) {
	var doc jsonDocument
	err := a.json.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF) && !a.whole:
		return nil, broken("it ends before its end")
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, broken("it ends in the middle")
	case err != nil:
		return nil, broken("%v", err)
	case doc.Error != "":
		return nil, &serverError{doc.Error}
	case len(doc.Results) != 1:
		return nil, broken("a chunk with %d results", len(doc.Results))
	}
	from := &doc.Results[0]
	r := &result.Result{StatementID: from.StatementID, Partial: from.Partial, Err: from.Error}
	for _, m := range from.Messages {
		r.Messages = append(r.Messages, result.Message(m))
	}
	for i := range from.Series {
		s, err := from.Series[i].table()
		if err != nil {
			return nil, err
		}
		r.Series = append(r.Series, s)
	}
	a.whole = !r.Partial
	return r, nil
}

func (t *jsonTable) table() (result.Series, error) {
	s := result.Series{Name: t.Name, Columns: t.Columns, Partial: t.Partial}
	for key, value := range t.Tags {
		s.Tags = append(s.Tags, result.Tag{Key: key, Value: value})
	}
	result.SortTags(s.Tags)
	for _, from := range t.Values {
		row := make([]result.Value, len(from))
		for i, v := range from {
			var err error
			if row[i], err = jsonValue(v); err != nil {
				return s, err
			}
		}
		s.Values = append(s.Values, row)
	}
	return s, nil
}

// jsonValue reads a number as an integer where it can be one.
func jsonValue(v any) (result.Value, error) {
	switch v := v.(type) {
	case nil:
		return result.Value{}, nil
	case string:
		return result.StringValue(v), nil
	case bool:
		return result.BooleanValue(v), nil
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return result.IntegerValue(i), nil
		}
		f, err := v.Float64()
		if err != nil {
			return result.Value{}, broken("a number %s", v)
		}
		return result.FloatValue(f), nil
	default: // a list or an object, which stay text
		text, err := json.Marshal(v)
		return result.StringValue(string(text)), err
	}
}
