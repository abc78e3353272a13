package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestScenarios: each scenario of docs/scenarios.md has a test that exists, and each test that cites a number is named in
// its row.
func TestScenarios(t *testing.T) {
	text, err := os.ReadFile("../scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]map[string]bool{} // the tests of each scenario
	row := regexp.MustCompile(`(?m)^\| ([A-G][0-9]*a?) \| [^|]+ \| [^|]+ \| ([^|]*) \|$`)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if shown[m[1]] != nil {
			t.Errorf("scenario %s has two rows", m[1])
		}
		shown[m[1]] = map[string]bool{}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[2], -1) {
			shown[m[1]][name[1]] = true
		}
		if len(shown[m[1]]) == 0 {
			t.Errorf("no test shows scenario %s", m[1])
		}
	}
	if len(shown) < 80 {
		t.Fatalf("only %d scenarios were found", len(shown))
	}

	exists := map[string]bool{}
	cited := func(number, test string) {
		switch tests := shown[number]; {
		case tests == nil:
			t.Errorf("%s cites %s, which docs/scenarios.md does not have", test, number)
		case !tests[test]:
			t.Errorf("%s cites %s, whose row in docs/scenarios.md does not name it", test, number)
		}
	}
	scripts, err := filepath.Glob("../../sidecar/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`^([A-F][0-9]+a?)-`)
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".txtar")
		exists[name] = true
		if m := number.FindStringSubmatch(name); m != nil {
			cited(m[1], name)
		}
	}
	test := regexp.MustCompile(`(?m)^func (Test(?:([A-F][0-9]+a?)(?:_\w+)?|\w+))\(`)
	err = filepath.WalkDir("../../sidecar", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range test.FindAllStringSubmatch(string(source), -1) {
			exists[m[1]] = true
			if m[2] != "" {
				cited(m[2], m[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for scenario, tests := range shown {
		for name := range tests {
			if !exists[name] {
				t.Errorf("scenario %s names %s, which is no test of the sidecar", scenario, name)
			}
		}
	}
}
