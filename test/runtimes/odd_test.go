package runtimes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// long is a line that no runtime passes on in one record.
var long = "long<" + strings.Repeat("x", 40_000) + ">"

// oddLines are the lines that runtimes and drivers treat in their own ways. "first" and "last" get through everywhere.
func oddLines() []string {
	return []string{"first", long, "end\r", "mid\rdle", "nul\x00byte", "bad\xffutf8", "", spaces, "last"}
}

// compare fails unless docs/runtimes.md has the row that says what became of the odd lines: the name of the runtime and its
// driver, then a word about each line. Another version of the program than the document names may do something else, and that
// is only logged.
func compare(t *testing.T, name string, have []string, version string) {
	t.Helper()
	for _, always := range []string{"first", "last"} {
		if n := count(have, always); n != 1 {
			t.Errorf("%s: the line %q came %d times; have %.100q", name, always, n, have)
		}
	}
	row := fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", name, longWord(have), returnWord(have), middleWord(have, "nul", "byte", "\x00"),
		middleWord(have, "bad", "utf8", "\xff"), emptyWord(have), spacesWord(have))
	doc, err := os.ReadFile(filepath.Join(bed.Top, "docs/runtimes.md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), row+"\n") {
		return
	}
	if known := knownVersion(string(doc), version); !known {
		t.Logf("docs/runtimes.md is not about this version, %s, which does:\n%s", strings.TrimSpace(version), row)
		return
	}
	t.Errorf("docs/runtimes.md does not have the row that was measured:\n%s\nthe lines: %.200q", row, have)
}

// knownVersion reports whether the document names the version that a program reports.
func knownVersion(doc, words string) bool {
	split := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\n()", r) })
	}
	known := split(doc)
	return slices.ContainsFunc(split(words), func(word string) bool {
		return strings.Contains(word, ".") && slices.Contains(known, strings.TrimPrefix(word, "v"))
	})
}

func count(lines []string, line string) int {
	n := 0
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

func longWord(have []string) string {
	begin := slices.IndexFunc(have, func(line string) bool { return strings.HasPrefix(line, "long<") })
	if begin < 0 {
		return "lost"
	}
	end := begin + 1
	for end < len(have) && strings.HasPrefix(have[end], "x") {
		end++
	}
	pieces := have[begin:end]
	whole := strings.Join(pieces, "")
	switch {
	case whole == long && len(pieces) == 1:
		return "whole"
	case whole == long:
		return fmt.Sprintf("%d records", len(pieces))
	case strings.HasPrefix(whole, long):
		return "runs into the next line"
	}
	// Of what length depends on what the driver puts before it.
	return fmt.Sprintf("%d records, each cut", len(pieces))
}

func returnWord(have []string) string {
	if count(have, "end\r") == 0 && count(have, "mid\rdle") == 1 && strings.HasSuffix(longest(have), ">end\r") {
		return "kept" // the one at the end is on the long line
	}
	at := slices.IndexFunc(have, func(line string) bool { return strings.HasPrefix(line, "end") })
	if at < 0 {
		return "lost"
	}
	end, middle := strings.TrimPrefix(have[at], "end"), between(have, "mid", "dle")
	if end != middle {
		return fmt.Sprintf("at the end %s, else %s", word(end, "\r"), word(middle, "\r"))
	}
	return word(end, "\r")
}

func longest(lines []string) string {
	return slices.MaxFunc(lines, func(a, b string) int { return len(a) - len(b) })
}

func middleWord(have []string, before, after, original string) string {
	return word(between(have, before, after), original)
}

// between is the text between two words, or "lost" where they are on no line.
func between(have []string, before, after string) string {
	for _, line := range have {
		if rest, ok := strings.CutPrefix(line, before); ok {
			if middle, ok := strings.CutSuffix(rest, after); ok {
				return middle
			}
		}
	}
	return "lost"
}

func word(have, original string) string {
	switch have {
	case original:
		return "kept"
	case "":
		return "removed"
	case "lost":
		return "lost"
	case "\ufffd":
		return "U+FFFD"
	}
	return "`" + have + "`"
}

func emptyWord(have []string) string {
	if count(have, "") == 1 {
		return "kept"
	}
	return "dropped"
}

// spaces is a line with some at both ends.
const spaces = "  spaces, a tab\t "

func spacesWord(have []string) string {
	at := slices.IndexFunc(have, func(line string) bool { return strings.Contains(line, "spaces, a tab") })
	switch {
	case at < 0:
		return "lost"
	case have[at] == spaces:
		return "kept"
	case have[at] == strings.TrimSpace(spaces):
		return "removed"
	case have[at] == strings.TrimRight(spaces, " \t"):
		return "removed at the end"
	case have[at] == strings.ReplaceAll(spaces, "\t", "#011"):
		return "tabs `#011`"
	}
	return "`" + have[at] + "`"
}
