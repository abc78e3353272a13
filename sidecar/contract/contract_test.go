package contract

import (
	"errors"
	"flag"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseEntries(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        []Entry
		err         string
	}{
		{"a path", "/app/app.log", []Entry{{"", "/app/app.log"}}, ""},
		{"commas, newlines, blanks and empty fields", " app:/a.log ,\r\n\n/b.log,", []Entry{{"app", "/a.log"}, {"", "/b.log"}}, ""},
		{"blanks about the colon", "app : /a.log", []Entry{{"app", "/a.log"}}, ""},
		{"a path is made clean", "/a//./b.log", []Entry{{"", "/a/b.log"}}, ""},
		{"a colon behind a slash is part of the path", "/a:b/c.log", []Entry{{"", "/a:b/c.log"}}, ""},
		{"globs", "/a/**/*.lo[g-k], /b/?.log", []Entry{{"", "/a/**/*.lo[g-k]"}, {"", "/b/?.log"}}, ""},
		{"shared memory", "/dev/shm/app.log", []Entry{{"", "/dev/shm/app.log"}}, ""},
		{"a file that is merely called dev", "/app/dev/stdout", []Entry{{"", "/app/dev/stdout"}}, ""},

		{"nothing", " ,\n", nil, "names no file; write the path of a log file, such as /app/app.log"},
		{"a relative path", "logs/app.log", nil, `"logs/app.log" is not an absolute path; write the whole path, such as /app/app.log`},
		{"a container alone", "app:", nil, `"app:" names no path; write app:/absolute/path`},
		{"a drive letter", `C:\logs`, nil, `"C:\\logs": "C" is not the name of a container; write container:/absolute/path`},
		{"dots", "/a/../b", nil, `"/a/../b" contains ".."; write the path without it`},
		{"a directory", "/var/log/", nil, `"/var/log/" is a directory; name the files in it, such as /var/log/*.log`},
		{"the top directory", "/", nil, `"/" is not a file; write the path of a log file, such as /app/app.log`},
		{"a control character", "/a\tb", nil, `"/a\tb" contains a control character or is not UTF-8; write a plain path`},
		{"no UTF-8", "/a\xff", nil, `"/a\xff" contains a control character or is not UTF-8; write a plain path`},
		{"an open bracket", "/a/[b", nil, `"/a/[b" is not a glob: its "[b" has a bracket that is open or empty; write [[] for a bracket`},
		{"more than a person would write", strings.Repeat("/x,", 251), nil, "names more than 250 files; write a glob such as /var/log/app/*.log for many"},
		{"longer than a path can be", strings.Repeat("/123456789", 410), nil, `"` + strings.Repeat("/123456789", 12) + `/1234567…" is too long for a path (4096 bytes); write a shorter one`},
		{"more text than the pod may have room for", strings.Repeat("/x,", MaxValue/3) + "/xy", nil, "has 32769 bytes, more than 32768; write a glob such as /var/log/app/*.log for many files"},
		{"a backslash in a path", `/app/logs\app.log`, nil, `"/app/logs\\app.log" contains a backslash; write [[] for a bracket, [*] for an asterisk, and ? for a backslash that is part of a name`},
		{"a backslash in a glob", `/a\[b/*`, nil, `"/a\\[b/*" contains a backslash; write [[] for a bracket, [*] for an asterisk, and ? for a backslash that is part of a name`},
		{"a sentence quotes no more than it must", "x" + strings.Repeat("é", 500), nil, `"x` + strings.Repeat("é", 63) + `…" is not an absolute path; write the whole path, such as /app/x` + strings.Repeat("é", 63) + `…`},
		{"shared memory itself", "/dev/shm", nil, `"/dev/shm": files under /dev belong to the kernel and are not logs; name a file that the application writes`},
		{"stderr", "/dev/fd/2", nil, `"/dev/fd/2" is the container's own stderr, which kubectl logs shows without log-bridge; remove the entry`},
		{"a device", "/dev/log", nil, `"/dev/log": files under /dev belong to the kernel and are not logs; name a file that the application writes`},
		{"proc", "/proc/1/fd/1", nil, `"/proc/1/fd/1": files under /proc belong to the kernel and are not logs; name a file that the application writes`},
		{"sys, by way of a detour", "//sys/./x", nil, `"/sys/x": files under /sys belong to the kernel and are not logs; name a file that the application writes`},
	} {
		t.Run(c.name, func(t *testing.T) {
			have, err := ParseEntries(c.value)
			if said := sentence(err); said != c.err {
				t.Errorf("said %s\nwant %s", said, c.err)
			}
			if !slices.Equal(have, c.want) {
				t.Errorf("have %q, want %q", have, c.want)
			}
		})
	}
}

func sentence(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDir(t *testing.T) {
	for pattern, want := range map[string]string{
		"/app/app.log":      "/app",
		"/app.log":          "/",
		"/var/log/*.log":    "/var/log",
		"/var/log/**/x":     "/var/log",
		"/var/log/app[1]/x": "/var/log",
		"/*/x":              "/",
	} {
		if have := (Entry{Pattern: pattern}).Dir(); have != want {
			t.Errorf("%s: have %s, want %s", pattern, have, want)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		want      bool
	}{
		{"/var/log", "/var/log/x", true},
		{"/var/log", "/var/log", true},
		{"/", "/x", true},
		{"/var/log", "/var/log2", false},
		{"/var/log/x", "/var/log", false},
	} {
		if have := Covers(c.dir, c.path); have != c.want {
			t.Errorf("Covers(%s, %s) = %v", c.dir, c.path, have)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, a := range Annotations {
		have, err := Lookup(a.Name())
		if err != nil || have.Key != a.Key {
			t.Errorf("%s: have %+v, %v", a.Name(), have, err)
		}
	}
	for key, near := range map[string]string{"file": "files", "formats": "format", "stderr-file": "stderr-files", "memory-limits": "memory-limit", "sizelimit": "size-limit", "runasuser": "run-as-user"} {
		_, err := Lookup(Prefix + key)
		if !strings.HasSuffix(sentence(err), "did you mean "+Prefix+near+"?") {
			t.Errorf("%s: %v; want a hint at %s", key, err, near)
		}
	}
	if _, err := Lookup(Prefix + "x"); !strings.Contains(sentence(err), "cpu-limit, cpu-request, ephemeral-storage-limit, ephemeral-storage-request, files") {
		t.Errorf("x: %v; want the list of keys", err)
	}
}

// Each annotation that is passed to the sidecar has its flag, and a flag of a word for
// each word of the annotation.
func TestTableNamesFlags(t *testing.T) {
	fs := flag.NewFlagSet("tail", flag.ContinueOnError)
	Flags(fs)
	for _, a := range Annotations {
		if a.Doc == "" {
			t.Errorf("%s is not documented", a.Key)
		}
		if (a.Kind == Enum) != (len(a.Values) > 0) {
			t.Errorf("%s: values %q", a.Key, a.Values)
		}
		if a.Flag == "" {
			continue
		}
		if fs.Lookup(a.Flag) == nil {
			t.Errorf("%s: tail has no flag --%s", a.Key, a.Flag)
		}
		for _, v := range a.Values {
			if err := fs.Set(a.Flag, v); err != nil {
				t.Errorf("--%s=%s: %v", a.Flag, v, err)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	for name, c := range map[string]Config{
		"the usual": {Roots: []string{Root}, Format: Raw, Stdout: []Entry{{"app", "/app/app.log"}}},
		"everything": {
			Roots:   []string{"/a", "/b=c"},
			State:   "/s t",
			Views:   []View{{Place{"app", "/d=e/f"}, "/v=/w"}, {Place{"web", "/"}, "/v"}},
			FromEnd: []string{"/v"},
			Files:   []Place{{"app", "/x:y=z"}},
			Dirs:    []Place{{"app", "/-"}},
			Seeded:  []Place{{"app", "/var/log"}},
			Format:  JSON,
			Reclaim: true,
			Grace:   25 * time.Second,
			Stdout:  []Entry{{"app", "/--x"}},
			Stderr:  []Entry{{"app", "/e/**"}},
		},
	} {
		have, err := ParseTail(c.Args(), io.Discard)
		if err != nil || !reflect.DeepEqual(have, c) {
			t.Errorf("%s: %q\nhave %+v (%v)\nwant %+v", name, c.Args(), have, err, c)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "nothing to follow; name at least one CONTAINER:PATTERN, such as app:/app/app.log"},
		{"/app.log", `"/app.log" names no container; write CONTAINER:/app.log`},
		{"--format=xml app:/x", "write raw, prefix or json"},
		{"--view=app:/x app:/x", "write CONTAINER:PATH=/DIR"},
		{"--view=/x=/y app:/x", `"/x" is not CONTAINER:/absolute/path`},
		{"--file=app:x app:/x", `"app:x" is not CONTAINER:/absolute/path`},
		{"--from-end=x app:/x", "is not an absolute path"},
		{"--grace=-1s app:/x", "--grace -1s is negative; write a duration such as 25s"},
		{"--wibble app:/x", "log-bridge tail --help lists the flags"},
	} {
		_, err := ParseTail(strings.Fields(c.args), io.Discard)
		if !strings.Contains(sentence(err), c.want) {
			t.Errorf("%s: said %v, want %s", c.args, err, c.want)
		}
	}
	var help strings.Builder
	if _, err := ParseTail([]string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "-reclaim") {
		t.Errorf("--help: %v, %s", err, &help)
	}
}

// FuzzEntries: what is read is written such that it is read as the same, and what is
// refused is refused with a message.
func FuzzEntries(f *testing.F) {
	for _, v := range []string{"/app/app.log", "app:/a/**/[x], /b", "a:b:/c", "/dev/stdout", "..", "/[[]", "/\\*"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		entries, err := ParseEntries(value)
		if err != nil {
			if err.Error() == "" || entries != nil {
				t.Errorf("%q: error %q with entries %q", value, err, entries)
			}
			return
		}
		var texts []string
		for _, e := range entries {
			texts = append(texts, e.String())
			if !strings.HasPrefix(e.Pattern, "/") || !Covers(e.Dir(), e.Pattern) && !e.IsGlob() {
				t.Errorf("%q: entry %q in directory %q", value, e, e.Dir())
			}
		}
		again, err := ParseEntries(strings.Join(texts, ","))
		if err != nil || !slices.Equal(again, entries) {
			t.Errorf("%q: read as %q, then as %q (%v)", value, entries, again, err)
		}
	})
}
