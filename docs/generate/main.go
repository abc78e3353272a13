// Command generate writes what is derived: the chart's values.schema.json and the table of
// its values from values.yaml, the table of annotations from sidecar/contract, the
// table of findings from what `kubectl log-bridge check --list` prints, and the reference of the plugin from its commands. They are between
// two markers in a page that is otherwise written by hand.
//
// It is run by `go generate ./docs/...`, and its test fails while a file is not current.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

//go:generate go run . ../..

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate TOP-OF-THE-REPOSITORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(top string) error {
	files, err := generate(top)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(top, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the derived files by their names relative to the top of the repository.
func generate(top string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(top, "charts/log-bridge/values.yaml"))
	if err != nil {
		return nil, err
	}
	values, err := read(text)
	if err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	schema, err := values.jsonSchema()
	if err != nil {
		return nil, err
	}
	findings, err := findings(top)
	if err != nil {
		return nil, err
	}
	commands, err := printed(top, "reference")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"charts/log-bridge/values.schema.json": schema}
	for name, table := range map[string]string{
		"charts/log-bridge/README.md": values.table(),
		"README.md":                   annotations(),
		"docs/annotations.md":         annotations(),
		"docs/findings.md":            findings,
		"docs/kubectl.md":             commands,
	} {
		page, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			return nil, err
		}
		before, rest, ok := bytes.Cut(page, []byte(begin))
		_, after, ok2 := bytes.Cut(rest, []byte(end))
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s has no lines %q and %q to put the table between", name, strings.TrimSpace(begin), strings.TrimSpace(end))
		}
		files[name] = bytes.Join([][]byte{before, []byte(begin + table + end), after}, nil)
	}
	return files, nil
}

// The markers.
const (
	begin = "<!-- begin: generated -->\n"
	end   = "<!-- end: generated -->\n"
)

// annotations is the table of the contract.
func annotations() string {
	var out strings.Builder
	out.WriteString("| Annotation | Value | Default | Meaning |\n|---|---|---|---|\n")
	for _, a := range contract.Annotations {
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", a.Name(), valueWords(a), cell(a.Default), cell(a.Doc))
	}
	return out.String()
}

// valueWords says how the value of an annotation is written.
func valueWords(a contract.Annotation) string {
	switch a.Kind {
	case contract.Entries:
		return "entries"
	case contract.Enum:
		return "`" + strings.Join(a.Values, "`, `") + "`"
	case contract.Bool:
		return "`true`, `false`"
	case contract.Quantity, contract.Request:
		return "quantity"
	case contract.ID:
		return "number"
	default:
		return "JSON"
	}
}

// findings is the table that the program prints.
func findings(top string) (string, error) {
	return printed(top, "check", "--list")
}

// printed is what the plugin prints.
func printed(top string, args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"run", "./webhook/kubectl-log_bridge"}, args...)...)
	cmd.Dir = top
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl log-bridge %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// cell keeps a text from ending its cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
