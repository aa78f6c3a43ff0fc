package result

import (
	"errors"
	"time"
)

// jsonChunks writes a document for each result.
type jsonChunks struct{ pretty bool }

func (j jsonChunks) add(dst []byte, r *Result) ([]byte, error) {
	doc, err := appendJSONResult([]byte(`{"results":[`), r)
	switch {
	case errors.Is(err, errNumber):
		// In the place of the document, as InfluxDB has it.
		return append(append(dst, err.Error()...), '\n'), nil
	case err != nil:
		return dst, err
	}
	doc = append(doc, "]}"...)
	if j.pretty {
		dst = (&indenter{}).append(dst, doc)
	} else {
		dst = append(dst, doc...)
	}
	return append(dst, '\n'), nil
}

func (j jsonChunks) end(dst []byte) ([]byte, error) { return dst, nil }
func (j jsonChunks) spilled()                       {}

func appendJSONResult(dst []byte, r *Result) ([]byte, error) {
	dst = appendJSONStart(dst, r.StatementID)
	var series jsonSeries
	for i := range r.Series {
		if i == 0 {
			dst = append(dst, `,"series":[`...)
		} else {
			dst = append(dst, ',')
		}
		s := &r.Series[i]
		dst = series.open(dst, s)
		var err error
		if dst, err = series.values(dst, s.Values, r.Location); err != nil {
			return dst, err
		}
		dst = series.close(dst, s.Partial)
	}
	if len(r.Series) > 0 {
		dst = append(dst, ']')
	}
	return appendJSONEnd(dst, r.Messages, r.Partial, r.Err), nil
}

// jsonWhole writes one document of all results; parts of one statement are put
// together.
type jsonWhole struct {
	pretty bool
	indent indenter

	results int
	current Result // its series, without values, is the last one
	series  int    // of the current result
	open    jsonSeries
	opened  bool // a series is open

	// docAt and resultAt are where the document and the current result begin in
	// what has not been written, -1 if that has left.
	docAt, resultAt int
	before          indenter // as it was there
	broken          bool     // nothing but the text of an error follows
}

func (j *jsonWhole) put(dst, compact []byte) []byte {
	if j.pretty {
		return j.indent.append(dst, compact)
	}
	return append(dst, compact...)
}

func (j *jsonWhole) add(dst []byte, r *Result) ([]byte, error) {
	if j.broken {
		return dst, nil
	}
	if j.results == 0 || j.current.StatementID != r.StatementID {
		dst = j.begin(j.finish(dst), r)
	} else if r.Err != "" && j.resultAt >= 0 {
		// An error takes the place of what came before it.
		j.indent = j.before
		dst = j.put(dst[:j.resultAt], appendJSONStart(nil, r.StatementID))
		j.series, j.opened, j.current = 0, false, Result{StatementID: r.StatementID}
	}
	if r.Err != "" {
		j.current.Err = r.Err
		j.current.Messages = r.Messages
		return dst, nil
	}
	for i, joins := 0, true; i < len(r.Series); i++ {
		s := &r.Series[i]
		// Only what a result begins with goes on with the series before.
		joins = joins && j.opened && j.current.Series[0].Same(s)
		var err error
		if dst, err = j.addSeries(dst, s, joins, r.Location); err != nil {
			return j.unwritable(dst, err)
		}
	}
	j.current.Messages = append(j.current.Messages, r.Messages...)
	j.current.Partial = r.Partial
	return dst, nil
}

// addSeries adds a series or, if it joins the last one, further rows of that.
func (j *jsonWhole) addSeries(dst []byte, s *Series, joins bool, at *time.Location) ([]byte, error) {
	var compact []byte
	if !joins {
		compact = j.closeSeries(compact)
		if j.series == 0 {
			compact = append(compact, `,"series":[`...)
		} else {
			compact = append(compact, ',')
		}
		j.series++
		j.opened = true
		compact = j.open.open(compact, s)
		j.current.Series = []Series{{Name: s.Name, Tags: s.Tags}}
	}
	compact, err := j.open.values(compact, s.Values, at)
	j.current.Series[0].Partial = s.Partial
	if err != nil {
		return dst, err
	}
	return j.put(dst, compact), nil
}

// unwritable answers that a value cannot be written: with a text in the place of
// the document or, when that has begun, as an error of the statement.
func (j *jsonWhole) unwritable(dst []byte, err error) ([]byte, error) {
	if !errors.Is(err, errNumber) {
		return dst, err
	}
	if j.docAt < 0 {
		j.current.Err = err.Error()
		return dst, nil
	}
	j.broken = true
	return append(append(dst[:j.docAt], err.Error()...), '\n'), nil
}

func (j *jsonWhole) begin(dst []byte, r *Result) []byte {
	compact := []byte{','}
	if j.results == 0 {
		compact = []byte(`{"results":[`)
	}
	dst = j.put(dst, compact)
	j.results++
	j.resultAt, j.before = len(dst), j.indent
	j.current, j.series, j.opened = Result{StatementID: r.StatementID}, 0, false
	return j.put(dst, appendJSONStart(nil, r.StatementID))
}

func (j *jsonWhole) closeSeries(dst []byte) []byte {
	if !j.opened {
		return dst
	}
	j.opened = false
	return j.open.close(dst, j.current.Series[0].Partial)
}

// finish closes the current result, if there is one.
func (j *jsonWhole) finish(dst []byte) []byte {
	if j.results == 0 {
		return dst
	}
	compact := j.closeSeries(nil)
	if j.series > 0 {
		compact = append(compact, ']')
	}
	return j.put(dst, appendJSONEnd(compact, j.current.Messages, j.current.Partial, j.current.Err))
}

func (j *jsonWhole) end(dst []byte) ([]byte, error) {
	if j.broken {
		return dst, nil
	}
	if j.results == 0 {
		return append(j.put(dst, []byte("{}")), '\n'), nil
	}
	dst = j.put(j.finish(dst), []byte("]}"))
	return append(dst, '\n'), nil
}

func (j *jsonWhole) spilled() { j.docAt, j.resultAt = -1, -1 }
