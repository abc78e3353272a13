package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilesAreCurrent(t *testing.T) {
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		have, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not what its sources make of it; run go generate ./docs/...", name)
		}
	}
}

func TestRead(t *testing.T) {
	root, err := read([]byte(`# About the file.

# A part.
part:
  # A word. One of: "", a, b.
  word: ""
  # A number. From 1 to
  # 9.
  number: 2
# Anything. Free form.
any: {x: 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"| **`part`** | | A part. |",
		"| `part.word` | `\"\"` | A word. One of: \"\", a, b. |",
		"| `part.number` | `2` | A number. From 1 to 9. |",
		"| `any` | `{\"x\":1}` | Anything. Free form. |",
		"",
	}, "\n")
	if have := root.rows(""); have != want {
		t.Errorf("rows:\nhave\n%s\nwant\n%s", have, want)
	}
	number := root.keys[0].keys[1].schema()
	if number["type"] != "integer" || number["minimum"] != 1 || number["maximum"] != 9 {
		t.Errorf("schema of a number: %v", number)
	}
	if word := root.keys[0].keys[0]; len(word.oneOf) != 3 || word.oneOf[0] != "" {
		t.Errorf("words: %q", word.oneOf)
	}
	if _, closed := root.keys[1].schema()["additionalProperties"]; closed {
		t.Error("an object of free form is closed")
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\n":                       "line 1: a has no comment above it",
		"# A.\na:\n  b: 1\n":           "line 3: a.b has no comment above it",
		"# A.\na:\n":                   "line 2: a has no default",
		"[]\n":                         "is not a mapping",
		"# About the file.\n\na: {}\n": "line 3: a has no comment above it",
	} {
		if _, err := read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: have %v, want %q", text, err, want)
		}
	}
}
