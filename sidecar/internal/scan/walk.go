package scan

import (
	"errors"

	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// WalkMost is the most names that Walk visits where it is not told otherwise: a volume of the user's may hold millions
// of files that are not ours to follow.
const WalkMost = 100_000

// Dirs calls visit with the directories that the last scan came by, open.
func (s *Scanner) Dirs(visit func(*tree.Dir)) {
	for _, known := range s.dirs {
		if d, err := known.node.OpenDir(); err == nil {
			visit(d)
			d.Close()
		}
	}
}

// Roots are the directories that hold what the sidecar sees of all containers.
func (s *Scanner) Roots() (roots []tree.Node) {
	seen := map[string]bool{}
	for _, src := range s.sources {
		for _, root := range src.Tree.Dirs() {
			if !seen[root.Real] {
				seen[root.Real] = true
				roots = append(roots, root)
			}
		}
	}
	return roots
}

// Files calls visit with the names in a directory that may be those of regular files, each at least once. A name that
// is given while the directory is listed may be missing in the list, so that is made again.
func Files(d *tree.Dir, visit func(name string)) {
	for range 3 {
		before := d.Changed()
		if err := d.Each(func(name string, kind tree.Kind) {
			if kind == tree.File || kind == tree.Unknown {
				visit(name)
			}
		}); err != nil || d.Changed() == before {
			return
		}
	}
}

// Walk calls visit for each regular file beneath some directories, at most `most` names. It returns how many names it
// came by, and false if it did not see all.
func Walk(todo []tree.Node, most int, visit func(d *tree.Dir, name string)) (seen int, all bool) {
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := at.OpenDir()
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
			continue
		case err != nil:
			return seen, false
		}
		err = d.Each(func(name string, kind tree.Kind) {
			if seen++; seen > most {
				return
			}
			if kind == tree.Unknown {
				if n, err := d.Lookup(name); err == nil && n.IsDir() {
					kind = tree.Directory
				}
			}
			if kind == tree.Directory {
				todo = append(todo, at.Child(name))
				return
			}
			if kind != tree.Other {
				visit(d, name)
			}
		})
		d.Close()
		if err != nil || seen > most {
			return seen, false
		}
	}
	return seen, true
}
