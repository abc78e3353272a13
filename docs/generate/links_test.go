package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notKept = regexp.MustCompile(`[^\w\- ]`)
)

// Every link between the documents leads somewhere, to its heading too.
func TestLinks(t *testing.T) {
	links := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md", "charts/*/*.md"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range link.FindAllStringSubmatch(string(text), -1) {
				if strings.Contains(found[1], "://") {
					continue
				}
				links++
				name, anchor, _ := strings.Cut(found[1], "#")
				target := file
				if name != "" {
					target = filepath.Join(filepath.Dir(file), name)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: the link %s leads to nothing", file, found[1])
				} else if anchor != "" && !anchors(t, target)[anchor] {
					t.Errorf("%s: the link %s leads to no heading", file, found[1])
				}
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links were found", links)
	}
}

// anchors are the headings of a document, as GitHub names them.
func anchors(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(string(text), -1) {
		all[strings.ReplaceAll(notKept.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-")] = true
	}
	return all
}
