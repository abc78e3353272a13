package contract

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// The grammar of globs, for the webhook and the sidecar: *, ? and […] within a component of a path, [!…] or [^…] for any
// other character, ** for any number of directories, and {a,b} for alternatives. As in a shell, a wildcard does not match
// a dot at the beginning of a name.

// IsPattern says whether a component of a path can match more than one name.
func IsPattern(part string) bool { return strings.ContainsAny(part, `*?[`) }

// Match says whether a component of a pattern other than ** matches a name.
func Match(part, name string) bool {
	if !IsPattern(part) {
		return part == name
	}
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".") {
		return false
	}
	ok, _ := path.Match(shellClasses(part), name)
	return ok
}

// shellClasses writes [!…] as path.Match has it.
func shellClasses(part string) string {
	if !strings.Contains(part, "[!") {
		return part
	}
	b := []byte(part)
	for i := 0; i < len(b); i++ {
		if b[i] != '[' {
			continue
		}
		if i++; i < len(b) && b[i] == '!' {
			b[i] = '^'
		}
		for i < len(b) && b[i] != ']' {
			i++
		}
	}
	return string(b)
}

// Reaches says whether the pattern may match something at or below a directory of the container.
func (e Entry) Reaches(dir string) bool {
	parts, names := components(e.Pattern), components(dir)
	// reach[i] says that the rest of the names may be matched by the parts from i on.
	reach := make([]bool, len(parts)+1)
	for i := range reach {
		reach[i] = true // no name is left: what the parts match is below
	}
	for j := len(names) - 1; j >= 0; j-- {
		hidden := strings.HasPrefix(names[j], ".")
		next := make([]bool, len(parts)+1)
		for i := len(parts) - 1; i >= 0; i-- {
			if parts[i] == "**" {
				next[i] = next[i+1] || !hidden && reach[i]
			} else {
				next[i] = reach[i+1] && Match(parts[i], names[j])
			}
		}
		reach = next
	}
	return reach[0]
}

// components are those of an absolute, clean path.
func components(p string) []string {
	if p = strings.Trim(p, "/"); p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// checkPattern says what is wrong with a component of a pattern.
func checkPattern(part string) error {
	if _, err := path.Match(shellClasses(part), ""); err != nil {
		return fmt.Errorf("%q has a bracket that is open or empty; write [[] for a bracket", Brief(part))
	}
	for rest := part; ; {
		_, class, ok := strings.Cut(rest, "[")
		if !ok {
			return nil
		}
		end := strings.IndexByte(class, ']')
		chars := []rune(strings.TrimLeft(class[:end], "!^"))
		for i := 0; i+2 < len(chars); i++ {
			if chars[i+1] != '-' {
				continue
			}
			if chars[i] > chars[i+2] {
				return fmt.Errorf("%q can match nothing, since %c comes after %c; write %c-%c", Brief(part), chars[i], chars[i+2], chars[i+2], chars[i])
			}
			i += 2
		}
		rest = class[end+1:]
	}
}

// fields splits the value of an annotation at newlines, and at commas that are in no braces.
func fields(value string) (all []string) {
	depth, from := 0, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '[':
			i += classLength(value[i:])
		case c == '{':
			depth++
		case c == '}':
			depth = max(0, depth-1)
		case c == '\n' || c == ',' && depth == 0:
			all = append(all, value[from:i])
			depth, from = 0, i+1
		}
	}
	return append(all, value[from:])
}

// classLength is how far it is from the bracket with which s begins to the one that closes it, 0 if there is none. A brace
// in between is part of a name.
func classLength(s string) int {
	if i := strings.IndexAny(s[1:], "],/\n"); i >= 0 && s[i+1] == ']' {
		return i + 1
	}
	return 0
}

// mostBraces is how many braces a field may have: each multiplies what has to be read.
const mostBraces = 16

// expand writes each alternative of the braces in s out, most at the most. ok is false if there are more. The error is a
// message without its subject.
func expand(s string, most int) (all []string, ok bool, err error) {
	if strings.Count(s, "{") > mostBraces {
		return nil, true, fmt.Errorf("has more than %d braces; write fewer, or a glob", mostBraces)
	}
	open, end, commas := -1, -1, []int(nil)
	depth := 0
	for i := 0; i < len(s) && end < 0; i++ {
		switch c := s[i]; {
		case c == '[':
			i += classLength(s[i:])
		case c == '{':
			if depth++; depth == 1 {
				open = i
			}
		case c == '}' && depth == 0:
			return nil, true, errors.New("has a closing brace without an opening one; write [}] for a brace that is part of a name")
		case c == '}':
			if depth--; depth == 0 {
				end = i
			}
		case c == ',' && depth == 1:
			commas = append(commas, i)
		}
	}
	switch {
	case open < 0:
		return []string{s}, most >= 1, nil
	case end < 0:
		return nil, true, errors.New("has a brace that is not closed; write [{] for a brace that is part of a name")
	}
	from := open + 1
	for _, to := range append(commas, end) {
		more, ok, err := expand(s[:open]+s[from:to]+s[end+1:], most-len(all))
		if err != nil || !ok {
			return nil, ok, err
		}
		all, from = append(all, more...), to+1
	}
	return all, true, nil
}
