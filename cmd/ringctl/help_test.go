package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// grammar is the command line's model.
func grammar(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := newParser(&cli{}, io.Discard, io.Discard, func(int) {})
	require.NoError(t, err)
	return parser
}

// nodes are all commands, the program first.
func nodes(n *kong.Node) []*kong.Node {
	all := []*kong.Node{n}
	for _, child := range n.Children {
		all = append(all, nodes(child)...)
	}
	return all
}

// Every help text says what the command does and has examples, which are command
// lines that are understood.
func TestEveryHelpTextHasExamples(t *testing.T) {
	t.Parallel()
	understood := 0
	for _, n := range nodes(grammar(t).Model.Node) {
		if n.Type == kong.CommandNode {
			require.NotEmpty(t, n.Help, n.FullPath())
		}
		require.Contains(t, n.Detail, "Examples:\n", n.FullPath())
		found := 0
		for line := range strings.SplitSeq(n.Detail, "\n") {
			example, ok := strings.CutPrefix(line, "    ringctl ")
			if !ok {
				continue
			}
			found++
			example, _, _ = strings.Cut(example, " > ")
			args := words(example)
			parser := grammar(t)
			_, err := parser.Parse(doubleDashes(parser.Model.Node, args))
			require.NoError(t, err, "%s: %s", n.FullPath(), example)
			if n.Type == kong.CommandNode && len(n.Children) == 0 && found == 1 && n.Name != "drop" && n.Name != "approve" {
				require.True(t, strings.HasPrefix(strings.Join(args, " "), n.Path()), "%s: %s", n.FullPath(), example)
			}
			understood++
		}
		require.Positive(t, found, n.FullPath())
		for _, f := range n.Flags {
			require.NotEmpty(t, f.Help, "%s --%s", n.FullPath(), f.Name)
		}
	}
	require.Greater(t, understood, 70)
}

// words splits an example as a shell does, as far as examples need it.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// A flag takes a value in every command or in none: completion goes by its name.
func TestFlagsMeanTheSameEverywhere(t *testing.T) {
	t.Parallel()
	takes := map[string]bool{}
	for _, p := range places(grammar(t).Model.Node, "") {
		for _, f := range p.flags {
			was, known := takes[f.name]
			require.True(t, !known || was == f.value, "--%s of %q", f.name, p.at)
			takes[f.name] = f.value
		}
	}
	require.True(t, takes["server"])
}

func script(t *testing.T, write func(io.Writer, []place)) string {
	t.Helper()
	var b bytes.Buffer
	write(&b, places(grammar(t).Model.Node, ""))
	path := filepath.Join(t.TempDir(), "ringctl.completion")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// shell runs a program, and skips where the machine has no such shell.
func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("no %s here", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// completions are what is typed and some of what completes it, on lines of their own.
func completions() []struct {
	typed []string
	want  []string
	not   []string
} {
	return []struct{ typed, want, not []string }{
		{[]string{""}, []string{"plan", "ops", "dead-letters"}, []string{"--server", "list"}},
		{[]string{"ops", ""}, []string{"watch", "limits"}, []string{"plan2", "rebalance"}},
		{[]string{"ops", "li"}, []string{"list", "limits"}, []string{"watch"}},
		{[]string{"rebalance", "--"}, []string{"--circle-id", "--server", "--hold"}, []string{"--older-than"}},
		{[]string{"-server", "ops", "-o", "yaml", "ops", "list", "--state", ""}, []string{"awaiting_approval"}, []string{"list"}},
		{[]string{"ops", "list", "-o", ""}, []string{"json", "yaml", "table"}, nil},
		{[]string{"completion", ""}, []string{"bash", "fish", "zsh"}, nil},
		{[]string{"plan", "rebalance", "--operation", "a"}, []string{"add"}, []string{"rm"}},
	}
}

func check(t *testing.T, typed []string, out string, want, not []string) {
	t.Helper()
	got := map[string]bool{}
	for line := range strings.SplitSeq(out, "\n") {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		got[word] = true
	}
	for _, w := range want {
		require.True(t, got[w], "%q should complete to %q:\n%s", typed, w, out)
	}
	for _, w := range not {
		require.False(t, got[w], "%q should not complete to %q:\n%s", typed, w, out)
	}
}

func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	path := script(t, bashScript)
	for _, c := range completions() {
		check(t, c.typed, shell(t, "bash", append([]string{
			"-c", `source "$1"; shift; COMP_WORDS=(ringctl "$@"); COMP_CWORD=$#; _ringctl; printf '%s\n' "${COMPREPLY[@]}"`, "bash", path,
		}, c.typed...)...), c.want, c.not)
	}
	check(t, nil, shell(t, "bash", "-c", `source "$1"; COMP_WORDS=(ringctl ops list --state = run); COMP_CWORD=5; _ringctl; printf '%s\n' "${COMPREPLY[@]}"`, "bash", path), []string{"running"}, []string{"failed"})
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	path := script(t, fishScript)
	for _, c := range completions() {
		line := "ringctl " + strings.Join(c.typed, " ")
		check(t, c.typed, shell(t, "fish", "--no-config", "-c", "function ringctl; end; source $argv[1]; complete -C $argv[2]", path, line), c.want, c.not)
	}
}

// zsh completes in a terminal only; what the script hands to it is looked at.
func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	path := script(t, zshScript)
	const stub = `compdef() { :; }
_describe() { [[ $1 == -o ]] && shift; local -a list; list=(${(P)2}); local one; for one in $list; do print -r -- "${one%%:*}"; done; }
compadd() { shift; print -rl -- "$@"; }
_files() { print FILES; }
compset() { :; }
source $1; shift
words=(ringctl "$@"); CURRENT=$#words
_ringctl`
	for _, c := range completions() {
		last := c.typed[len(c.typed)-1]
		var not []string
		if last == "" || last == "--" { // zsh itself drops what does not begin so
			not = c.not
		}
		check(t, c.typed, shell(t, "zsh", append([]string{"-f", "-c", stub, "zsh", path}, c.typed...)...), c.want, not)
	}
}
