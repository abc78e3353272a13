package finding_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// Each row documents one code, in order, and some test shows its sentence.
func TestTable(t *testing.T) {
	var shown strings.Builder
	for _, pattern := range []string{"../inject/refusal_test.go", "../inject/testdata/*.txtar", "../../kubectl-log_bridge/testdata/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			shown.Write(text)
		}
	}
	var others strings.Builder
	for _, file := range []string{"../survey/survey_test.go", "../survey/rules_test.go", "../rules/rules_test.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		others.Write(text)
	}
	for i, row := range finding.Table {
		if i > 0 && row.Code <= finding.Table[i-1].Code {
			t.Errorf("%s comes after %s", row.Code, finding.Table[i-1].Code)
		}
		if row.Title == "" || row.Remedy == "" || row.Severity == "" {
			t.Errorf("%s is not documented", row.Code)
		}
		// Those of a cluster and of rules are in the tests of their packages, in other brackets.
		if !strings.Contains(shown.String(), "["+string(row.Code)+"]") && !strings.Contains(others.String(), string(row.Code)) {
			t.Errorf("no test shows the sentence of %s", row.Code)
		}
	}
}

// A sentence is one harmless line of bounded length, whatever it quotes.
func TestNew(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, test := range []struct {
		have finding.Finding
		want string
	}{
		{finding.New(finding.UnknownContainer, "the pod has no container"), "the pod has no container"},
		{finding.New(finding.UnknownContainer, "no %s", "\x1b[2J\nforged\u202e"), `no \x1b[2J\nforged\u202e`},
		{finding.New(finding.UnknownContainer, "no %s and no %q", long, "日"+long), "no " + contract.Brief(long) + ` and no "` + contract.Brief("日"+long) + `"`},
		{finding.New(finding.UnknownContainer, "no %s", finding.Words(long)), contract.Cut("no "+long, finding.MaxSentence)},
		{finding.New(finding.UnknownContainer, "no %v", errors.New(long)), contract.Cut("no "+long, finding.MaxSentence)},
		{finding.New(finding.UnknownContainer, "no %s", finding.Words(strings.Repeat("\x00", 10_000))), contract.Cut("no "+strings.Repeat(`\x00`, 10_000), finding.MaxSentence)},
		{finding.New(finding.RuleDoesNotFit, "rule: %s", finding.New(finding.UnknownContainer, "%v", finding.Words(long[:200]))), "rule: " + long[:200] + " [LB0201]"},
		{finding.New(finding.UnknownContainer, "it has %s", finding.Names([]string{"a", "b\n", long})), `it has a, b\n, ` + contract.Brief(long)},
		{finding.New(finding.UnknownContainer, "it has %s", finding.Names(strings.Split("a b c d e f g h i j", " "))), "it has a, b, c, d, e, f, g, h and 2 more"},
	} {
		if test.have.Text() != test.want || test.have.String() != test.want+" ["+string(test.have.Code)+"]" {
			t.Errorf("have %q\nwant %q", test.have, test.want)
		}
	}
}

// A List keeps each finding once, and counts those for which it has no room.
func TestList(t *testing.T) {
	var all finding.List
	if all.Mistaken() || all.Refusal() != "" {
		t.Errorf("an empty list: %+v", all)
	}
	for i := range 60 {
		if all.Full() != (i >= finding.MaxFindings) {
			t.Errorf("full is %v with %d mistakes", all.Full(), i)
		}
		all.Add(finding.UnknownContainer, "%d", i)
		all.Add(finding.UnknownContainer, "0")
		if i < 3 {
			all.Add(finding.PodHasResources, "%d", i)
		}
	}
	if len(all.Findings) != finding.MaxFindings+3 || len(all.Mistakes()) != finding.MaxFindings || all.MoreMistakes != 10 || all.MoreOthers != 0 || !all.Mistaken() {
		t.Errorf("%d findings, %d mistakes, %d and %d more", len(all.Findings), len(all.Mistakes()), all.MoreMistakes, all.MoreOthers)
	}
	merged := finding.Of(finding.New(finding.UnknownContainer, "0"), finding.New(finding.UnknownContainer, "first"))
	merged.Merge(all)
	if n := len(merged.Mistakes()); n != finding.MaxFindings || merged.MoreMistakes != 11 {
		t.Errorf("merged: %d mistakes, %d more", n, merged.MoreMistakes)
	}
	if text := merged.Refusal(); !strings.HasPrefix(text, "0 [LB0201]; first [LB0201]; 1 [LB0201]; ") || !strings.HasSuffix(text, "; and 11 more") {
		t.Errorf("refusal %q", text)
	}
}

// A refusal is bounded; what it leaves out is counted.
func TestJoin(t *testing.T) {
	var all []finding.Finding
	for i := range 20 {
		all = append(all, finding.New(finding.UnknownContainer, "%d %s", i, finding.Words(strings.Repeat("x", 990))))
	}
	text := finding.Join(all, 5)
	shown := strings.Count(text, "[LB0201]")
	if len(text) > finding.MaxMessage || shown < 8 || !strings.HasSuffix(text, fmt.Sprintf("; and %d more", 25-shown)) {
		t.Errorf("%d bytes, %d sentences: …%s", len(text), shown, text[len(text)-40:])
	}
}
