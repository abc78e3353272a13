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
	// Dirs are the directories, as the sidecar names them, in which a change
	// may change the result: those that were listed, and for what does not exist
	// yet the nearest directory above it.
	Dirs []string
	// Linked says that a link was on the way. What is found depends on where it leads, too,
	// and Dirs need not hold it.
	Linked bool
	// Errs are what was met on the way: unreadable directories, links that lead
	// out. They take nothing away from the matches.
	Errs []error

	match func(Node)
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
// once. As in a shell, a wildcard does not match a leading dot; ** matches any number of
// directories, but no links to directories, so that it always ends.
func (t *Tree) Glob(pattern string, match func(Node)) Found {
	f := Found{match: match}
	if strings.Count(pattern, "**") > 1 || len(t.covering("/")) > 1 {
		f.seen = map[string]bool{}
	}
	t.glob(&f, "/", strings.Split(strings.Trim(pattern, "/"), "/"))
	return f
}

func (t *Tree) glob(f *Found, dir string, parts []string) {
	part, rest := parts[0], parts[1:]
	if !strings.ContainsAny(part, `*?[\`) {
		p := join(dir, part)
		if len(rest) > 0 {
			t.glob(f, p, rest)
			return
		}
		t.watchNearest(f, dir)
		t.add(f, p, false)
		return
	}
	if part == "**" {
		if len(rest) == 0 {
			part = "*" // a trailing ** is every file at any depth
		} else {
			t.glob(f, dir, rest)
		}
	}
	names, plain := t.list(f, dir)
	for _, name := range names {
		p := join(dir, name)
		if parts[0] == "**" && !strings.HasPrefix(name, ".") {
			if n, err := t.lstat(p); t.above(p) || err == nil && n.Mode&unix.S_IFMT == unix.S_IFDIR {
				t.glob(f, p, parts)
				continue
			}
			if len(rest) > 0 {
				continue
			}
		}
		if !match(part, name) {
			continue
		}
		switch {
		case len(rest) == 0:
			if !Compressed(name) {
				t.add(f, p, plain)
			}
		default:
			n, err := t.Resolve(p)
			f.Linked = f.Linked || err != nil || n.linked
			if err == nil && n.Mode&unix.S_IFMT == unix.S_IFDIR {
				t.glob(f, p, rest)
			}
		}
	}
}

// match matches one component. path.Match knows the negated class as [^…], shells
// also as [!…].
func match(part, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".") {
		return false
	}
	ok, _ := path.Match(strings.ReplaceAll(part, "[!", "[^"), name)
	return ok
}

// add puts what is at p into the result. plain says that no link is above it.
func (t *Tree) add(f *Found, p string, plain bool) {
	if f.seen[p] {
		return
	}
	if f.seen != nil {
		f.seen[p] = true
	}
	var n Node
	err := error(unix.ELOOP)
	if plain {
		n, err = t.lstat(p)
	}
	if err != nil || n.Mode&unix.S_IFMT == unix.S_IFLNK {
		n, err = t.Resolve(p)
		f.Linked = f.Linked || n.linked
	}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
	case err != nil:
		f.Errs = append(f.Errs, err)
	default:
		f.watch(path.Dir(n.Real))
		f.match(n)
	}
}

func (f *Found) watch(dir string) {
	for _, d := range f.Dirs {
		if d == dir {
			return
		}
	}
	f.Dirs = append(f.Dirs, dir)
}

// watchNearest watches the directory of the sidecar that is nearest to dir and exists.
func (t *Tree) watchNearest(f *Found, dir string) {
	for {
		if n, err := t.Resolve(dir); err == nil && n.Real != "" && n.Mode&unix.S_IFMT == unix.S_IFDIR {
			f.Linked = f.Linked || n.linked
			f.watch(n.Real)
			return
		}
		if dir == "/" {
			break
		}
		dir = path.Dir(dir)
	}
	if len(t.views) > 0 {
		f.watch(path.Dir(t.views[len(t.views)-1].dir))
	}
}

// list names what is in a directory of the container, in every view that shows
// it, and the directories that lead to deeper views. Seeding's folder and what an
// unreadable directory holds are left out; the latter is an error in f. plain says that
// the directory is where its path says, without a link.
func (t *Tree) list(f *Found, dir string) (names []string, plain bool) {
	if n, err := t.Resolve(dir); err == nil && n.Real != "" {
		plain = !n.linked
		f.Linked = f.Linked || n.linked
		// A link to a directory is listed where it leads.
		real := []Node{n}
		if direct := t.covering(dir); len(direct) > 1 {
			real = real[:0]
			for _, v := range direct {
				real = append(real, Node{Real: v.real(dir), base: v.dir})
			}
		}
		for _, r := range real {
			fd, err := openBeneath(r.base, r.Real, unix.O_RDONLY|unix.O_DIRECTORY)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				f.Errs = append(f.Errs, &os.PathError{Op: "open", Path: dir, Err: err})
				continue
			}
			f.watch(r.Real)
			d := os.NewFile(uintptr(fd), dir)
			found, err := d.Readdirnames(-1)
			if err != nil {
				f.Errs = append(f.Errs, err)
			}
			d.Close()
			names = append(names, found...)
		}
	} else {
		t.watchNearest(f, dir)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			f.Errs = append(f.Errs, err)
		}
	}
	for _, v := range t.views {
		if v.prefix == dir || !contract.Covers(dir, v.prefix) {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(v.prefix, dir), "/"), "/")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, plain
}
