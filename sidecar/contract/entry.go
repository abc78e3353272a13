package contract

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Entry names files in a container: a path or a glob as the container sees it.
type Entry struct {
	// Container may be empty in an annotation (the default container), never in a
	// Config.
	Container string
	// Pattern is an absolute, clean path that may hold *, ?, […] and **, and neither a
	// backslash nor, outside of brackets, a brace.
	Pattern string
}

// String is the entry as it is written: CONTAINER:PATTERN.
func (e Entry) String() string {
	if e.Container == "" {
		return e.Pattern
	}
	return e.Container + ":" + e.Pattern
}

// IsGlob says whether the pattern can match more than one path.
func (e Entry) IsGlob() bool { return IsPattern(e.Pattern) }

// Dir is the directory that holds what the pattern matches: the parent of a
// plain path, the longest prefix without a wildcard of a glob.
func (e Entry) Dir() string {
	p := e.Pattern
	if i := strings.IndexAny(p, `*?[`); i >= 0 {
		p = p[:i] + "x"
	}
	return path.Dir(p)
}

// MaxEntries is how many entries an annotation may have. More could be written into one
// than a webhook can examine in the time that it has.
const MaxEntries = 250

// MaxValue is how many bytes an entries annotation may have. All annotations of a pod have
// at most 256 KiB, and the status annotation names each entry again.
const MaxValue = 32 << 10

// maxPath is the length of a path in Linux, the zero byte at its end included.
const maxPath = 4096

// ParseEntries reads the value of an entries annotation: entries separated by
// commas or newlines. Its errors are messages that name the remedy; the caller
// puts the annotation's key before them.
func ParseEntries(value string) ([]Entry, error) {
	if len(value) > MaxValue {
		return nil, fmt.Errorf("has %d bytes, more than %d; write a glob such as /var/log/app/*.log for many files", len(value), MaxValue)
	}
	var entries []Entry
	for _, field := range fields(value) {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		more, err := parseField(field, MaxEntries-len(entries))
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	if len(entries) == 0 {
		return nil, errors.New("names no file; write the path of a log file, such as /app/app.log")
	}
	return entries, nil
}

// parseField reads a field of the annotation, whose braces may make it several entries, most at the most.
func parseField(s string, most int) (entries []Entry, err error) {
	if len(s) > maxPath {
		return nil, fmt.Errorf("%q is too long for a path (%d bytes); write a shorter one", Brief(s), maxPath)
	}
	all, ok, err := expand(s, most)
	if err != nil {
		return nil, fmt.Errorf("%q %w", Brief(s), err)
	}
	if !ok {
		return nil, fmt.Errorf("names more than %d files; write a glob such as /var/log/app/*.log for many", MaxEntries)
	}
	for _, s := range all {
		e, err := ParseEntry(s)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// ParseEntry reads one [container:]/absolute/path. Braces are alternatives, which are entries of their own: only
// ParseEntries takes them.
func ParseEntry(s string) (Entry, error) {
	if len(s) > maxPath {
		return Entry{}, fmt.Errorf("%q is too long for a path (%d bytes); write a shorter one", Brief(s), maxPath)
	}
	if all, _, err := expand(s, 2); err != nil {
		return Entry{}, fmt.Errorf("%q %w", Brief(s), err)
	} else if len(all) != 1 || all[0] != s {
		return Entry{}, fmt.Errorf("%q has alternatives in braces; write each of them", Brief(s))
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '�' {
			return Entry{}, fmt.Errorf("%q contains a control character or is not UTF-8; write a plain path", Brief(s))
		}
	}
	var e Entry
	if i := strings.IndexByte(s, ':'); i >= 0 && !strings.Contains(s[:i], "/") {
		e.Container, e.Pattern = strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
		if !isLabel(e.Container) {
			return Entry{}, fmt.Errorf("%q: %q is not the name of a container; write container:/absolute/path", Brief(s), Brief(e.Container))
		}
	} else {
		e.Pattern = s
	}
	if e.Pattern == "" {
		return Entry{}, fmt.Errorf("%q names no path; write %s/absolute/path", Brief(s), Brief(s))
	}
	if !strings.HasPrefix(e.Pattern, "/") {
		return Entry{}, fmt.Errorf("%q is not an absolute path; write the whole path, such as /app/%s", Brief(e.Pattern), Brief(strings.TrimLeft(path.Base("/"+e.Pattern), "/")))
	}
	// For a shell it is an escape, for Linux a letter. A message now is better than the
	// wrong one of the two in silence.
	if strings.Contains(e.Pattern, `\`) {
		return Entry{}, fmt.Errorf("%q contains a backslash; write [[] for a bracket, [*] for an asterisk, and ? for a backslash that is part of a name", Brief(e.Pattern))
	}
	for part := range strings.SplitSeq(e.Pattern, "/") {
		if part == ".." {
			return Entry{}, fmt.Errorf("%q contains \"..\"; write the path without it", Brief(e.Pattern))
		}
	}
	if strings.HasSuffix(e.Pattern, "/") && e.Pattern != "/" {
		return Entry{}, fmt.Errorf("%q is a directory; name the files in it, such as %s*.log", Brief(e.Pattern), Brief(e.Pattern))
	}
	e.Pattern = path.Clean(e.Pattern)
	if e.Pattern == "/" {
		return Entry{}, errors.New("\"/\" is not a file; write the path of a log file, such as /app/app.log")
	}
	for part := range strings.SplitSeq(e.Pattern, "/") {
		if err := checkPattern(part); err != nil {
			return Entry{}, fmt.Errorf("%q is not a glob: its %w", Brief(e.Pattern), err)
		}
	}
	switch top, rest, _ := strings.Cut(e.Pattern[1:], "/"); top {
	case "dev":
		// A tmpfs, which a volume may replace.
		if strings.HasPrefix(rest, "shm/") {
			break
		}
		switch rest {
		case "stdout", "stderr", "fd/1", "fd/2":
			return Entry{}, fmt.Errorf("%q is the container's own %s, which kubectl logs shows without log-bridge; remove the entry", Brief(e.Pattern), map[bool]string{true: "stderr", false: "stdout"}[strings.HasSuffix(rest, "err") || strings.HasSuffix(rest, "2")])
		}
		fallthrough
	case "proc", "sys":
		return Entry{}, fmt.Errorf("%q: files under /%s belong to the kernel and are not logs; name a file that the application writes", Brief(e.Pattern), top)
	}
	return e, nil
}

// isLabel says whether s is a DNS label, as container names are.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Covers says whether path p is dir or is below it, by path components:
// /var/log does not cover /var/log2.
func Covers(dir, p string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}
