package contract

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMatch: which names a component of a pattern matches.
func TestMatch(t *testing.T) {
	for _, test := range []struct {
		part, name string
		want       bool
	}{
		{"app.log", "app.log", true},
		{"app.log", "app_log", false},
		{"*.log", "app.log", true},
		{"*.log", ".log", false}, // as in a shell
		{".*", ".log", true},
		{"app?.log", "app1.log", true},
		{"[!x]*", "foo", true},
		{"[!x]*", "xfoo", false},
		{"[^x]*", "xfoo", false},
		{"[[!]", "!", true}, // a class of two
		{"[[!]", "^", false},
		{"[{]a[}]", "{a}", true},
		{"[0-9]", "5", true},
	} {
		if have := Match(test.part, test.name); have != test.want {
			t.Errorf("%s, %s: have %v, want %v", test.part, test.name, have, test.want)
		}
	}
}

// TestReaches: below which directories a pattern may match something.
func TestReaches(t *testing.T) {
	for _, test := range []struct {
		pattern, dir string
		want         bool
	}{
		{"/data/*/app.log", "/data/foo", true},
		{"/data/[!x]*/app.log", "/data/foo", true},
		{"/data/[!x]*/app.log", "/data/xfoo", false},
		{"/data/*/app.log", "/data/.foo", false},
		{"/data/*/app.log", "/data/foo/bar", false},
		{"/data/*/app.log", "/data/foo/app.log", true}, // one file of a volume
		{"/data/**/app.log", "/data/foo/bar", true},
		{"/data/**/app.log", "/data/.foo", false},
		{"/data/**/.foo/app.log", "/data/a/b/.foo", true},
		{"/data/**/.foo/app.log", "/data/a/.b/.foo", false},
		{"/**", "/data", true},
		{"/data/*.log", "/other", false},
	} {
		if have := (Entry{Pattern: test.pattern}).Reaches(test.dir); have != test.want {
			t.Errorf("%s, %s: have %v, want %v", test.pattern, test.dir, have, test.want)
		}
	}
}

// TestBraces: alternatives are entries of their own.
func TestBraces(t *testing.T) {
	for _, test := range []struct {
		value string
		want  []string // paths, or one message
	}{
		{"/a/{x,y}.log", []string{"/a/x.log", "/a/y.log"}},
		{"/a/{x,y}.log,/b.log", []string{"/a/x.log", "/a/y.log", "/b.log"}},
		{"/a/{x,y/{1,2}}.log", []string{"/a/x.log", "/a/y/1.log", "/a/y/2.log"}},
		{"/{a,b}/{c,d}", []string{"/a/c", "/a/d", "/b/c", "/b/d"}},
		{"/app.log{,.1}", []string{"/app.log", "/app.log.1"}},
		{"{a,b}:/x.log", []string{"a:/x.log", "b:/x.log"}},
		{"/a/{x}.log", []string{"/a/x.log"}},
		{"/a/[{]x,/b", []string{"/a/[{]x", "/b"}},
		{"/a/[{]x[}],/b", []string{"/a/[{]x[}]", "/b"}},
		{"/a/{x,y.log\n/b", []string{`"/a/{x,y.log" has a brace that is not closed; write [{] for a brace that is part of a name`}},
		{"/a/x}.log", []string{`"/a/x}.log" has a closing brace without an opening one; write [}] for a brace that is part of a name`}},
		{"/a/[!]", []string{`"/a/[!]" is not a glob: its "[!]" has a bracket that is open or empty; write [[] for a bracket`}},
		{"/a/[z-a].log", []string{`"/a/[z-a].log" is not a glob: its "[z-a].log" can match nothing, since z comes after a; write a-z`}},
		{"/" + strings.Repeat("{a,b}", 9), []string{"names more than 250 files; write a glob such as /var/log/app/*.log for many"}},
		{"/" + strings.Repeat("{a}", 17), []string{"has more than 16 braces; write fewer, or a glob"}},
	} {
		var have []string
		entries, err := ParseEntries(test.value)
		for _, e := range entries {
			have = append(have, e.String())
		}
		if err != nil {
			if !strings.Contains(err.Error(), test.want[0]) {
				t.Errorf("%s: said %v, want %s", test.value, err, test.want[0])
			}
			continue
		}
		if !slices.Equal(have, test.want) {
			t.Errorf("%s: have %v, want %v", test.value, have, test.want)
		}
	}
}

// TestBracesAreBounded: whatever the braces, reading them ends soon. A second is a thousand times what it takes.
func TestBracesAreBounded(t *testing.T) {
	for _, value := range []string{
		strings.Repeat("{", 4000), "/" + strings.Repeat("{a,b}", 700), "/" + strings.Repeat("{a,", 1000) + strings.Repeat("}", 1000),
		"/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}" + strings.Repeat("{a}", 9) + strings.Repeat("x", 3900),
	} {
		begun := time.Now()
		_, _ = ParseEntries(value)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%.40s…: took %v", value, took)
		}
	}
}

// FuzzGlob: what is accepted is clean and has one meaning: each entry reads back as itself, matches only below
// directories that it reaches, and as filepath.Match says where that has the same grammar.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"/a/*.log", "/{a,b}/[!x]?", "/a/**/b", "/[[!]", "/a{,b,{c,d}}", "/[a-", "/[^a]", "/{"} {
		f.Add(s, "/a/b/c.log")
	}
	f.Fuzz(func(t *testing.T, value, name string) {
		entries, err := ParseEntries(value)
		if err != nil {
			return
		}
		for _, e := range entries {
			again, err := ParseEntry(e.String())
			if err != nil || again != e {
				t.Errorf("%q of %q: have %v, %v", e, value, again, err)
			}
			if !strings.HasPrefix(name, "/") || strings.Contains(e.Pattern, "**") || strings.Contains(e.Pattern, "[!") || strings.Contains(name, "/.") || filepath.Clean(name) != name {
				continue
			}
			if ok, err := filepath.Match(e.Pattern, name); err == nil && ok && !e.Reaches(filepath.Dir(name)) {
				t.Errorf("%q matches %q, and does not reach its directory", e, name)
			}
		}
	})
}
