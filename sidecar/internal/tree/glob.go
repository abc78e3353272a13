package tree

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// Found is what a pattern matches at one moment.
type Found struct {
	// Nodes are the matches, links resolved, each path once.
	Nodes []Node
	// Dirs are the directories, as the sidecar names them, in which a change
	// may change the result: those that were listed, and for what does not exist
	// yet the nearest directory above it.
	Dirs []string
	// Errs are what was met on the way: unreadable directories, links that lead
	// out. They take nothing away from Nodes.
	Errs []error
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

// Glob finds what matches a pattern of contract.Entry. As in a shell, a wildcard
// does not match a leading dot; ** matches any number of directories, but no links
// to directories, so that it always ends. The result is good until the next Glob, which uses its
// memory again.
func (t *Tree) Glob(pattern string) Found {
	f := Found{Nodes: t.nodes[:0]}
	clear(t.seen)
	t.glob(&f, t.seen, "/", strings.Split(strings.Trim(pattern, "/"), "/"))
	t.nodes = f.Nodes
	return f
}

func (t *Tree) glob(f *Found, seen map[string]bool, dir string, parts []string) {
	part, rest := parts[0], parts[1:]
	if !strings.ContainsAny(part, `*?[\`) {
		p := path.Join(dir, part)
		if len(rest) > 0 {
			t.glob(f, seen, p, rest)
			return
		}
		f.watch(t.nearest(dir))
		t.add(f, seen, p, false)
		return
	}
	if part == "**" {
		if len(rest) == 0 {
			part = "*" // a trailing ** is every file at any depth
		} else {
			t.glob(f, seen, dir, rest)
		}
	}
	names, plain := t.list(f, dir)
	for _, name := range names {
		p := path.Join(dir, name)
		if parts[0] == "**" && !strings.HasPrefix(name, ".") {
			if n, err := t.lstat(p); t.above(p) || err == nil && n.Mode&unix.S_IFMT == unix.S_IFDIR {
				t.glob(f, seen, p, parts)
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
				t.add(f, seen, p, plain)
			}
		default:
			if n, err := t.Resolve(p); err == nil && n.Mode&unix.S_IFMT == unix.S_IFDIR {
				t.glob(f, seen, p, rest)
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
func (t *Tree) add(f *Found, seen map[string]bool, p string, plain bool) {
	if seen[p] {
		return
	}
	seen[p] = true
	n, err := t.lstat(p)
	if !plain || err != nil || n.Mode&unix.S_IFMT == unix.S_IFLNK {
		n, err = t.Resolve(p)
	}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
	case err != nil:
		f.Errs = append(f.Errs, err)
	default:
		f.Nodes = append(f.Nodes, n)
		f.watch(path.Dir(n.Real))
	}
}

func (f *Found) watch(dir string) {
	if dir == "" {
		return
	}
	for _, d := range f.Dirs {
		if d == dir {
			return
		}
	}
	f.Dirs = append(f.Dirs, dir)
}

// nearest is the directory of the sidecar that is nearest to dir and exists.
func (t *Tree) nearest(dir string) string {
	for {
		if n, err := t.Resolve(dir); err == nil && n.Real != "" && n.Mode&unix.S_IFMT == unix.S_IFDIR {
			return n.Real
		}
		if dir == "/" {
			break
		}
		dir = path.Dir(dir)
	}
	if len(t.views) > 0 {
		return path.Dir(t.views[len(t.views)-1].dir)
	}
	return ""
}

// list names what is in a directory of the container, in every view that shows
// it, and the directories that lead to deeper views. Seeding's folder and what an
// unreadable directory holds are left out; the latter is an error in f. plain says that
// the directory is where its path says, without a link.
func (t *Tree) list(f *Found, dir string) (names []string, plain bool) {
	if n, err := t.Resolve(dir); err == nil && n.Real != "" {
		plain = slices.ContainsFunc(t.covering(dir), func(v view) bool { return n.Real == filepath.Join(v.dir, strings.TrimPrefix(dir, v.prefix)) })
		// A link to a directory is listed where it leads.
		real := []Node{n}
		if direct := t.covering(dir); len(direct) > 1 {
			real = real[:0]
			for _, v := range direct {
				real = append(real, Node{Real: path.Join(v.dir, strings.TrimPrefix(dir, v.prefix)), base: v.dir})
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
		f.watch(t.nearest(dir))
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
