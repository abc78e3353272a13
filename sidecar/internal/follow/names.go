package follow

import (
	"bytes"
	"cmp"
	"path"
	"strconv"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// What the names of files say of rotation. All of it is pure.

// isGeneration says whether a rotation may have given name to an earlier generation of base: it is the name with
// something appended, but neither that of a compressed file nor of one of the small files that programs keep beside a log.
func isGeneration(base, name string) bool {
	rest, ok := strings.CutPrefix(name, base)
	if !ok || rest == "" || !strings.ContainsRune(".-_0123456789", rune(rest[0])) || tree.Compressed(name) {
		return false
	}
	switch rest {
	case ".lck", ".lock", ".pid", ".tmp", ".swp", ".part", ".pos", ".offset", ".idx":
		return false
	}
	return true
}

// madeOf is the name of which a name may be the checksum, the signature or the compressed form: that without a last
// part that is a word, such as app.log.1 for app.log.1.sha256. It is empty where there is no such part.
func madeOf(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || i+1 == len(name) || name[i+1] >= '0' && name[i+1] <= '9' {
		return ""
	}
	return name[:i]
}

// isPacked says whether content is that of a compressed file, by its first bytes.
func isPacked(head []byte) bool {
	for _, magic := range []string{
		"\x1f\x8b", "\x1f\x9d", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "\x5d\x00\x00", "LZIP", "\x89LZO\x00",
		"PK\x03\x04", "7z\xbc\xaf\x27\x1c", "LRZI", "\xff\x06\x00\x00sNaPpY",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// byAge compares the names of generations: the older one comes first, as far as names tell. Where upward, a higher
// number is a later generation.
func byAge(a, b string, upward bool) int {
	i, j := counter(a), counter(b)
	switch {
	case i < 0 || j < 0:
		return cmp.Compare(a, b)
	case upward:
		return cmp.Compare(i, j)
	}
	return cmp.Compare(j, i)
}

// counter is the number at the end of app.log.2, which counts rotations, -1 for other names: app.log-20260102 or
// app.log.20260102 ends with a date.
func counter(name string) int {
	digits := name[strings.LastIndexByte(name, '.')+1:]
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || len(digits) > 4 {
		return -1
	}
	return n
}

// unnumbered is a name without the numbers and dates at its end: that of the log whose generation it may be.
func unnumbered(name string) string {
	if base := strings.TrimRight(name, ".-_0123456789"); base != "" && base != "/" && !strings.HasSuffix(base, "/") {
		return base
	}
	return name
}

// likeness says how much a name looks like that of a copy.
type likeness int

const (
	unlike likeness = iota
	// perhaps is app-2.log for app.log: a copy, or a log beside it.
	perhaps
	// likely is app.log.1 or app.log-20260102 for app.log.
	likely
)

// looksLikeCopyOf compares the names of a file and of its possible original.
func looksLikeCopyOf(name, original string) likeness {
	name, original = path.Base(name), path.Base(original)
	if rest, ok := strings.CutPrefix(name, original); ok && rest != "" {
		if rest[0] == '.' || rest[0] == '-' || rest[0] == '_' {
			return likely
		}
		return unlike
	}
	ext := path.Ext(original)
	stem := strings.TrimSuffix(original, ext)
	if len(name) > len(original) && stem != "" && strings.HasPrefix(name, stem) && strings.HasSuffix(name, ext) {
		return perhaps
	}
	return unlike
}

// originals calls visit with each name of which name may be that of a copy, as looksLikeCopyOf sees it: there are few
// of them, however many files there are.
func originals(name string, visit func(original string)) {
	name = path.Base(name)
	for i := 1; i < len(name); i++ {
		if c := name[i]; c == '.' || c == '-' || c == '_' {
			visit(name[:i])
		}
	}
	ext := path.Ext(name)
	for i := 1; i < len(name)-len(ext); i++ {
		visit(name[:i] + ext)
	}
	// An original without an extension.
	if ext != "" {
		for i := 1; i < len(name); i++ {
			if !strings.Contains(name[:i], ".") {
				visit(name[:i])
			}
		}
	}
}
