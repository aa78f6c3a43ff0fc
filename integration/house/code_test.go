package house_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mainLines is how long the file of a program's main may be.
const mainLines = 60

// allowedVariables are the package-level variables that no general rule covers,
// each with the reason why it cannot change.
func allowedVariables() map[string]string {
	return map[string]string{
		"events.byType":                   "an index of the messages, computed once from constants and never written",
		"events/internal/gen.exampleTime": "a time that would be a constant if Go had such",
	}
}

// pureNames are the parts of packages that a pure room may use where the package
// holds impure ones too.
func pureNames() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"net":        regexp.MustCompile(`^(SplitHostPort|JoinHostPort|ParseIP|ParseCIDR|IP|IPNet)$`),
		"crypto/tls": regexp.MustCompile(`^(Version.*|CipherSuites|InsecureCipherSuites|CipherSuite|TLS_.*)$`),
		"mime":       regexp.MustCompile(`^ParseMediaType$`),
		"log/slog":   regexp.MustCompile(`^(Value|LogValuer|Attr|.*Value|String|Int|Int64|Uint64|Bool|Duration|Time|Any|Group)$`),
		"time":       regexp.MustCompile(`^(Time|Duration|Month|Location|Date|Unix|UnixMilli|UnixMicro|Parse|ParseDuration|RFC.*|DateTime|UTC|Nanosecond|Microsecond|Millisecond|Second|Minute|Hour|January|February|March|April|May|June|July|August|September|October|November|December)$`),
	}
}

// emptyNames say nothing about what a package holds.
func emptyNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "tools", "types"}
}

// source is one file of a room.
type source struct {
	name string // path below the root of the module
	room string
	test bool
	set  *token.FileSet
	file *ast.File
	// written holds the names that any file of the room assigns to.
	written map[string]bool
}

func parse(name string, text any) (*source, error) {
	s := &source{
		name: name, room: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), set: token.NewFileSet(),
		written: map[string]bool{},
	}
	var err error
	s.file, err = parser.ParseFile(s.set, name, text, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	s.noteWrites(s.written)
	return s, nil
}

func (s *source) at(n ast.Node) string { return s.position(n.Pos()) }

func (s *source) position(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(p).Line)
}

// imported is the path of the package that a selector like http.Server begins
// with, and "" where it begins with anything else. It goes by the name alone: a
// local variable called like an imported package is taken for the package.
func (s *source) imported(e ast.Expr) string {
	x, ok := e.(*ast.Ident)
	if !ok {
		return ""
	}
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		if name == x.Name {
			return p
		}
	}
	return ""
}

// noteWrites collects the names that are assigned to, or whose elements or
// fields are, or whose address is taken. A local name counts like one of the
// package: who changes it gives it another name than a package's table.
func (s *source) noteWrites(written map[string]bool) {
	note := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				written[x.Name] = true
				return
			default:
				return
			}
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, left := range x.Lhs {
					note(left)
				}
			}
		case *ast.IncDecStmt:
			note(x.X)
		case *ast.UnaryExpr:
			if x.Op == token.AND {
				note(x.X)
			}
		case *ast.CallExpr:
			if f, ok := x.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear" || f.Name == "copy") && len(x.Args) > 0 {
				note(x.Args[0])
			}
		}
		return true
	})
}

// mistakes are the rules that a file breaks.
func (s *source) mistakes(floors map[string]floor) (found []string) {
	say := func(n ast.Node, format string, a ...any) {
		found = append(found, s.at(n)+": "+fmt.Sprintf(format, a...))
	}
	if slices.Contains(emptyNames(), strings.TrimSuffix(s.file.Name.Name, "_test")) {
		say(s.file.Name, "package %s: name it after what it holds", s.file.Name.Name)
	}
	if lines := s.set.File(s.file.Pos()).LineCount(); s.declaresMain() && within(s.room, "cmd") && lines > mainLines {
		say(s.file.Name, "%d lines, where a program's main file has at most %d: it wires and nothing else", lines, mainLines)
	}
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			if unfinished.MatchString(c.Text) {
				say(c, "unfinished work is an issue, not a comment")
			}
		}
	}
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			say(f, "func init: what has to be set up is set up by who needs it")
		}
	}
	if !s.test {
		found = append(found, s.variables()...)
	}
	level, known := floors[s.room]
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.CallExpr:
			if !s.test && s.panics(x) {
				say(x, "panic: return an error")
			}
		case *ast.SelectorExpr:
			if why := s.wrongName(s.imported(x.X), x.Sel.Name, level, known); why != "" {
				say(x, "%s", why)
			}
		}
		return true
	})
	return found
}

// unfinished matches a mark that begins a comment.
var unfinished = regexp.MustCompile(`(?m)^(//|/\*|\s*\*)?\s*(TODO|FIXME|XXX|HACK)\b`)

func (s *source) declaresMain() bool {
	return s.file.Name.Name == "main" && slices.ContainsFunc(s.file.Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		return ok && f.Recv == nil && f.Name.Name == "main"
	})
}

// panics reports a call of panic; net/http's own way to cut an answer off is no
// mistake.
func (s *source) panics(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.Ident)
	if !ok || f.Name != "panic" || len(call.Args) != 1 {
		return false
	}
	x, ok := call.Args[0].(*ast.SelectorExpr)
	return !ok || s.imported(x.X) != "net/http" || x.Sel.Name != "ErrAbortHandler"
}

// wrongName says why a file may not use a name of a package; "" if it may.
func (s *source) wrongName(pkg, name string, level floor, known bool) string {
	switch pkg {
	case "":
		return ""
	case "net/http":
		serves := slices.Contains([]string{
			"Handler", "HandlerFunc", "Handle", "HandleFunc", "ServeMux", "NewServeMux", "ResponseWriter",
			"Server", "Serve", "ServeTLS", "ListenAndServe", "ListenAndServeTLS",
		}, name)
		if serves && !s.test && known && (level == pure || level == outside || level == handler || level == engine) {
			return "http." + name + ": HTTP is served on floor 5"
		}
	case "time":
		if name == "Sleep" {
			return "time.Sleep: wait for what happens, with a context"
		}
	case "os", "flag":
		reads := pkg == "flag" || name == "Getenv" || name == "LookupEnv" || name == "Environ" || name == "ExpandEnv" || name == "Args"
		if reads && !s.test && within(s.room, "pkg") && level != helper {
			return pkg + "." + name + ": flags and environment are read under cmd"
		}
	}
	if names, ok := pureNames()[pkg]; ok && level == pure && known && !s.test && !names.MatchString(name) {
		return pkg + "." + name + " in a pure room: hand the value in"
	}
	return ""
}

// variables are the package-level variables that could change.
func (s *source) variables() (found []string) {
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, name := range v.Names {
				var value ast.Expr
				if i < len(v.Values) {
					value = v.Values[i]
				}
				if s.constant(name.Name, value, g, v) {
					continue
				}
				found = append(found, fmt.Sprintf("%s: variable %s at package level: pass the value, or name it in allowedVariables with the reason why it cannot change", s.at(name), name.Name))
			}
		}
	}
	return found
}

// constant reports whether a package-level variable is one only because Go has
// no constants of its type.
func (s *source) constant(name string, value ast.Expr, g *ast.GenDecl, v *ast.ValueSpec) bool {
	if name == "_" {
		return true // an interface is satisfied
	}
	if s.written[name] {
		return false
	}
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc != nil && strings.Contains(doc.List[len(doc.List)-1].Text, "//go:embed ") {
			return true
		}
	}
	if _, ok := allowedVariables()[s.room+"."+name]; ok {
		return true
	}
	switch x := value.(type) {
	case *ast.CompositeLit:
		return !ast.IsExported(name)
	case *ast.CallExpr:
		f, ok := x.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		switch s.imported(f.X) + "." + f.Sel.Name {
		case "errors.New", "fmt.Errorf":
			return strings.HasPrefix(strings.ToLower(name), "err")
		case "regexp.MustCompile", "strings.NewReplacer":
			return !ast.IsExported(name)
		}
	}
	return false
}

// sources reads every file of the module; nested modules are not part of it.
func sources(t *testing.T) []*source {
	t.Helper()
	dir := root(t)
	var all []*source
	written := map[string]map[string]bool{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || isNested(file)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s, err := parse(name, text)
		if err != nil {
			return err
		}
		if written[s.room] == nil {
			written[s.room] = map[string]bool{}
		}
		for w := range s.written {
			written[s.room][w] = true
		}
		s.written = written[s.room]
		all = append(all, s)
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, len(all), 50)
	return all
}

func isNested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// TestCode reads every file of the module.
func TestCode(t *testing.T) {
	t.Parallel()
	floors := newPlan(rooms()).floors
	declared := map[string]bool{}
	for _, s := range sources(t) {
		for _, m := range s.mistakes(floors) {
			t.Error(m)
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, n := range v.Names {
						declared[s.room+"."+n.Name] = true
					}
				}
			}
		}
	}
	for name := range allowedVariables() {
		require.True(t, declared[name], "%s is gone: take it out of allowedVariables", name)
	}
}

// The rules are tried on files that break them.
func TestForbiddenCodeIsRefused(t *testing.T) {
	t.Parallel()
	floors := newPlan(rooms()).floors
	const importHTTP = "import \"net/http\"\n"
	for _, c := range []struct{ name, text, says string }{
		{"pkg/mover/a.go", "package mover\n" + importHTTP + "func f(w http.ResponseWriter) {}", "served on floor 5"},
		{"pkg/ledger/a.go", "package ledger\n" + importHTTP + "type t struct{ h http.Handler }", "served on floor 5"},
		{"pkg/controller/a.go", "package controller\nimport web \"net/http\"\nfunc f() error { return (&web.Server{}).ListenAndServe() }", "served on floor 5"},
		{"pkg/worker/a.go", "package worker\n" + importHTTP + "func f() { http.HandleFunc(\"/\", nil) }", "served on floor 5"},
		{"pkg/operation/a.go", "package operation\nimport \"time\"\nfunc f() time.Time { return time.Now() }", "in a pure room"},
		{"pkg/topology/a.go", "package topology\nimport \"net\"\nfunc f() { net.LookupHost(\"a\") }", "in a pure room"},
		{"events/a.go", "package events\nimport \"log/slog\"\nfunc f() { slog.Info(\"a\") }", "in a pure room"},
		{"pkg/bus/a.go", "package bus\nimport \"os\"\nfunc f() string { return os.Getenv(\"A\") }", "read under cmd"},
		{"pkg/bus/a.go", "package bus\nimport \"flag\"\nfunc f() { flag.Parse() }", "read under cmd"},
		{"pkg/bus/a.go", "package bus\nfunc init() {}", "func init"},
		{"pkg/bus/a_test.go", "package bus\nfunc init() {}", "func init"},
		{"pkg/bus/a.go", "package bus\nfunc f() { panic(1) }", "return an error"},
		{"pkg/bus/a.go", "package bus\nimport \"time\"\nfunc f() { time.Sleep(1) }", "wait for what happens"},
		{"pkg/bus/a_test.go", "package bus_test\nimport \"time\"\nfunc f() { time.Sleep(1) }", "wait for what happens"},
		{"integration/a_test.go", "package integration_test\nimport clock \"time\"\nvar f = clock.Sleep", "wait for what happens"},
		{"pkg/bus/a.go", "package bus\n// TODO: more\nfunc f() {}", "an issue, not a comment"},
		{"pkg/bus/a.go", "package bus\nfunc f() {\n\t/* FIXME */\n}", "an issue, not a comment"},
		{"pkg/util/a.go", "package util", "after what it holds"},
		{"pkg/common/a_test.go", "package common_test", "after what it holds"},
		{"cmd/api/main.go", "package main\nfunc main() {\n" + strings.Repeat("\n", mainLines) + "}", "at most 60"},
		{"pkg/bus/a.go", "package bus\nvar count int", "variable count"},
		{"pkg/bus/a.go", "package bus\nvar cache = map[string]int{}\nfunc f() { cache[\"a\"] = 1 }", "variable cache"},
		{"pkg/bus/a.go", "package bus\nvar list = []int{}\nfunc f() { list = append(list, 1) }", "variable list"},
		{"pkg/bus/a.go", "package bus\nvar state = struct{ n int }{}\nfunc f() { state.n++ }", "variable state"},
		{"pkg/bus/a.go", "package bus\nvar seen = map[int]bool{1: true}\nfunc f() { delete(seen, 1) }", "variable seen"},
		{"pkg/bus/a.go", "package bus\nvar box = struct{ n int }{}\nfunc f() *int { return &box.n }", "variable box"},
		{"pkg/bus/a.go", "package bus\nvar Table = []int{1}", "variable Table"},
		{"pkg/bus/a.go", "package bus\nvar err = make(chan error)", "variable err"},
		{"pkg/bus/a.go", "package bus\nimport \"errors\"\nvar problem = errors.New(\"a\")", "variable problem"},
	} {
		s, err := parse(c.name, c.text)
		require.NoError(t, err)
		require.Contains(t, strings.Join(s.mistakes(floors), "\n"), c.says, c.text)
	}
	for _, c := range []struct{ name, text string }{
		{"pkg/influx/a.go", "package influx\n" + importHTTP + "type t struct{ c http.Client }"},
		{"pkg/httpapi/a.go", "package httpapi\n" + importHTTP + "func f(h http.Handler) { panic(http.ErrAbortHandler) }"},
		{"pkg/mover/a_test.go", "package mover_test\n" + importHTTP + "func f(h http.Handler) { panic(1) }"},
		{"cmd/api/a.go", "package main\n" + importHTTP + "import \"os\"\nfunc f(h http.Handler) string { return os.Getenv(\"A\") }"},
		{"pkg/topology/a.go", "package topology\nimport (\"net\"; \"time\")\nfunc f() { net.ParseIP(\"a\"); _ = time.Second }"},
		{"pkg/bus/a.go", "package bus\nimport (\"errors\"; \"regexp\")\nvar ErrA = errors.New(\"a\")\nvar p = regexp.MustCompile(`a`)\nvar table = []int{1}\nfunc f() int { return table[0] }"},
		{"pkg/bus/a.go", "package bus\nimport _ \"embed\"\n// doc\n//\n//go:embed a.txt\nvar text string"},
		{"pkg/bus/a.go", "package bus\n// A TODO list is not a mark.\nfunc f() {}"},
	} {
		s, err := parse(c.name, c.text)
		require.NoError(t, err)
		require.Empty(t, s.mistakes(floors), c.text)
	}
}
