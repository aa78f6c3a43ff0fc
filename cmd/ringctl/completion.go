package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd prints a script for a shell.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help are the command's examples.
func (*completionCmd) Help() string {
	return examples(
		"ringctl completion bash > /etc/bash_completion.d/ringctl",
		"ringctl completion zsh > ~/.zfunc/_ringctl",
		"ringctl completion fish > ~/.config/fish/completions/ringctl.fish",
	) + `
For the shell at hand: source <(ringctl completion bash).`
}

// Run prints it.
func (c *completionCmd) Run(a *app, model *kong.Application) error {
	var script bytes.Buffer
	all := places(model.Node, "")
	switch c.Shell {
	case "bash":
		bashScript(&script, all)
	case "zsh":
		zshScript(&script, all)
	case "fish":
		fishScript(&script, all)
	}
	_, err := script.WriteTo(a.out)
	return err
}

// place is what can follow a command.
type place struct {
	// at is the path of the command; empty for the program.
	at       string
	commands []choice
	// words are what its argument may be.
	words []string
	flags []flagChoice
}

// choice is a word and what it means.
type choice struct{ name, help string }

// flagChoice is a flag.
type flagChoice struct {
	choice

	short string
	// value is whether it takes one, file whether that is a file's name, and values
	// what it may be.
	value, file bool
	values      []string
}

// places lists the commands with what can follow each, those above first.
func places(n *kong.Node, at string) []place {
	p := place{at: at}
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			p.flags = append(p.flags, newFlagChoice(f))
		}
	}
	for _, arg := range n.Positional {
		p.words = append(p.words, enum(arg)...)
	}
	var below []place
	for _, child := range n.Children {
		if child.Hidden {
			continue
		}
		p.commands = append(p.commands, choice{child.Name, child.Help})
		below = append(below, places(child, strings.TrimSpace(at+" "+child.Name))...)
	}
	return append([]place{p}, below...)
}

func newFlagChoice(f *kong.Flag) flagChoice {
	c := flagChoice{
		choice: choice{f.Name, f.Help}, value: !f.IsBool(), values: enum(f.Value),
		file: slices.Contains([]string{"FILE", "DIR"}, f.PlaceHolder),
	}
	if f.Short != 0 {
		c.short = string(f.Short)
	}
	return c
}

// enum is what a value may be, if that is known.
func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(v.EnumSlice(), func(s string) bool { return s == "" })
}

// taking are the names of all flags that take a value, each with its dashes.
func taking(all []place) []string {
	var names []string
	for _, p := range all {
		for _, f := range p.flags {
			if f.value {
				names = append(names, "--"+f.name)
				if f.short != "" {
					names = append(names, "-"+f.short)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// paths are the commands below the program, as alternatives of a case.
func paths(all []place) string {
	var quoted []string
	for _, p := range all {
		if p.at != "" {
			quoted = append(quoted, quote(p.at))
		}
	}
	return strings.Join(quoted, "|")
}

// quote makes one word of a text, in any shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// names are the words that can follow, flags with two dashes.
func (p *place) names() (commands, flags []string) {
	for _, c := range p.commands {
		commands = append(commands, c.name)
	}
	for _, f := range p.flags {
		flags = append(flags, "--"+f.name)
	}
	return append(commands, p.words...), flags
}

// bashScript completes in bash.
func bashScript(w io.Writer, all []place) {
	fmt.Fprintf(w, `# bash completion for ringctl; made by: ringctl completion bash

_ringctl() {
    local cur word flag='' at='' skip='' i
    cur=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    # Which command it is, and whether a flag waits for its value.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == '=' ]]; then
            continue
        fi
        if [[ -n $skip ]]; then
            skip=''
            flag=''
            continue
        fi
        case $word in
        -[!-]?*) word="-$word" ;;
        esac
        case $word in
        %s)
            skip=1
            flag=$word
            continue
            ;;
        esac
        case "${at:+$at }$word" in
        %s) at="${at:+$at }$word" ;;
        esac
    done
    if [[ $cur == '=' ]]; then
        cur=''
    fi
    if [[ -n $skip ]]; then
        case "$at $flag" in
`, strings.Join(taking(all), "|"), paths(all))
	for _, p := range all {
		for _, f := range p.flags {
			at := quote(p.at + " --" + f.name)
			if f.short != "" {
				at += "|" + quote(p.at+" -"+f.short)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, "        %s) mapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\") ;;\n", at, quote(strings.Join(f.values, " ")))
			case f.file:
				fmt.Fprintf(w, "        %s) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n", at)
			}
		}
	}
	fmt.Fprint(w, `        esac
        return
    fi
    local commands='' flags=''
    case $at in
`)
	for _, p := range all {
		commands, flags := p.names()
		fmt.Fprintf(w, "    %s) commands=%s flags=%s ;;\n", quote(p.at), quote(strings.Join(commands, " ")), quote(strings.Join(flags, " ")))
	}
	fmt.Fprint(w, `    esac
    if [[ $cur == -* ]]; then
        if [[ $cur == -[!-]?* ]]; then
            cur="-$cur"
        fi
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    fi
}

complete -F _ringctl ringctl
`)
}

// zshScript completes in zsh.
func zshScript(w io.Writer, all []place) {
	fmt.Fprintf(w, `#compdef ringctl
# zsh completion for ringctl; made by: ringctl completion zsh

_ringctl() {
    local word flag='' at='' skip='' i
    local -a commands flags
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        if [[ -n $skip ]]; then
            skip=''
            flag=''
            continue
        fi
        case $word in
        -[^-]?*) word="-$word" ;;
        esac
        case $word in
        %s)
            skip=1
            flag=$word
            continue
            ;;
        esac
        case "${at:+$at }$word" in
        %s) at="${at:+$at }$word" ;;
        esac
    done
    if [[ -z $skip && ${words[CURRENT]} == -*=* ]]; then
        skip=1
        flag="--${${words[CURRENT]%%%%=*}##-#}"
        compset -P '*='
    fi
    if [[ -n $skip ]]; then
        case "$at $flag" in
`, strings.Join(taking(all), "|"), paths(all))
	for _, p := range all {
		for _, f := range p.flags {
			at := quote(p.at + " --" + f.name)
			if f.short != "" {
				at += "|" + quote(p.at+" -"+f.short)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, "        %s) compadd -- %s ;;\n", at, strings.Join(f.values, " "))
			case f.file:
				fmt.Fprintf(w, "        %s) _files ;;\n", at)
			}
		}
	}
	fmt.Fprint(w, `        esac
        return
    fi
    case $at in
`)
	for i := range all {
		all[i].zshChoices(w)
	}
	fmt.Fprint(w, `    esac
    if [[ ${words[CURRENT]} == -* ]]; then
        _describe -o 'flag' flags
    elif ((${#commands})); then
        _describe 'command' commands
    fi
}

if [[ ${funcstack[1]} == _ringctl ]]; then
    _ringctl "$@"
else
    compdef _ringctl ringctl
fi
`)
}

// zshChoices are the words that can follow, with their meanings.
func (p *place) zshChoices(w io.Writer) {
	var commands, flags []string
	for _, c := range p.commands {
		commands = append(commands, quote(described(c.name, c.help)))
	}
	for _, word := range p.words {
		commands = append(commands, quote(word))
	}
	for _, f := range p.flags {
		flags = append(flags, quote(described("--"+f.name, f.help)))
	}
	fmt.Fprintf(w, "    %s)\n        commands=(%s)\n        flags=(%s)\n        ;;\n", quote(p.at), strings.Join(commands, " "), strings.Join(flags, " "))
}

// described is a word with its meaning, as zsh's _describe wants it.
func described(name, help string) string { return strings.ReplaceAll(name, ":", `\:`) + ":" + help }

// fishScript completes in fish.
func fishScript(w io.Writer, all []place) {
	fmt.Fprintf(w, `# fish completion for ringctl; made by: ringctl completion fish

# Succeeds where the command line names this command so far, and no flag waits for
# its value.
function __ringctl_at
    set -l at ''
    set -l skip ''
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test -n "$skip"
            set skip ''
            continue
        end

        set word (string replace -r '^-([^-].+)' -- '--$1' $word)
        if contains -- $word %s
            set skip 1
            continue
        end
        set -l next (string trim -- "$at $word")
        contains -- "$next" %s; and set at $next
    end
    test "$at" = "$argv[1]"
end
complete -c ringctl -f
`, strings.Join(taking(all), " "), strings.ReplaceAll(paths(all), "|", " "))
	for _, p := range all {
		when := fmt.Sprintf("complete -c ringctl -n %s", fishQuote("__ringctl_at "+fishQuote(p.at)))
		for _, c := range p.commands {
			fmt.Fprintf(w, "%s -a %s -d %s\n", when, c.name, fishQuote(c.help))
		}
		for _, word := range p.words {
			fmt.Fprintf(w, "%s -a %s\n", when, word)
		}
		for _, f := range p.flags {
			fmt.Fprintf(w, "%s -l %s", when, f.name)
			if f.short != "" {
				fmt.Fprintf(w, " -s %s", f.short)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, " -x -a %s", fishQuote(strings.Join(f.values, " ")))
			case f.file:
				fmt.Fprint(w, " -r -F")
			case f.value:
				fmt.Fprint(w, " -x")
			}
			fmt.Fprintf(w, " -d %s\n", fishQuote(f.help))
		}
	}
}

// fishQuote makes one word of a text in fish, where a backslash counts in quotes.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
