package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWordsLeaveInOnePlace: only package say writes messages, and only package emit lines, because these two make sure that
// no name forges anything. Who else writes is on a list, with what.
func TestWordsLeaveInOnePlace(t *testing.T) {
	// File, and what in it may be. Help and version are our own texts.
	allowed := map[string][]string{
		"main.go":               {"os.Stdout", "os.Stderr", "fmt.Fprint", "fmt.Fprintln", "io.WriteString"},
		"ready.go":              {"fmt.Fprintln"},
		"seed.go":               {"fmt.Fprintln"},
		"look.go":               {"fmt.Fprintln"},
		"status.go":             {"fmt.Fprintf"}, // names are quoted
		"contract/config.go":    {"fmt.Fprintln"},
		"contract/text.go":      {"fmt.Fprintf"}, // into memory
		"internal/say/say.go":   {"fmt.Fprintf"},
		"internal/emit/emit.go": {},
		// Writes to the list of seeded files: numbers.
		"internal/prepare/seed.go": {"fmt.Fprintf"},
	}
	writers := map[string][]string{
		"fmt": {"Print", "Printf", "Println", "Fprint", "Fprintf", "Fprintln"},
		"os":  {"Stdout", "Stderr"},
		"io":  {"WriteString"},
		"log": {"*"}, "log/slog": {"*"},
	}
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			word := ""
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && (slices.Contains(writers[pkg.Name], n.Sel.Name) || slices.Contains(writers[pkg.Name], "*")) {
					word = pkg.Name + "." + n.Sel.Name
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
					word = f.Name
				}
			}
			if word == "" {
				return true
			}
			seen++
			if !slices.Contains(allowed[filepath.ToSlash(path)], word) {
				t.Errorf("%s uses %s; sentences leave by package say, lines by package emit", path, word)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 8 {
		t.Errorf("only %d writers were found", seen)
	}
}
