package segment

import (
	"fmt"
	"slices"
	"time"
)

// Commit enters what has been archived of a datasource at one time: all parts of one
// or several windows. What was current of these windows is superseded, and nothing
// else is: a current segment whose window is not covered by the new ones together is
// an [*OverlapError], and parts that are not complete wrap [ErrIncomplete].
//
// pages are, in order, at least all those of the datasource whose reach overlaps one of
// the windows, and that in whose place an entry belongs; none for the first. They stay
// as they are: the result are all pages afterwards, in order, those that have not
// changed being the same ones, new ones having the number 0.
//
// What is archived again without a difference has the id that it had, and its entry
// becomes live again, held by those who are said to hold it and those who did.
func Commit(pages []*Page, d Datasource, set []Entry, at time.Time) ([]*Page, error) {
	for _, p := range pages {
		if p.Datasource != d {
			return nil, fmt.Errorf("a page of %v among those of %v", p.Datasource, d)
		}
	}
	set, windows, err := checkSet(set)
	if err != nil {
		return nil, err
	}
	added := make(map[ID]struct{}, len(set))
	for i := range set {
		added[set[i].ID] = struct{}{}
	}
	for f := range current(pages) {
		if _, same := added[f.ID]; !same && touches(f.Window, windows) && !covers(windows, f.Window) {
			return nil, &OverlapError{Window: windows[0], Other: f.ID, OtherWindow: f.Window}
		}
	}
	c := commit{pages: slices.Clone(pages), changed: map[*Page]struct{}{}, d: d, at: at.UTC()}
	for i := range c.pages {
		c.supersede(i, set, added)
	}
	for i := range set {
		c.enter(&set[i])
	}
	c.split()
	return c.pages, nil
}

// checkSet puts a set in order and checks that it is complete. It returns its windows,
// which are disjoint and in order.
func checkSet(set []Entry) ([]Entry, []Window, error) {
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b Entry) int { return a.Compare(&b) })
	if len(set) == 0 {
		return nil, nil, fmt.Errorf("%w: there are none", ErrIncomplete)
	}
	var windows []Window
	for i := range set {
		e := &set[i]
		if err := e.Check(); err != nil {
			return nil, nil, err
		}
		part := 1
		if i > 0 && set[i-1].Window == e.Window {
			part = set[i-1].Part + 1
		}
		last := i == len(set)-1 || set[i+1].Window != e.Window
		if e.Part != part || last && e.Part != e.Parts || part > 1 && e.Parts != set[i-1].Parts {
			return nil, nil, fmt.Errorf("%w: part %d of %d of %v where part %d should be", ErrIncomplete, e.Part, e.Parts, e.Window, part)
		}
		if part > 1 {
			continue
		}
		if n := len(windows); n > 0 && windows[n-1].Overlaps(e.Window) {
			return nil, nil, &OverlapError{Window: e.Window, Other: set[i-1].ID, OtherWindow: windows[n-1]}
		}
		windows = append(windows, e.Window)
	}
	return set, windows, nil
}

// touches reports whether a window overlaps one of some.
func touches(w Window, windows []Window) bool {
	return slices.ContainsFunc(windows, w.Overlaps)
}

// covers reports whether windows, disjoint and in order, have every time of w.
func covers(windows []Window, w Window) bool {
	at := w.From
	for _, v := range windows {
		if !v.Contains(at) {
			continue
		}
		if v.To > w.To || v.To == w.To && (v.Last || !w.Last) {
			return true
		}
		at = v.To
	}
	return false
}

// commit is a Commit under way.
type commit struct {
	pages   []*Page
	changed map[*Page]struct{} // those that are copies already
	d       Datasource
	at      time.Time
}

// own returns a page that may be changed.
func (c *commit) own(i int) *Page {
	p := c.pages[i]
	if _, ours := c.changed[p]; !ours {
		p = p.clone()
		c.pages[i], c.changed[p] = p, struct{}{}
	}
	return p
}

// supersede supersedes what is current in a page and overlaps the set.
func (c *commit) supersede(page int, set []Entry, added map[ID]struct{}) {
	for i := range c.pages[page].Entries {
		e := &c.pages[page].Entries[i]
		if _, same := added[e.ID]; same || !e.State.Current() {
			continue
		}
		first := slices.IndexFunc(set, func(f Entry) bool { return f.Window.Overlaps(e.Window) })
		if first < 0 {
			continue
		}
		e = &c.own(page).Entries[i]
		e.State, e.SupersededAt, e.SupersededBy = Superseded, c.at, set[first].ID
	}
}

// enter puts an entry in its place. One of the same segment gives way.
func (c *commit) enter(of *Entry) {
	e := of.clone()
	e.State, e.ArchivedAt = Live, c.at
	e.DamagedAt, e.Damage, e.DeletedAt, e.DeletedBy, e.SupersededAt, e.SupersededBy = time.Time{}, "", time.Time{}, "", time.Time{}, ID{}
	for i, p := range c.pages {
		if before := p.Find(e.ID); before != nil {
			e.Holders = append(e.Holders, before.Holders...)
			p = c.own(i)
			p.Entries = slices.DeleteFunc(p.Entries, func(f Entry) bool { return f.ID == e.ID })
		}
	}
	e.Holders = sorted(e.Holders)
	if len(c.pages) == 0 {
		p := &Page{Datasource: c.d}
		c.pages, c.changed[p] = []*Page{p}, struct{}{}
	}
	// The last page that begins before it.
	place := 0
	for i, p := range c.pages {
		if len(p.Entries) > 0 && p.Entries[0].Compare(&e) < 0 {
			place = i
		}
	}
	p := c.own(place)
	at, _ := slices.BinarySearchFunc(p.Entries, e, func(a, b Entry) int { return a.Compare(&b) })
	p.Entries = slices.Insert(p.Entries, at, e)
}

// split halves pages until none has too many entries.
func (c *commit) split() {
	for i := 0; i < len(c.pages); {
		if p := c.pages[i]; len(p.Entries) > MaxEntries {
			rest := p.Split()
			c.changed[rest] = struct{}{}
			c.pages = slices.Insert(c.pages, i+1, rest)
			continue
		}
		i++
	}
}
