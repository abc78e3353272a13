package tree

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// Found is what a pattern was looked for in.
type Found struct {
	// Dirs are the directories, by Node.Real, in which a change
	// may change the result: those that were listed, and for what does not exist
	// yet the nearest directory above it.
	Dirs map[string]Node
	// Linked says that a link was on the way. What is found depends on where it leads, too,
	// and Dirs need not hold it.
	Linked bool

	match func(Node)
	fault func(error)
	seen  map[string]bool // the paths of the matches, where one may be met twice
}

// Compressed says whether a name is that of a compressed file. A wildcard does
// not match it: what it holds was followed before it was compressed.
func Compressed(name string) bool {
	switch path.Ext(name) {
	case ".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".Z", ".zip", ".br":
		return true
	}
	return false
}

// Glob calls match with what matches a pattern of contract.Entry, links resolved, each path
// once, and fault with what was met on the way: unreadable directories, links that lead out. Faults take nothing away
// from the matches. As in a shell, a wildcard does not match a leading dot; ** matches any number of
// directories, but no links to directories, so that it always ends.
func (t *Tree) Glob(pattern string, match func(Node), fault func(error)) Found {
	f := Found{Dirs: map[string]Node{}, match: match, fault: fault}
	if strings.Count(pattern, "**") > 1 || len(t.covering("/")) > 1 {
		f.seen = map[string]bool{}
	}
	t.glob(&f, "/", strings.Split(strings.Trim(pattern, "/"), "/"))
	return f
}

func (t *Tree) glob(f *Found, dir string, parts []string) {
	part, rest := parts[0], parts[1:]
	if !contract.IsPattern(part) {
		p := join(dir, part)
		if len(rest) > 0 {
			t.glob(f, p, rest)
			return
		}
		t.watchNearest(f, dir) // that of the name, even if it is a link to a file elsewhere
		t.add(f, p, nil, "")
		return
	}
	if part == "**" {
		if len(rest) == 0 {
			part = "*" // a trailing ** is every file at any depth
		} else {
			t.glob(f, dir, rest)
		}
	}
	// Directories are gone into when this one is closed, so that however deep they are, one is open.
	type deeper struct {
		name  string
		parts []string
	}
	var next []deeper
	t.list(f, dir, func(d *Dir, name string, kind Kind) {
		if parts[0] == "**" && !strings.HasPrefix(name, ".") {
			if d == nil && t.above(join(dir, name)) || t.kind(d, dir, name, kind) == Directory {
				next = append(next, deeper{name, parts})
				return
			}
			if len(rest) > 0 {
				return
			}
		}
		switch {
		case !contract.Match(part, name):
		case len(rest) == 0:
			if !Compressed(name) {
				t.add(f, join(dir, name), d, name)
			}
		case kind == Directory:
			next = append(next, deeper{name, rest})
		case kind != File:
			n, err := t.Resolve(join(dir, name))
			f.Linked = f.Linked || err != nil || n.linked
			if err == nil && n.Mode&unix.S_IFMT == unix.S_IFDIR {
				next = append(next, deeper{name, rest})
			}
		}
	})
	for _, n := range next {
		t.glob(f, join(dir, n.name), n.parts)
	}
}

// kind is what is at a name of a directory.
func (t *Tree) kind(d *Dir, dir, name string, known Kind) Kind {
	if known != Unknown {
		return known
	}
	var n Node
	var err error
	if d != nil {
		n, err = d.Lookup(name)
	} else {
		n, err = t.lstat(join(dir, name))
	}
	switch {
	case err != nil:
		return Other
	case n.Mode&unix.S_IFMT == unix.S_IFDIR:
		return Directory
	}
	return Other
}

// add puts what is at p into the result: name in the directory d, if that is known.
func (t *Tree) add(f *Found, p string, d *Dir, name string) {
	if f.seen[p] {
		return
	}
	if f.seen != nil {
		f.seen[p] = true
	}
	var n Node
	err := error(unix.ELOOP)
	if d != nil {
		n, err = d.Lookup(name)
		n.Path = p
	}
	if err != nil || n.Mode&unix.S_IFMT == unix.S_IFLNK {
		n, err = t.Resolve(p)
		f.Linked = f.Linked || n.linked
	}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		if d == nil {
			t.watchNearest(f, p)
		}
	case err != nil:
		f.fault(err)
	default:
		if n.Real != "" {
			f.watch(n.Parent())
		}
		f.match(n)
	}
}

func (f *Found) watch(dir Node) { f.Dirs[dir.Real] = dir }

// watchNearest watches what has to change before p can appear: the nearest directory above it that
// exists, or, where a volume or one file of it is mounted and missing, the one that will hold it.
func (t *Tree) watchNearest(f *Found, p string) {
	for ; ; p = path.Dir(p) {
		if n, err := t.Resolve(p); err == nil && n.Real != "" && n.IsDir() {
			f.Linked = f.Linked || n.linked
			f.watch(n)
			return
		}
		mounted := false
		for _, v := range t.covering(p) {
			if v.prefix == p {
				mounted = true
				f.watchParent(Node{Path: p, Real: v.dir, view: v})
			}
		}
		if mounted || p == "/" {
			return
		}
	}
}

// watchParent watches the nearest directory of the sidecar that holds n, or will.
func (f *Found) watchParent(n Node) {
	for n = n.Parent(); n.look() != nil || !n.IsDir(); n = n.Parent() {
		if n.Real == "/" || n.Real == "." {
			return
		}
	}
	f.watch(n)
}

// list calls visit with what is in a directory of the container, in every view that shows
// it, and with the directories that lead to deeper views, for which d is nil. What an
// unreadable directory holds is left out, and is an error in f.
func (t *Tree) list(f *Found, dir string, visit func(d *Dir, name string, kind Kind)) {
	var deeper []string
	for _, v := range t.views {
		if v.prefix == dir || !contract.Covers(dir, v.prefix) {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(v.prefix, dir), "/"), "/")
		if !slices.Contains(deeper, name) {
			deeper = append(deeper, name)
		}
	}
	if n, err := t.Resolve(dir); err == nil && n.Real != "" {
		f.Linked = f.Linked || n.linked
		// A link to a directory is listed where it leads.
		shown := []Node{n}
		if direct := t.covering(dir); len(direct) > 1 {
			shown = shown[:0]
			for _, v := range direct {
				shown = append(shown, Node{Path: dir, Real: v.real(dir), view: v, rel: v.rel(dir)})
			}
		}
		for _, n := range shown {
			d, err := n.OpenDir()
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue
			}
			if err == nil {
				f.watch(n)
				err = d.Each(func(name string, kind Kind) {
					if !slices.Contains(deeper, name) {
						visit(d, name, kind)
					}
				})
				d.Close()
			}
			if err != nil {
				f.fault(&os.PathError{Op: "open", Path: dir, Err: err})
			}
		}
	} else {
		t.watchNearest(f, dir)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			f.fault(err)
		}
	}
	for _, name := range deeper {
		visit(nil, name, Unknown)
	}
}
