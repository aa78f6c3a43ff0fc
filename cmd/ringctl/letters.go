package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// deadLettersCmd is about what could not be carried out.
type deadLettersCmd struct {
	List  lettersListCmd  `cmd:"" help:"List dead letters."`
	Show  lettersShowCmd  `cmd:"" help:"Show one with what is in it."`
	Retry lettersRetryCmd `cmd:"" help:"Try to carry one out again."`
	Drop  lettersDropCmd  `cmd:"" help:"Remove one for good."`
}

// Help are the command's examples.
func (*deadLettersCmd) Help() string {
	return examples("ringctl dead-letters list", "ringctl dead-letters show 42", "ringctl dead-letters retry 42")
}

const lettersPath = "/v1/dead-letters"

// lettersListCmd lists them.
type lettersListCmd struct {
	Limit int `default:"100" help:"At most so many; 0 means all." placeholder:"N"`
}

// Help are the command's examples.
func (*lettersListCmd) Help() string {
	return examples("ringctl dead-letters list", "ringctl dead-letters list --limit 0 -o json")
}

// Run lists them.
func (c *lettersListCmd) Run(a *app) error {
	if c.Limit < 0 {
		return usageError("--limit %d: use a number of letters, or 0 for all", c.Limit)
	}
	all, err := a.pages(lettersPath, url.Values{}, c.Limit)
	if err != nil {
		return err
	}
	letters, err := decodeAll[letterView](all)
	if err != nil {
		return err
	}
	return a.showValue(map[string]any{"items": all}, func(w io.Writer) error {
		row(w, "ID", "STORED", "KIND", "WHAT", "SIZE", "REASON")
		for i := range letters {
			l := &letters[i]
			row(w, l.ID, a.ago(&l.StoredAt), l.Kind, l.what(), size(l.Bytes), l.Reason)
		}
		return nil
	})
}

// what says what a letter is about.
func (l *letterView) what() string {
	if l.Kind != "points" {
		return l.Subject
	}
	text := l.Database
	if l.RetentionPolicy != "" {
		text += "." + l.RetentionPolicy
	}
	if l.Backend != "" {
		text += " for " + l.Backend
	}
	if l.Points > 0 {
		text = fmt.Sprintf("%d points of %s", l.Points, text)
	}
	return text
}

// letter names one.
type letter struct {
	ID string `arg:"" help:"Id of the dead letter."`
}

func (l *letter) path(parts ...string) string {
	return strings.Join(append([]string{lettersPath, url.PathEscape(l.ID)}, parts...), "/")
}

// lettersShowCmd shows one.
type lettersShowCmd struct{ letter }

// Help are the command's examples.
func (*lettersShowCmd) Help() string {
	return examples("ringctl dead-letters show 42", "ringctl dead-letters show 42 -o json")
}

// Run shows it.
func (c *lettersShowCmd) Run(a *app) error {
	raw, err := a.client.get(a.ctx, c.path(), nil)
	if err != nil {
		return err
	}
	var l letterView
	if err := decode(raw, &l); err != nil {
		return err
	}
	return a.show(raw, func(w io.Writer) error {
		row(w, "Dead letter:", l.ID)
		row(w, "Stored:", clock(&l.StoredAt))
		row(w, "Kind:", l.Kind)
		row(w, "About:", l.what())
		row(w, "Stream:", l.Stream)
		row(w, "Subject:", l.Subject)
		row(w, "Size:", size(l.Bytes))
		row(w, "Reason:", l.Reason)
		if len(l.Body) > 0 {
			title(w, "BODY")
			fmt.Fprintln(w, bodyText(l.Body))
		}
		return nil
	})
}

// bodyText is a body as a person reads it: a text in lines, a document indented.
func bodyText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return string(bytes.Map(func(r rune) rune {
			if r == '\n' {
				return r
			}
			return printable(r)
		}, []byte(text)))
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}

// lettersRetryCmd retries one.
type lettersRetryCmd struct{ letter }

// Help are the command's examples.
func (*lettersRetryCmd) Help() string { return examples("ringctl dead-letters retry 42") }

// Run retries it.
func (c *lettersRetryCmd) Run(a *app) error {
	if _, err := a.client.do(a.ctx, call{method: http.MethodPost, path: c.path("retry")}); err != nil {
		return err
	}
	return a.showValue(map[string]any{"id": c.ID, "retried": true}, func(w io.Writer) error {
		fmt.Fprintf(w, "dead letter %s is tried again\n", c.ID)
		return nil
	})
}

// lettersDropCmd drops one.
type lettersDropCmd struct {
	letter
	Yes bool `help:"Do not ask."`
}

// Help are the command's examples.
func (*lettersDropCmd) Help() string {
	return examples("ringctl dead-letters show 42", "ringctl dead-letters drop 42 --yes")
}

// Run drops it.
func (c *lettersDropCmd) Run(a *app) error {
	if !c.Yes {
		if err := a.confirm(fmt.Sprintf("This removes dead letter %s for good.", c.ID)); err != nil {
			return err
		}
	}
	if _, err := a.client.do(a.ctx, call{method: http.MethodDelete, path: c.path()}); err != nil {
		return err
	}
	return a.showValue(map[string]any{"id": c.ID, "dropped": true}, func(w io.Writer) error {
		fmt.Fprintf(w, "dead letter %s is gone\n", c.ID)
		return nil
	})
}
