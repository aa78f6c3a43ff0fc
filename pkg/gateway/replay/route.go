package replay

import (
	"context"
	"errors"
	"slices"

	"ringmaster/pkg/hint"
	"ringmaster/pkg/serving"
)

// The topology may have changed since a frame was written. Then each of its points
// goes to who has to get it today, for the circles for which it was written:
//
//   - to this backend still: it is replayed to it, in its order;
//   - to another one: it has got what was written since the change from the clients
//     themselves, so that its own values are newer, and only what it lacks is sent;
//   - to nobody, since the circle is gone: it is dropped. The other circles have it.

// destination is where lines of a frame go.
type destination struct {
	url   string
	lines []byte
	n     int
}

// route sends a frame to where it belongs today.
func (a *attendance) route(ctx context.Context, v *serving.View, f *hint.Frame) error {
	k := a.keeper
	lines, said, refused := scan(f.Lines)
	if refused > 0 {
		if err := a.bury(ctx, a.url, []piece{{of: f, lines: f.Lines, points: refused}}, malformed(said)); err != nil {
			return err
		}
	}
	var all []*destination
	obsolete := 0
	urls := map[string][]string{}
	for i := range lines {
		to, ok := urls[lines[i].measurement]
		if !ok {
			to = a.owners(v, f, lines[i].measurement)
			urls[lines[i].measurement] = to
		}
		if len(to) == 0 {
			obsolete++
		}
		for _, url := range to {
			at := slices.IndexFunc(all, func(d *destination) bool { return d.url == url })
			if at < 0 {
				at = len(all)
				all = append(all, &destination{url: url})
			}
			all[at].lines = append(all[at].lines, lines[i].text...)
			all[at].n++
		}
	}
	if obsolete > 0 {
		k.count(a.url, Counts{Obsolete: int64(obsolete)})
		k.options.Logger.WarnContext(ctx, "points are dropped that waited for a circle which is gone; the other circles have them",
			"backend", a.url, "database", f.Database, "circles", f.Circles, "points", obsolete)
	}
	for _, d := range all {
		p := piece{of: f, lines: d.lines, points: d.n}
		if d.url != a.url {
			if err := a.elsewhere(ctx, d.url, p); err != nil {
				return err
			}
			continue
		}
		server, err := a.dial(backendOf(v, a.url))
		if err != nil {
			return err
		}
		if err := a.store(ctx, a.url, server, []piece{p}); err != nil {
			return err
		}
	}
	return nil
}

// owners are the backends that have to get a measurement's points of a frame today:
// this one alone if it is among them.
func (a *attendance) owners(v *serving.View, f *hint.Frame, measurement string) (urls []string) {
	for _, t := range v.Writers(nil, f.Database, measurement) {
		if len(f.Circles) > 0 && !slices.Contains(f.Circles, t.Circle) {
			continue
		}
		if t.Backend.URL == a.url {
			return []string{a.url}
		}
		if !slices.Contains(urls, t.Backend.URL) {
			urls = append(urls, t.Backend.URL)
		}
	}
	return urls
}

// elsewhere sends to another backend what that one lacks, when it is in direct mode.
func (a *attendance) elsewhere(ctx context.Context, url string, p piece) error {
	k := a.keeper
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		changed := k.options.Session.Changed()
		view := k.options.Session.View()
		backend := backendOf(view, url)
		if backend == nil {
			return serving.ErrStep // the topology has changed again
		}
		mode, end, err := k.options.Session.BeginSend(url)
		if err != nil {
			return err
		}
		if !mode.Sends() {
			end()
			k.doing(a.url, "waiting for "+url+", which has to get what waits for it now, and has hints itself")
			wait(ctx, look, changed)
			continue
		}
		server, err := a.dial(backend)
		if err == nil {
			err = a.complete(ctx, url, server, p)
		}
		end()
		var unreachable *unreachableError
		if !errors.As(err, &unreachable) {
			return err
		}
		if err := k.Suspect(ctx, url, unreachable.Error()); err != nil {
			return err
		}
	}
}

// complete stores what a server lacks.
func (a *attendance) complete(ctx context.Context, url string, server Server, p piece) error {
	asking, cancel := context.WithTimeout(ctx, a.keeper.options.WriteTimeout)
	defer cancel()
	lacking, err := server.Lacking(asking, p.of.Database, p.of.RetentionPolicy, p.lines)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case missing(err): // it lacks all
		lacking = p.lines
	case err != nil:
		return &unreachableError{err}
	}
	if len(lacking) == 0 {
		return nil
	}
	return a.store(ctx, url, server, []piece{{of: p.of, lines: lacking, points: p.points}})
}
