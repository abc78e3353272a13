package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/troubleshooting.md explains every message that the sidecar can write to the log of a pod, with its remedy.
func TestMessagesAreExplained(t *testing.T) {
	text, err := os.ReadFile("../troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	messages := messages(t, "../../sidecar")
	if len(messages) < 40 {
		t.Errorf("only %d messages were found in the sidecar's sources", len(messages))
	}
	for message, file := range messages {
		if !strings.Contains(string(text), message) {
			t.Errorf("%s says %q, which docs/troubleshooting.md does not explain", file, message)
		}
	}
}

var verb = regexp.MustCompile(`%[-+#0 ]*[0-9]*[a-zA-Z]`)

// messages are the longest fixed parts of what is said and of errors, and their files. Arguments of the command line
// are the webhook's to write, so mistakes in them are left out.
func messages(t *testing.T, dir string) map[string]string {
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Base(filepath.Dir(path)) == "contract" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Say", "Once", "Errorf", "New", "Sprintf"}, selector.Sel.Name) {
				return true
			}
			for _, argument := range call.Args {
				literal, ok := argument.(*ast.BasicLit)
				if !ok || literal.Kind != token.STRING {
					continue
				}
				format, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				longest := ""
				for _, part := range verb.Split(format, -1) {
					if part = strings.TrimSpace(part); len(part) > len(longest) {
						longest = part
					}
				}
				// The last one only ends a search.
				if strings.Contains(longest, " ") && longest != "too many files" {
					found[longest] = path
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
