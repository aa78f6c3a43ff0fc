package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// comments are the doc comments of struct types and their fields, by
// "package.Type" and "package.Type.Field". They become the descriptions of the
// schemas, so that the contract says what the source says.
type comments map[string]string

func readComments(dirs ...string) (comments, error) {
	c := comments{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("reading comments: %w", err)
		}
		for _, e := range entries {
			if !isSource(e) {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, fmt.Errorf("reading comments: %w", err)
			}
			c.collect(file)
		}
	}
	return c, nil
}

func isSource(e fs.DirEntry) bool {
	return strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go")
}

func (c comments) collect(file *ast.File) {
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.TYPE {
			continue
		}
		for _, spec := range group.Specs {
			spec, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := file.Name.Name + "." + spec.Name.Name
			doc := spec.Doc
			if doc == nil {
				doc = group.Doc
			}
			c[name] = oneLine(doc)
			if body, ok := spec.Type.(*ast.StructType); ok {
				c.collectFields(name, body)
			}
		}
	}
}

func (c comments) collectFields(name string, body *ast.StructType) {
	for _, field := range body.Fields.List {
		for _, ident := range field.Names {
			c[name+"."+ident.Name] = oneLine(field.Doc)
		}
	}
}

// ofType returns the comment of a type, or "".
func (c comments) ofType(t reflect.Type) string { return c[t.String()] }

// ofField returns the comment of a field of the struct that declares it, or "".
func (c comments) ofField(t reflect.Type, field string) string { return c[t.String()+"."+field] }

func oneLine(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }
