package segment

import (
	"fmt"
	"slices"
	"time"
)

// MaxEntries is how many entries a page has at most.
const MaxEntries = 512

// Page is a part of the catalog: entries of one datasource, in the order of
// [Entry.Compare]. All pages of a datasource together are in that order, too: each
// ends before the next begins.
type Page struct {
	Datasource Datasource
	// Number tells the pages of a datasource apart. It says nothing about their order;
	// 0 is a page that is not stored yet.
	Number  int
	Entries []Entry
}

// Find returns the entry of a segment, nil if the page has none.
func (p *Page) Find(id ID) *Entry {
	for i := range p.Entries {
		if p.Entries[i].ID == id {
			return &p.Entries[i]
		}
	}
	return nil
}

// Reach is the span of the windows in the page: from where the first begins to where
// the last ends. Windows outside it overlap none of them. ok is false for an empty page.
func (p *Page) Reach() (span Window, ok bool) {
	for i := range p.Entries {
		w := p.Entries[i].Window
		switch {
		case i == 0:
			span = w
		case w.To > span.To:
			span.To, span.Last = w.To, w.Last
		case w.To == span.To:
			span.Last = span.Last || w.Last
		}
	}
	return span, len(p.Entries) > 0
}

// Check returns an error if the page is not in order or has what can't be.
func (p *Page) Check() error {
	if len(p.Entries) > MaxEntries {
		return fmt.Errorf("a page of %d entries, not more than %d", len(p.Entries), MaxEntries)
	}
	if err := p.Datasource.Check(); err != nil {
		return err
	}
	seen := make(map[ID]struct{}, len(p.Entries))
	for i := range p.Entries {
		e := &p.Entries[i]
		if err := e.Check(); err != nil {
			return err
		}
		if i > 0 && p.Entries[i-1].Compare(e) >= 0 {
			return fmt.Errorf("segment %s is out of order", e.ID)
		}
		if _, twice := seen[e.ID]; twice {
			return fmt.Errorf("segment %s is there twice", e.ID)
		}
		seen[e.ID] = struct{}{}
	}
	return nil
}

// clone returns a copy that can be changed.
func (p *Page) clone() *Page {
	c := &Page{Datasource: p.Datasource, Number: p.Number, Entries: make([]Entry, len(p.Entries))}
	for i := range p.Entries {
		c.Entries[i] = p.Entries[i].clone()
	}
	return c
}

// change finds an entry that is to be changed.
func (p *Page) change(id ID, verb string, from ...State) (*Entry, error) {
	e := p.Find(id)
	if e == nil {
		return nil, fmt.Errorf("segment %s: %w", id, ErrNoEntry)
	}
	if !slices.Contains(from, e.State) {
		return nil, &StateError{ID: id, State: e.State, Verb: verb}
	}
	return e, nil
}

// Tombstone removes a current segment: its entry stays and says when and by whom.
func (p *Page) Tombstone(id ID, at time.Time, by string) error {
	e, err := p.change(id, "removed", Live, Damaged)
	if err != nil {
		return err
	}
	e.State, e.DeletedAt, e.DeletedBy = Tombstoned, at.UTC(), by
	return nil
}

// MarkDamaged says that no store has an undamaged copy of a current segment.
func (p *Page) MarkDamaged(id ID, at time.Time, problem string) error {
	e, err := p.change(id, "marked as damaged", Live, Damaged)
	if err != nil {
		return err
	}
	e.State, e.DamagedAt, e.Damage = Damaged, at.UTC(), problem
	return nil
}

// MarkRepaired says that a damaged segment has an undamaged copy again.
func (p *Page) MarkRepaired(id ID) error {
	e, err := p.change(id, "marked as repaired", Damaged)
	if err != nil {
		return err
	}
	e.State, e.DamagedAt, e.Damage = Live, time.Time{}, ""
	return nil
}

// SetHolders says which stores have a segment, in whatever state it is.
func (p *Page) SetHolders(id ID, holders []string) error {
	e, err := p.change(id, "", Live, Damaged, Tombstoned, Superseded)
	if err != nil {
		return err
	}
	e.Holders = sorted(holders)
	return nil
}

// sorted returns each of some names once, in order.
func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// Split halves a page that is full: the page keeps the first half, and the second one
// is returned as a page that is not stored yet.
func (p *Page) Split() *Page {
	half := (len(p.Entries) + 1) / 2
	rest := &Page{Datasource: p.Datasource, Entries: slices.Clone(p.Entries[half:])}
	p.Entries = slices.Clip(p.Entries[:half])
	return rest
}

// Resurrect takes back the tombstone of a segment, which becomes what it was before.
// pages are at least all those of the datasource whose reach overlaps its window; they
// stay as they are, and so does the result's every page that is not changed. If
// another segment has taken its place meanwhile, the error is an [*OverlapError].
func Resurrect(pages []*Page, id ID) ([]*Page, error) {
	for i, p := range pages {
		if p.Find(id) == nil {
			continue
		}
		changed := p.clone()
		e, err := changed.change(id, "resurrected", Tombstoned)
		if err != nil {
			return nil, err
		}
		for f := range current(pages) {
			if f.Window.Overlaps(e.Window) && !f.sameSet(e) {
				return nil, &OverlapError{Window: e.Window, Other: f.ID, OtherWindow: f.Window}
			}
		}
		e.State, e.DeletedAt, e.DeletedBy = Live, time.Time{}, ""
		if e.Damage != "" {
			e.State = Damaged
		}
		pages = slices.Clone(pages)
		pages[i] = changed
		return pages, nil
	}
	return nil, fmt.Errorf("segment %s: %w", id, ErrNoEntry)
}

// current are the entries that are current.
func current(pages []*Page) func(yield func(*Entry) bool) {
	return func(yield func(*Entry) bool) {
		for _, p := range pages {
			for i := range p.Entries {
				if p.Entries[i].State.Current() && !yield(&p.Entries[i]) {
					return
				}
			}
		}
	}
}
